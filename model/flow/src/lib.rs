//! What is a flow: the flow API's messages, filters over them, and how they print.
#![forbid(unsafe_code)]

pub mod decode;
pub mod directory;
pub mod filter;
pub mod mask;
pub mod print;
pub mod proto;
pub mod record;
pub mod time;
pub mod wkt;

pub use decode::{decode, decode_record};
pub use directory::{Directory, Node, Peer};
pub use record::{Clock, Record};
