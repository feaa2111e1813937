//! Builds the BPF programs with whatever Rust toolchain for BPF the machine has.
