//! Generates servers and clients of emojivoto's gRPC.

use std::error::Error;

const PROTO: &str = "proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO}");
    let descriptors = protox::compile(["emojivoto/v1/emoji.proto", "emojivoto/v1/voting.proto"], [PROTO])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
