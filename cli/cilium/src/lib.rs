//! The cilium command.
