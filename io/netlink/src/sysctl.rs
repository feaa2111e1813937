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
