//! Which addresses do names stand for, by the DNS answers that endpoints of this node got?
#![forbid(unsafe_code)]

mod cache;
mod selected;
#[cfg(test)]
mod tests;

pub use cache::{Answer, Cache, Change, Found, Limits, Saved, Source};
pub use selected::Selected;
