//! A cluster of node namespaces on one machine: up, down, status.
