//! Which emoji are there?

use super::{EMOJI, known, port};
use crate::{Error, listening};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use world::http::{Body, json as answer, text};

const LONGEST: usize = 4096;

/// Serves `ListAll` and `FindByShortcode`.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    let port = port(&args, "GRPC_PORT", 8080)?;
    listening::all(vec![listening::http(port, |request, _| respond(request))?]).await
}

pub(super) async fn respond(request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only POST is answered\n");
    }
    let path = request.uri().path().to_string();
    match path.strip_prefix("/emojivoto.v1.EmojiService/") {
        Some("ListAll") => {
            let list: Vec<Value> =
                EMOJI.iter().map(|(code, sign)| json!({"shortcode": code, "unicode": sign})).collect();
            answer(StatusCode::OK, &json!({ "list": list }))
        }
        Some("FindByShortcode") => {
            let body = Limited::new(request.into_body(), LONGEST).collect().await.ok();
            let asked: Value = body.and_then(|b| serde_json::from_slice(&b.to_bytes()).ok()).unwrap_or_default();
            let found = asked["shortcode"].as_str().and_then(known);
            let emoji = found.map(|(code, sign)| json!({"shortcode": code, "unicode": sign}));
            answer(StatusCode::OK, &json!({ "emoji": emoji }))
        }
        _ => text(StatusCode::NOT_FOUND, "no such method\n"),
    }
}
