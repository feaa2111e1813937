//! How many stars does each reviewer give?

use super::Catalogue;
use crate::Error;
use serde_json::{Value, json};

const RATINGS: Catalogue = Catalogue { name: "Ratings", path: "/ratings", wants: "product ID", of: stars };

/// Serves `GET /ratings/N` and `/health`.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    RATINGS.serve(args).await
}

fn stars(id: u64) -> Value {
    json!({"id": id, "ratings": {"Reviewer1": 5, "Reviewer2": 4}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Method;

    #[test]
    fn each_path_has_its_status() {
        for (method, path, status) in [
            (Method::GET, "/ratings/0", 200),
            (Method::GET, "/health", 200),
            (Method::GET, "/ratings/", 400),
            (Method::GET, "/x", 404),
            (Method::PUT, "/ratings/0", 405),
        ] {
            assert_eq!(RATINGS.respond(&method, path).status(), status, "{method} {path}");
        }
    }
}
