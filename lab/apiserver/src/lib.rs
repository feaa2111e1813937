//! The part of the Kubernetes API that lab serves.
