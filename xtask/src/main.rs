//! The project's chores: build, demo, test, checks, benches.
fn main() {}
