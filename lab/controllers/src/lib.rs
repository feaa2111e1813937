//! Lab's controllers: deployments, replica sets, daemon sets, endpoints, scheduling, namespaces.
