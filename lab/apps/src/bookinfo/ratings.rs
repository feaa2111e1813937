//! How many stars does each reviewer give?

use super::{PORT, product};
use crate::arguments::port;
use crate::{Error, listening};
use hyper::{Method, Response, StatusCode};
use serde_json::json;
use world::http::{Body, json as answer};

/// Serves `GET /ratings/N` and `/health`.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    let serving = listening::http(port(&args, "port", PORT)?, |request, _| async move {
        respond(request.method(), request.uri().path())
    })?;
    listening::all(vec![serving]).await
}

fn respond(method: &Method, path: &str) -> Response<Body> {
    if method != Method::GET {
        return answer(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "only GET is answered"}));
    }
    if path == "/health" {
        return answer(StatusCode::OK, &json!({"status": "Ratings is healthy"}));
    }
    match product(path, "/ratings") {
        Some(id) => answer(StatusCode::OK, &json!({"id": id, "ratings": {"Reviewer1": 5, "Reviewer2": 4}})),
        None if path.starts_with("/ratings") => {
            answer(StatusCode::BAD_REQUEST, &json!({"error": "please provide numeric product ID"}))
        }
        None => answer(StatusCode::NOT_FOUND, &json!({"error": "not found"})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_status() {
        for (method, path, status) in [
            (Method::GET, "/ratings/0", 200),
            (Method::GET, "/health", 200),
            (Method::GET, "/ratings/", 400),
            (Method::GET, "/x", 404),
            (Method::PUT, "/ratings/0", 405),
        ] {
            assert_eq!(respond(&method, path).status(), status, "{method} {path}");
        }
    }
}
