//! May this request, at the application's level, pass?
#![forbid(unsafe_code)]

pub mod dns;
pub mod http;
pub mod http1;
pub mod kafka;
pub mod meanings;
pub mod re2;
pub mod tls;
