//! How many votes has each emoji?

use super::{EMOJI, port, vote_of};
use crate::{Error, listening};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use world::http::{Body, json as answer, text};

/// Votes for this one always fail, so that there is something to find.
const BROKEN: &str = ":doughnut:";

/// Serves `VoteX` for every emoji and `Results`.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    let port = port(&args, "GRPC_PORT", 8080)?;
    let votes = Arc::new(Votes::default());
    let serving = listening::http(port, move |request, _| {
        let votes = votes.clone();
        async move { votes.respond(request.uri().path()) }
    })?;
    listening::all(vec![serving]).await
}

#[derive(Default)]
pub(super) struct Votes {
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Votes {
    pub(super) fn respond(&self, path: &str) -> Response<Body> {
        let Some(method) = path.strip_prefix("/emojivoto.v1.VotingService/") else {
            return text(StatusCode::NOT_FOUND, "no such method\n");
        };
        if method == "Results" {
            return answer(StatusCode::OK, &self.results());
        }
        match EMOJI.iter().find(|(code, _)| vote_of(code) == method) {
            None => text(StatusCode::NOT_FOUND, "no such method\n"),
            Some((BROKEN, _)) => text(StatusCode::INTERNAL_SERVER_ERROR, "ERROR\n"),
            Some((code, _)) => {
                *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
                answer(StatusCode::OK, &json!({}))
            }
        }
    }

    /// Most votes first.
    fn results(&self) -> Value {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<(&str, u64)> = counts.iter().map(|(code, n)| (*code, *n)).collect();
        rows.sort_by_key(|(code, n)| (std::cmp::Reverse(*n), *code));
        let rows: Vec<Value> = rows.iter().map(|(code, n)| json!({"shortcode": code, "votes": n})).collect();
        json!({ "results": rows })
    }
}
