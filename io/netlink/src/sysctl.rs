//! What are the kernel's network settings of this thread's namespace?

use std::path::PathBuf;

use crate::{Error, Result};

/// Sets a value such as `["net", "ipv4", "conf", "eth0.1", "rp_filter"]`: parts, because device names may have dots.
/// Nothing is written if the value is there already, so that it works where `/proc/sys` cannot be written.
pub fn write_sysctl(name: &[&str], value: &str) -> Result<()> {
    if read_sysctl(name).is_ok_and(|now| now == value) {
        return Ok(());
    }
    std::fs::write(path(name), value).map_err(|e| Error::io(format!("set {} to {value}", name.join(".")), e))
}

/// The value now, without surrounding white space.
pub fn read_sysctl(name: &[&str]) -> Result<String> {
    let text = std::fs::read_to_string(path(name)).map_err(|e| Error::io(format!("read {}", name.join(".")), e))?;
    Ok(text.trim().to_owned())
}

fn path(name: &[&str]) -> PathBuf {
    let mut path = PathBuf::from("/proc/sys");
    path.extend(name);
    path
}

/// Prepares the node's side of a container's device pair: no addresses and no neighbour discovery of its own, since the
/// node's programs speak for it; but where IPv6 is on, its stack takes the packets that the programs leave to it.
pub fn prepare_node_side(device: &str, ipv6: bool) -> Result<()> {
    write_sysctl(&["net", "ipv4", "conf", device, "rp_filter"], "0")?;
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return Ok(());
    }
    for (name, value) in [("addr_gen_mode", "1"), ("accept_ra", "0"), ("accept_dad", "0")] {
        write_sysctl(&["net", "ipv6", "conf", device, name], value)?;
    }
    write_sysctl(&["net", "ipv6", "conf", device, "disable_ipv6"], if ipv6 { "0" } else { "1" })
}
