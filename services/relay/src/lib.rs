//! Hubble Relay: one observer over the observers of all nodes.
