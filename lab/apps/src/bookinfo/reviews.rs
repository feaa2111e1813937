//! What do reviewers write, and with which stars?

use super::{PORT, product, service};
use crate::arguments::port;
use crate::fetch::{self, Service};
use crate::{Error, listening};
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::warn;
use world::http::{Body, json as answer};

/// The three versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Asks nobody, shows no stars.
    V1,
    /// Asks ratings, shows black stars.
    V2,
    /// Asks ratings, shows red stars.
    V3,
}

impl Version {
    fn colour(self) -> Option<&'static str> {
        match self {
            Version::V1 => None,
            Version::V2 => Some("black"),
            Version::V3 => Some("red"),
        }
    }
}

/// Serves `GET /reviews/N` and `/health`.
pub async fn run(version: Version, args: Vec<String>) -> Result<(), Error> {
    let reviews = Arc::new(Reviews {
        version,
        ratings: service("ratings", |k| std::env::var(k).ok()),
        pod: listening::own_name(),
    });
    let serving = listening::http(port(&args, "port", PORT)?, move |request, _| {
        let reviews = reviews.clone();
        async move { reviews.respond(request.method(), request.uri().path()).await }
    })?;
    listening::all(vec![serving]).await
}

struct Reviews {
    version: Version,
    ratings: Service,
    pod: String,
}

impl Reviews {
    async fn respond(&self, method: &Method, path: &str) -> Response<Body> {
        if method != Method::GET {
            return answer(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "only GET is answered"}));
        }
        if path == "/health" {
            return answer(StatusCode::OK, &json!({"status": "Reviews is healthy"}));
        }
        let Some(id) = product(path, "/reviews") else {
            return answer(StatusCode::NOT_FOUND, &json!({"error": "not found"}));
        };
        let stars = match self.version.colour() {
            Some(colour) => Some((colour, self.stars(id).await)),
            None => None,
        };
        answer(StatusCode::OK, &reviews(id, &self.pod, stars.as_ref().map(|(c, s)| (*c, s.as_ref()))))
    }

    /// What ratings says, if it says anything.
    async fn stars(&self, id: u64) -> Option<Value> {
        match fetch::get(&self.ratings, &format!("/ratings/{id}")).await {
            Ok(answer) => answer.json().and_then(|mut v| v.get_mut("ratings").map(Value::take)),
            Err(error) => {
                warn!(%error, "no ratings");
                None
            }
        }
    }
}

/// The answer: without stars, with stars in a colour, or with a word on why there are none.
fn reviews(id: u64, pod: &str, stars: Option<(&str, Option<&Value>)>) -> Value {
    let review = |reviewer: &str, text: &str| {
        let mut review = json!({"reviewer": reviewer, "text": text});
        match stars {
            None => {}
            Some((_, None)) => review["rating"] = json!({"error": "Ratings service is currently unavailable"}),
            Some((colour, Some(all))) => review["rating"] = json!({"stars": all[reviewer], "color": colour}),
        }
        review
    };
    json!({
        "id": id.to_string(),
        "podname": pod,
        "clustername": null,
        "reviews": [
            review("Reviewer1", "Funny from the first scene to the last; the errors get better each time."),
            review("Reviewer2", "Two pairs of twins are one pair too many, yet I laughed."),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_come_with_the_version() {
        let given = json!({"Reviewer1": 5, "Reviewer2": 4});
        assert!(reviews(0, "p", None)["reviews"][0].get("rating").is_none());
        let red = reviews(0, "p", Some(("red", Some(&given))));
        assert_eq!(red["reviews"][1]["rating"], json!({"stars": 4, "color": "red"}));
        let none = reviews(0, "p", Some(("red", None)));
        assert!(none["reviews"][0]["rating"]["error"].is_string());
    }
}
