//! Hubble's gRPC: observer, peer, and their clients.
