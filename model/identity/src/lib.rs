//! Which number stands for a set of labels?
#![forbid(unsafe_code)]

mod cidr;
mod local;
mod outside;
mod proposal;
mod reserved;

pub use cidr::{Families, address_labels, cidr_label, cidr_labels, labelled_prefixes, name_label, world_label};
pub use local::{Acquired, Exhausted, LocalAllocator};
pub use outside::{Outside, OutsideChange};
pub use proposal::candidates;
pub use reserved::{RESERVED, display_name, is_reserved, reserved_by_labels, reserved_labels, reserved_name};

/// A security identity as the datapath knows it.
pub type NumericIdentity = abi::identity::Identity;
