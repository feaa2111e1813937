//! The cilium-dbg command.
