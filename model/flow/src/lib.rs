//! What is a flow: the flow API's messages, filters over them, and how they print.
#![forbid(unsafe_code)]

pub mod proto;
pub mod wkt;
