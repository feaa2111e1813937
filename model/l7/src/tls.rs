//! Which server does a TLS client ask for, and may it?

mod hello;
mod names;

pub use hello::{ClientHello, HelloError, Progress, client_hello};
pub use names::ServerNames;
