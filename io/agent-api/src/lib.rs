//! The agent's own API on its unix socket: types, server and client.
