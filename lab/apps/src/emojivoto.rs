//! What do the services of emojivoto say to each other?
//!
//! Browsers and the bot ask `web` by HTTP, `web` asks `emoji` and `voting` by gRPC (`proto/emojivoto/v1`). As in the original,
//! votes for the doughnut fail.

pub mod emoji;
mod metrics;
pub mod vote_bot;
pub mod voting;
pub mod web;

use crate::fetch::Service;

/// Messages, servers and clients, generated.
#[allow(clippy::all, missing_docs)]
mod v1 {
    tonic::include_proto!("emojivoto.v1");
}

/// Shortcode and character of every emoji.
const EMOJI: &[(&str, &str)] = &[
    (":100:", "\u{1f4af}"),
    (":bacon:", "\u{1f953}"),
    (":beer:", "\u{1f37a}"),
    (":burrito:", "\u{1f32f}"),
    (":cat2:", "\u{1f408}"),
    (":clap:", "\u{1f44f}"),
    (":crossed_swords:", "\u{2694}"),
    (":doughnut:", "\u{1f369}"),
    (":fire:", "\u{1f525}"),
    (":ghost:", "\u{1f47b}"),
    (":guitar:", "\u{1f3b8}"),
    (":joy:", "\u{1f602}"),
    (":mask:", "\u{1f637}"),
    (":money_with_wings:", "\u{1f4b8}"),
    (":ok_woman_2:", "\u{1f646}"),
    (":pizza:", "\u{1f355}"),
    (":rocket:", "\u{1f680}"),
    (":sunglasses:", "\u{1f60e}"),
    (":tada:", "\u{1f389}"),
    (":turkey:", "\u{1f983}"),
];

/// The name of an emoji's vote: `:crossed_swords:` is voted for by `VoteCrossedSwords`.
fn vote_of(shortcode: &str) -> String {
    let words = shortcode.trim_matches(':').split('_');
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    };
    "Vote".to_string() + &words.map(capital).collect::<String>()
}

fn known(shortcode: &str) -> Option<&'static (&'static str, &'static str)> {
    EMOJI.iter().find(|(code, _)| *code == shortcode)
}

/// A service from the environment, which has to name it, else its usual place.
fn service(key: &str, default: &str, port: u16) -> Service {
    Service::parse(&std::env::var(key).unwrap_or_else(|_| default.to_string()), port)
}

/// The port that the environment says, else the usual one.
fn port(args: &[String], key: &str, default: u16) -> Result<u16, crate::Error> {
    crate::arguments::port(args, "port", environment(key).unwrap_or(default))
}

/// A port from the environment.
fn environment(key: &str) -> Option<u16> {
    std::env::var(key).ok().and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests;
