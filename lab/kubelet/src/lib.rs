//! Lab's kubelet: pods as processes in namespaces of their own, their network by CNI.
