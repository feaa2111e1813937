//! Which program does a pod of the lab run?
//!
//! Small servers and clients with the behaviour of well-known examples: BookInfo, emojivoto, echo servers, test images. What
//! they say to each other is seen by policies; what they say to people is short. All of them listen at all addresses of
//! both families, start in milliseconds and end at once when told to.

mod agnhost;
mod api_watcher;
mod arguments;
mod bookinfo;
mod echo;
mod emojivoto;
mod fetch;
mod http_echo;
mod listening;
mod sleeper;
mod web;

use std::process::ExitCode;
use world::program;

/// Names of all programs, for [`main_with`].
pub const NAMES: &[&str] = &[
    "agnhost",
    "api-watcher",
    "client",
    "coredns",
    "details",
    "echo",
    "emoji",
    "emojivoto-vote-bot",
    "emojivoto-web",
    "http-echo",
    "pause",
    "productpage",
    "ratings",
    "reviews-v1",
    "reviews-v2",
    "reviews-v3",
    "vote-bot",
    "voting",
    "web",
];

/// Why a program ended or did not start.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// Arguments or environment that it does not know.
    #[error("{0}")]
    Usage(String),
    /// A port that is taken.
    #[error("listen at port {port}: {error}")]
    Listen {
        /// Which port.
        port: u16,
        /// Why not.
        error: std::io::Error,
    },
    /// A listener ended.
    #[error("a listener ended: {0}")]
    Ended(#[from] std::io::Error),
    /// The API server did not answer.
    #[error("{0}")]
    Api(String),
}

/// Runs the program `name` until it ends or is told to end.
pub fn main_with(name: &str, args: Vec<String>) -> ExitCode {
    let environment = |key: &str| std::env::var(key).ok();
    match name {
        "agnhost" => program::run(name, agnhost::run(args)),
        "api-watcher" => program::run(name, api_watcher::run()),
        "client" | "pause" => program::run(name, sleeper::run()),
        "coredns" => world::cluster_dns::main_with(args),
        "details" => program::run(name, bookinfo::details::run(args)),
        "echo" => program::run(name, echo::run(args, environment("PORTS"))),
        "emoji" => program::run(name, emojivoto::emoji::run(args)),
        "emojivoto-vote-bot" | "vote-bot" => program::run(name, emojivoto::vote_bot::run()),
        "emojivoto-web" => program::run(name, emojivoto::web::run(args)),
        "http-echo" => program::run(name, http_echo::run(args)),
        "productpage" => program::run(name, bookinfo::productpage::run(args)),
        "ratings" => program::run(name, bookinfo::ratings::run(args)),
        "reviews-v1" => program::run(name, bookinfo::reviews::run(bookinfo::reviews::Version::V1, args)),
        "reviews-v2" => program::run(name, bookinfo::reviews::run(bookinfo::reviews::Version::V2, args)),
        "reviews-v3" => program::run(name, bookinfo::reviews::run(bookinfo::reviews::Version::V3, args)),
        "voting" => program::run(name, emojivoto::voting::run(args)),
        "web" => program::run(name, web::run(args)),
        other => program::refuse("lab-app", &format!("no program {other:?}; there are: {}", NAMES.join(", "))),
    }
}
