//! What is printed in the book?

use super::{PORT, product};
use crate::arguments::port;
use crate::{Error, listening};
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use world::http::{Body, json as answer};

/// Serves `GET /details/N` and `/health`.
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
        return answer(StatusCode::OK, &json!({"status": "Details is healthy"}));
    }
    match product(path, "/details") {
        Some(id) => answer(StatusCode::OK, &book(id)),
        None if path.starts_with("/details") => {
            answer(StatusCode::BAD_REQUEST, &json!({"error": "please provide numeric product id"}))
        }
        None => answer(StatusCode::NOT_FOUND, &json!({"error": "not found"})),
    }
}

fn book(id: u64) -> Value {
    json!({
        "id": id,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_status() {
        for (method, path, status) in [
            (Method::GET, "/details/0", 200),
            (Method::GET, "/health", 200),
            (Method::GET, "/details/x", 400),
            (Method::GET, "/", 404),
            (Method::POST, "/details/0", 405),
        ] {
            assert_eq!(respond(&method, path).status(), status, "{method} {path}");
        }
    }
}
