//! Network devices, addresses, routes and namespaces of this machine.
