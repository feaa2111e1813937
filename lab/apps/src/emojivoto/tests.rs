//! Does a vote go through all services, and does the one fail that always fails?
#![allow(clippy::unwrap_used)]

use super::v1::emoji_service_server::EmojiServiceServer;
use super::v1::voting_service_server::VotingServiceServer;
use super::*;
use crate::fetch::get;
use crate::listening::grpc_at;
use std::sync::Arc;
use tonic::service::Routes;
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

#[test]
fn every_emoji_has_a_method() {
    let text = include_str!("../../proto/emojivoto/v1/voting.proto");
    for (shortcode, _) in EMOJI {
        assert!(text.contains(&format!("rpc {}(VoteRequest)", vote_of(shortcode))), "{shortcode}");
    }
    assert_eq!(text.matches("rpc Vote").count(), EMOJI.len());
}

#[tokio::test]
async fn a_vote_is_counted_and_doughnuts_fail() {
    let listeners = [(); 3].map(|()| listen_everywhere(0).unwrap());
    let ports = [0, 1, 2].map(|i: usize| listeners[i].local_addr().unwrap().port());
    let [emoji, voting, web] = listeners;
    let calls = metrics::Counts::new("calls", "method");
    tokio::spawn(grpc_at(emoji, Routes::new(EmojiServiceServer::new(emoji::All { calls: calls.clone() }))));
    tokio::spawn(grpc_at(voting, Routes::new(VotingServiceServer::new(voting::Votes::default()))));
    let site = Arc::new(web::Web::new(&at(ports[0]), &at(ports[1])).unwrap());
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
    assert_eq!(calls.all(), [("FindByShortcode", 4), ("ListAll", 1)].into());
}
