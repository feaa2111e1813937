//! Does a target find something, led by the code that inputs reach?
#![no_main]

use std::sync::OnceLock;

/// The target's name is in `FUZZ_TARGET`; all other words are libFuzzer's.
fn target() -> &'static fuzz::Target {
    static TARGET: OnceLock<&fuzz::Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        fuzz::target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is not a target"))
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| (target().run)(data));
