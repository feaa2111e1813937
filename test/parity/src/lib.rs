//! Do the tables' model, the native datapath and the kernel's programs agree on every packet?
