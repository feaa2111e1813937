//! Which labels does a workload carry, and does a selector match them?
