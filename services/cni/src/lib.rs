//! The CNI plugin: asks the agent for a network for one container.
