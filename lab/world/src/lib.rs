//! The world outside of the lab's nodes, and the cluster's DNS: zones, resolvers, web servers.
