//! What does the site show, and whom does it ask?

use super::{call, known, port, service};
use crate::fetch::{Answer, Failure, Service};
use crate::{Error, listening};
use hyper::{Response, StatusCode, Uri};
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::warn;
use world::http::{Body, html, json as answer, text};

/// Serves `/`, `/api/list`, `/api/vote?choice=CODE`, `/api/leaderboard`.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    let port = port(&args, "WEB_PORT", 8080)?;
    let emoji = service("EMOJISVC_HOST", "emoji-svc.emojivoto", 8080);
    let web = Arc::new(Web { emoji, voting: service("VOTINGSVC_HOST", "voting-svc.emojivoto", 8080) });
    let serving = listening::http(port, move |request, _| {
        let web = web.clone();
        async move { web.respond(request.uri()).await }
    })?;
    listening::all(vec![serving]).await
}

pub(super) struct Web {
    pub(super) emoji: Service,
    pub(super) voting: Service,
}

impl Web {
    pub(super) async fn respond(&self, uri: &Uri) -> Response<Body> {
        match uri.path() {
            "/" | "/leaderboard" => html(StatusCode::OK, "<html><body><h1>Emoji Vote</h1></body></html>\n"),
            "/api/list" => self.list().await,
            "/api/vote" => self.vote(uri.query().unwrap_or_default()).await,
            "/api/leaderboard" => self.leaderboard().await,
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    async fn list(&self) -> Response<Body> {
        match done(call(&self.emoji, "/emojivoto.v1.EmojiService/ListAll", &json!({})).await) {
            Some(mut value) => answer(StatusCode::OK, &value["list"].take()),
            None => failed(),
        }
    }

    async fn vote(&self, query: &str) -> Response<Body> {
        let choice = query.split('&').find_map(|pair| pair.strip_prefix("choice="));
        let Some(choice) = choice.map(|c| c.replace("%3A", ":").replace("%3a", ":")) else {
            return text(StatusCode::BAD_REQUEST, "choice is missing\n");
        };
        let asked = json!({ "shortcode": choice });
        let Some(found) = done(call(&self.emoji, "/emojivoto.v1.EmojiService/FindByShortcode", &asked).await) else {
            return failed();
        };
        if found["emoji"].is_null() {
            return text(StatusCode::BAD_REQUEST, "no such emoji\n");
        }
        let method = format!("/emojivoto.v1.VotingService/{}", super::vote_of(&choice));
        match done(call(&self.voting, &method, &json!({})).await) {
            Some(_) => text(StatusCode::OK, ""),
            None => failed(),
        }
    }

    async fn leaderboard(&self) -> Response<Body> {
        let results = done(call(&self.voting, "/emojivoto.v1.VotingService/Results", &json!({})).await);
        let Some(mut rows) = results.map(|mut r| r["results"].take()) else { return failed() };
        for row in rows.as_array_mut().into_iter().flatten() {
            row["unicode"] = row["shortcode"].as_str().and_then(known).map(|(_, sign)| *sign).into();
        }
        answer(StatusCode::OK, &rows)
    }
}

fn done(result: Result<Answer, Failure>) -> Option<Value> {
    match result {
        Ok(answer) => answer.json(),
        Err(error) => {
            warn!(%error, "no answer");
            None
        }
    }
}

fn failed() -> Response<Body> {
    text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error\n")
}
