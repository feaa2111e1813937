//! How do the datapath's programs and maps get into the kernel, and how are they read and written there?
//!
//! [`Datapath`] loads the programs, keeps maps and links pinned in one folder of a BPF file system, and attaches to
//! devices of the network namespace that the caller is in. [`Maps`] are the typed tables; tools open them by pin alone.
//! No other crate speaks to the kernel's BPF interface.

mod attach;
mod clsact;
mod conntrack;
mod datapath;
mod error;
mod events;
mod layout;
mod maps;
mod proxy;
mod slots;
mod sys;
mod table;
mod test_run;

pub use abi::policy::{DIR_EGRESS as EGRESS, DIR_INGRESS as INGRESS};
pub use attach::{Attachment, Hook, SocketHook, attach_pinned};
pub use conntrack::Sweep;
pub use datapath::{Datapath, Options};
pub use error::{Error, Result};
pub use events::EventReader;
pub use layout::Sizes;
pub use maps::Maps;
pub use proxy::{ProxyMaps, Redirected, let_group_in};
pub use slots::{PolicySlots, SlotDump};
pub use table::{PerCpuTable, Sum, Table};
pub use test_run::{TestInput, TestOutput};
