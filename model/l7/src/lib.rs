//! May this request, at the application's level, pass?
#![forbid(unsafe_code)]

pub mod dns;
pub mod http;
pub mod re2;
