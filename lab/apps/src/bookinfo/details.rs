//! What is printed in the book?

use super::Catalogue;
use crate::Error;
use serde_json::{Value, json};

const DETAILS: Catalogue = Catalogue { name: "Details", path: "/details", wants: "product id", of: book };

/// Serves `GET /details/N` and `/health`.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    DETAILS.serve(args).await
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
    use hyper::Method;

    #[test]
    fn each_path_has_its_status() {
        for (method, path, status) in [
            (Method::GET, "/details/0", 200),
            (Method::GET, "/health", 200),
            (Method::GET, "/details/x", 400),
            (Method::GET, "/", 404),
            (Method::POST, "/details/0", 405),
        ] {
            assert_eq!(DETAILS.respond(&method, path).status(), status, "{method} {path}");
        }
    }
}
