//! The datapath in the kernel: loads, pins and attaches the programs, reads and writes the maps.
