//! One binary for every command: argv[0] or the first argument picks.
fn main() {}
