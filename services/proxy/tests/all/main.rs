//! Does the proxy let pass what rules allow, as it came, and nothing else? Raw sockets on both sides.
#![allow(clippy::unwrap_used)]

mod bytes;
mod churn;
mod curl;
mod dns;
mod grpc;
mod harness;
mod http1;
mod http2;
mod kafka;
mod limits;
mod process;
mod records;
mod refused;
mod secrets;
mod servers;
mod tls;
