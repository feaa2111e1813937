//! The agent: turns the cluster's objects into the datapath's maps and answers about both.
