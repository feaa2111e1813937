//! What do the cilium.io and networking.k8s.io objects look like?
