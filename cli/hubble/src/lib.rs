//! The hubble command.
