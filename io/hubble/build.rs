//! Generates servers and clients of the flow API; its messages are those of the crate `flow`.

use std::error::Error;

const PROTO: &str = "../../model/flow/proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO}");
    let descriptors = protox::compile(["observer/observer.proto", "peer/peer.proto"], [PROTO])?;
    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::flow::wkt")
        .extern_path(".flow", "::flow::proto::flow")
        .extern_path(".observer", "::flow::proto::observer")
        .extern_path(".peer", "::flow::proto::peer")
        .extern_path(".relay", "::flow::proto::relay")
        .compile_fds(descriptors)?;
    Ok(())
}
