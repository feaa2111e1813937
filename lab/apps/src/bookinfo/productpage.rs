//! What does the page of a product show, and what when the services behind it fail?

use super::{PORT, product, service};
use crate::arguments::port;
use crate::fetch::{self, Service};
use crate::{Error, listening};
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use tracing::warn;
use world::http::{Body, html, json as answer, text};

/// Serves `/`, `/productpage`, `/health` and `/api/v1/products`.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    let at = |name| service(name, |key| std::env::var(key).ok());
    let page = Arc::new(ProductPage { details: at("details"), reviews: at("reviews"), ratings: at("ratings") });
    let serving = listening::http(port(&args, "port", PORT)?, move |request, _| {
        let page = page.clone();
        async move { page.respond(request.method(), request.uri().path()).await }
    })?;
    listening::all(vec![serving]).await
}

struct ProductPage {
    details: Service,
    reviews: Service,
    ratings: Service,
}

impl ProductPage {
    async fn respond(&self, method: &Method, path: &str) -> Response<Body> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
        }
        match path {
            "/health" => text(StatusCode::OK, "Product page is healthy"),
            "/" | "/index.html" => html(StatusCode::OK, INDEX),
            "/productpage" => html(StatusCode::OK, self.page().await),
            "/api/v1/products" => answer(StatusCode::OK, &json!([book()])),
            _ => self.api(path).await,
        }
    }

    /// One service after the other, as a page is put together from top to bottom.
    async fn page(&self) -> String {
        let details = asked(&self.details, "/details/0").await;
        let reviews = asked(&self.reviews, "/reviews/0").await;
        rendered(details.as_ref(), reviews.as_ref())
    }

    async fn api(&self, path: &str) -> Response<Body> {
        let Some(rest) = path.strip_prefix("/api/v1/products") else {
            return text(StatusCode::NOT_FOUND, "not found\n");
        };
        let (of, service) = match rest.rsplit_once('/') {
            Some((id, "reviews")) => (product(id, "").map(|n| format!("/reviews/{n}")), &self.reviews),
            Some((id, "ratings")) => (product(id, "").map(|n| format!("/ratings/{n}")), &self.ratings),
            _ => (product(rest, "").map(|n| format!("/details/{n}")), &self.details),
        };
        let Some(path) = of else { return text(StatusCode::NOT_FOUND, "not found\n") };
        match asked(service, &path).await {
            Some(value) => answer(StatusCode::OK, &value),
            None => {
                let what = path.split('/').nth(1).unwrap_or_default();
                let sorry = format!("Sorry, product {what} are currently unavailable for this book.");
                answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": sorry }))
            }
        }
    }
}

async fn asked(service: &Service, path: &str) -> Option<Value> {
    match fetch::get(service, path).await {
        Ok(answer) => answer.json(),
        Err(error) => {
            warn!(%error, path, "no answer");
            None
        }
    }
}

fn book() -> Value {
    json!({"id": 0, "title": "The Comedy of Errors", "descriptionHtml": "A comedy by William Shakespeare, set in Ephesus."})
}

const INDEX: &str = r#"<!DOCTYPE html>
<html>
  <head><title>Simple Bookstore App</title></head>
  <body>
    <h3>BookInfo</h3>
    <p><a href="/productpage">The Comedy of Errors</a></p>
  </body>
</html>
"#;

/// The page; `None` for a service that failed.
fn rendered(details: Option<&Value>, reviews: Option<&Value>) -> String {
    let mut page = String::from(
        r#"<!DOCTYPE html>
<html>
  <head><title>Simple Bookstore App</title></head>
  <body>
<div class="container-fluid">
  <div class="row">
    <div class="col-md-12">
      <h3 class="text-center text-primary">The Comedy of Errors</h3>
      <p>Summary: a comedy by William Shakespeare, set in Ephesus.</p>
    </div>
  </div>
  <div class="row">
    <div class="col-md-6">
"#,
    );
    page.push_str(&details.map_or_else(|| sorry("details"), details_part));
    page.push_str("    </div>\n    <div class=\"col-md-6\">\n");
    page.push_str(&reviews.map_or_else(|| sorry("reviews"), reviews_part));
    page.push_str("    </div>\n  </div>\n</div>\n  </body>\n</html>\n");
    page
}

fn heading(text: &str) -> String {
    format!("      <h4 class=\"text-center text-primary\">{text}</h4>\n")
}

