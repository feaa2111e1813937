//! What do the services of BookInfo answer?

pub mod details;
pub mod productpage;
pub mod ratings;
pub mod reviews;

use crate::arguments::port;
use crate::fetch::Service;
use crate::{Error, listening};
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use world::http::{Body, json as answer};

/// The port of all of them.
const PORT: u16 = 9080;

/// Where a service is, said by its environment as in the original: `DETAILS_HOSTNAME`, `DETAILS_SERVICE_PORT`, `SERVICES_DOMAIN`.
fn service(name: &str, environment: impl Fn(&str) -> Option<String>) -> Service {
    let capitals = name.to_uppercase();
    let host = environment(&format!("{capitals}_HOSTNAME")).unwrap_or_else(|| name.to_string());
    let domain = environment("SERVICES_DOMAIN").filter(|d| !d.is_empty());
    let port = environment(&format!("{capitals}_SERVICE_PORT")).and_then(|p| p.parse().ok()).unwrap_or(PORT);
    Service { host: domain.map_or(host.clone(), |d| format!("{host}.{d}")), port }
}

/// A service that knows something of each product.
#[derive(Clone, Copy)]
struct Catalogue {
    /// Its name, as its health says it.
    name: &'static str,
    /// Where products are below.
    path: &'static str,
    /// What is missing in a path without a number.
    wants: &'static str,
    /// What it knows.
    of: fn(u64) -> Value,
}

impl Catalogue {
    /// Serves `GET /PATH/N` and `/health`.
    async fn serve(self, args: Vec<String>) -> Result<(), Error> {
        let serving = listening::http(port(&args, "port", PORT)?, move |request, _| async move {
            self.respond(request.method(), request.uri().path())
        })?;
        listening::all(vec![serving]).await
    }

    fn respond(self, method: &Method, path: &str) -> Response<Body> {
        if method != Method::GET {
            return answer(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "only GET is answered"}));
        }
        if path == "/health" {
            return answer(StatusCode::OK, &json!({"status": format!("{} is healthy", self.name)}));
        }
        match product(path, self.path) {
            Some(id) => answer(StatusCode::OK, &(self.of)(id)),
            None if path.starts_with(self.path) => {
                answer(StatusCode::BAD_REQUEST, &json!({"error": format!("please provide numeric {}", self.wants)}))
            }
            None => answer(StatusCode::NOT_FOUND, &json!({"error": "not found"})),
        }
    }
}

/// The number at the end of `/details/0`; none if there is no number.
fn product(path: &str, prefix: &str) -> Option<u64> {
    path.strip_prefix(prefix)?.strip_prefix('/')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_found_by_name_unless_the_environment_says_otherwise() {
        let nothing = service("details", |_| None);
        assert_eq!(nothing, Service { host: "details".into(), port: 9080 });
        let elsewhere = service("ratings", |key| match key {
            "RATINGS_HOSTNAME" => Some("stars".into()),
            "SERVICES_DOMAIN" => Some("shop.svc".into()),
            "RATINGS_SERVICE_PORT" => Some("81".into()),
            _ => None,
        });
        assert_eq!(elsewhere, Service { host: "stars.shop.svc".into(), port: 81 });
    }

    #[test]
    fn products_are_numbers() {
        assert_eq!(product("/details/7", "/details"), Some(7));
        for path in ["/details", "/details/", "/details/x", "/details7", "/reviews/7", "/details/7/8"] {
            assert_eq!(product(path, "/details"), None, "{path}");
        }
    }
}
