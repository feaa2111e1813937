//! Which object does this crate carry? The programs of `bpf/`, built for the kernel.

use std::path::PathBuf;
use std::{env, process};

fn main() {
    bpf_build::linker_entry();
    let root =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the manifest's folder")).join("../..");
    for source in ["bpf/src", "bpf/Cargo.toml", "bpf/Cargo.lock", "datapath"] {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    for variable in ["BPF_TOOLCHAIN", "BPF_LLC"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names the output folder"));
    if let Err(e) = bpf_build::build(&root.join("bpf"), &out_dir, "datapath") {
        for line in e.to_string().lines() {
            println!("cargo::error={line}");
        }
        process::exit(1);
    }
}
