//! Any packets at any tables, a part of what `./dev parity` tries. Needs root.
#![allow(clippy::unwrap_used)]

#[test]
fn native_datapath_and_kernel_agree() {
    let found = parity::run(10_000, 7).unwrap();
    assert_eq!(found.packets, 10_000);
    // both fates occur often, so that agreement means something
    assert!((1_000..9_000).contains(&found.dropped), "{found:?}");
    assert!(found.events > 5_000, "{found:?}");
}
