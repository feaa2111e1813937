//! Compiles the flow API's messages and their JSON without an outside compiler.
// What runs before the compiler reads and writes files.
#![allow(clippy::disallowed_methods)]

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["flow/flow.proto", "observer/observer.proto", "peer/peer.proto", "relay/relay.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    let encoded = descriptors.encode_to_vec();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), &encoded)?;

    prost_build::Config::new()
        .compile_well_known_types()
        .extern_path(".google.protobuf", "crate::wkt")
        .boxed(".observer.GetFlowsResponse.response_types.flow")
        .boxed(".observer.ExportEvent.response_types.flow")
        .compile_fds(descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .preserve_proto_field_names()
        .extern_path(".google.protobuf", "crate::wkt")
        // Their oneof stands first in the file and so in JSON, see `proto/json.rs`.
        .exclude([".observer.GetFlowsResponse", ".observer.ExportEvent"])
        .build(&[".flow", ".observer", ".peer", ".relay"])?;
    Ok(())
}
