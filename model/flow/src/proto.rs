//! Which messages does the flow API speak? Names, numbers and JSON as in the `.proto` files beside this crate.

mod json;

/// Package `flow`: what was seen of a packet or a request, and filters over that.
#[allow(missing_docs, deprecated, clippy::all, rustdoc::all)]
pub mod flow {
    include!(concat!(env!("OUT_DIR"), "/flow.rs"));
    include!(concat!(env!("OUT_DIR"), "/flow.serde.rs"));
}

/// Package `observer`: questions to a node's or relay's observer and its answers.
#[allow(missing_docs, deprecated, clippy::all, rustdoc::all)]
pub mod observer {
    include!(concat!(env!("OUT_DIR"), "/observer.rs"));
    include!(concat!(env!("OUT_DIR"), "/observer.serde.rs"));
}

/// Package `peer`: which nodes have an observer.
#[allow(missing_docs, deprecated, clippy::all, rustdoc::all)]
pub mod peer {
    include!(concat!(env!("OUT_DIR"), "/peer.rs"));
    include!(concat!(env!("OUT_DIR"), "/peer.serde.rs"));
}

/// Package `relay`: what relay tells of nodes.
#[allow(missing_docs, deprecated, clippy::all, rustdoc::all)]
pub mod relay {
    include!(concat!(env!("OUT_DIR"), "/relay.rs"));
    include!(concat!(env!("OUT_DIR"), "/relay.serde.rs"));
}

/// The descriptors of all files, encoded as a `google.protobuf.FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