fn sorry(what: &str) -> String {
    let heading = heading(&format!("Error fetching product {what}!"));
    format!("{heading}      <p>Sorry, product {what} are currently unavailable for this book.</p>\n")
}

fn details_part(details: &Value) -> String {
    let mut part = heading("Book Details") + "      <dl>\n";
    for (label, key) in [
        ("Type:", "type"),
        ("Pages:", "pages"),
        ("Publisher:", "publisher"),
        ("Language:", "language"),
        ("ISBN-10:", "ISBN-10"),
        ("ISBN-13:", "ISBN-13"),
    ] {
        let _ = writeln!(part, "        <dt>{label}</dt>{}", shown(&details[key]));
    }
    part + "      </dl>\n"
}

fn reviews_part(reviews: &Value) -> String {
    let mut part = heading("Book Reviews");
    for review in reviews["reviews"].as_array().into_iter().flatten() {
        let _ = writeln!(part, "      <blockquote>\n        <p>{}</p>", shown(&review["text"]));
        let _ = writeln!(part, "        <small>{}</small>", shown(&review["reviewer"]));
        part.push_str(&stars(&review["rating"]));
        part.push_str("      </blockquote>\n");
    }
    if let Some(pod) = reviews["podname"].as_str() {
        let _ = writeln!(part, "      <p>Reviews served by: {}</p>", escaped(pod));
    }
    part
}

fn stars(rating: &Value) -> String {
    if let Some(error) = rating["error"].as_str() {
        return format!("        <p><i>{}</i></p>\n", escaped(error));
    }
    let (Some(number), Some(colour)) = (rating["stars"].as_u64(), rating["color"].as_str()) else {
        return String::new();
    };
    let number = usize::try_from(number.min(5)).unwrap_or(5);
    let row: String = "\u{2605}".repeat(number) + &"\u{2606}".repeat(5 - number);
    format!("        <font color=\"{}\">{row}</font>\n", escaped(colour))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text),
        Value::Null => String::new(),
        other => escaped(&other.to_string()),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::BodyExt;
    use world::sockets::listen_everywhere;

    #[test]
    fn a_page_without_reviews_says_so_in_these_lines() {
        let page = rendered(Some(&json!({"type": "paperback"})), None);
        let lines = "    </div>\n    <div class=\"col-md-6\">\n      \
            <h4 class=\"text-center text-primary\">Error fetching product reviews!</h4>\n      \
            <p>Sorry, product reviews are currently unavailable for this book.</p>\n";
        assert!(page.contains(lines), "{page}");
        assert!(page.contains("Book Details") && !page.contains("Book Reviews"));
    }

    #[test]
    fn a_page_without_details_says_so() {
        let page = rendered(None, Some(&json!({"reviews": []})));
        assert!(page.contains("Error fetching product details!"));
        assert!(page.contains("Sorry, product details are currently unavailable for this book."));
        assert!(page.contains("Book Reviews") && !page.contains("Book Details"));
    }

    #[test]
    fn what_services_say_is_not_markup() {
        let page =
            rendered(None, Some(&json!({"reviews": [{"text": "<script>", "rating": {"stars": 99, "color": "\""}}]})));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>") && page.contains("color=\"&quot;\""));
    }

    /// A service at a port of its own that answers every request with `value`.
    fn serving(value: Value) -> Service {
        let listener = listen_everywhere(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(world::http::serve(listener, move |_, _| {
            let response = answer(StatusCode::OK, &value);
            async move { response }
        }));
        Service { host: "127.0.0.1".into(), port }
    }

    fn silent() -> Service {
        Service { host: "name.invalid".into(), port: 9080 }
    }

    #[tokio::test]
    async fn the_page_is_put_together_from_the_services_that_answer() {
        let page = ProductPage {
            details: serving(json!({"publisher": "PublisherA"})),
            reviews: Service { host: "127.0.0.1".into(), port: 1 },
            ratings: silent(),
        };
        let response = page.respond(&Method::GET, "/productpage").await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains("PublisherA") && body.contains("Error fetching product reviews!"), "{body}");
        let status = |path: &'static str| async { page.respond(&Method::GET, path).await.status().as_u16() };
        assert_eq!(status("/api/v1/products/0").await, 200);
        assert_eq!(status("/api/v1/products/0/reviews").await, 500);
        assert_eq!(status("/api/v1/products/x").await, 404);
        assert_eq!(status("/nothing").await, 404);
    }
}
