//! The lab command: clusters on one machine.
