//! A small part of what `parity` tries, with each run of the tests. Needs root.
#![allow(clippy::unwrap_used)]

#[test]
fn native_datapath_and_kernel_agree() {
    let found = parity::run(4000, 7).unwrap();
    assert_eq!(found.packets, 4000);
    // both fates occur often, so that agreement means something
    assert!((400..3600).contains(&found.dropped), "{found:?}");
    assert!(found.events > 2000, "{found:?}");
}
