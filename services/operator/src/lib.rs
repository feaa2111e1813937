//! The operator: registers the CRDs, removes identities and endpoints that nobody uses.
