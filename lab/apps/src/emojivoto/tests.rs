//! Does a vote go through all services, and does the one fail that always fails?
#![allow(clippy::unwrap_used)]

use super::*;
use crate::fetch::get;
use std::sync::Arc;
use world::http::serve;
use world::sockets::listen_everywhere;

fn at(port: u16) -> Service {
    Service { host: "127.0.0.1".into(), port }
}

#[test]
fn votes_are_named_after_their_emoji() {
    assert_eq!(vote_of(":crossed_swords:"), "VoteCrossedSwords");
    assert_eq!(vote_of(":100:"), "Vote100");
    assert!(known(":doughnut:").is_some() && known(":nothing:").is_none());
}

#[tokio::test]
async fn a_vote_is_counted_and_doughnuts_fail() {
    let listeners = [(); 3].map(|()| listen_everywhere(0).unwrap());
    let ports = [0, 1, 2].map(|i: usize| listeners[i].local_addr().unwrap().port());
    let [emoji, voting, web] = listeners;
    tokio::spawn(serve(emoji, |request, _| emoji::respond(request)));
    let votes = Arc::new(voting::Votes::default());
    tokio::spawn(serve(voting, move |request, _| {
        let votes = votes.clone();
        async move { votes.respond(request.uri().path()) }
    }));
    let site = Arc::new(web::Web { emoji: at(ports[0]), voting: at(ports[1]) });
    tokio::spawn(serve(web, move |request, _| {
        let site = site.clone();
        async move { site.respond(request.uri()).await }
    }));
    let site = at(ports[2]);
    let asked = |path: &'static str| {
        let site = site.clone();
        async move { get(&site, path).await.unwrap() }
    };
    assert_eq!(asked("/api/list").await.json().unwrap().as_array().unwrap().len(), EMOJI.len());
    for (path, status) in [
        ("/api/vote?choice=:pizza:", 200),
        ("/api/vote?choice=:pizza:", 200),
        ("/api/vote?choice=:doughnut:", 500),
        ("/api/vote?choice=:nothing:", 400),
        ("/api/vote", 400),
        ("/", 200),
        ("/nowhere", 404),
    ] {
        assert_eq!(asked(path).await.status, status, "{path}");
    }
    let board = asked("/api/leaderboard").await.json().unwrap();
    assert_eq!(board, serde_json::json!([{"shortcode": ":pizza:", "unicode": "\u{1f355}", "votes": 2}]));
}
