//! How does a program that is not ours come to a device in the same way as ours? `bpf` speaks of our programs only.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const OBJ_GET: libc::c_long = 7;
const LINK_CREATE: libc::c_long = 28;
const TCX_INGRESS: u32 = 46;

/// Attaches a pinned program to the ingress of a device of the calling thread's namespace, for as long as the link lives.
pub fn attach(program: &Path, ifindex: u32) -> io::Result<OwnedFd> {
    let path = CString::new(program.as_os_str().as_bytes())?;
    // path (64 bits), descriptor, flags
    let address = path.as_ptr() as u64;
    let program = bpf(OBJ_GET, &mut [address as u32, (address >> 32) as u32, 0, 0])?;
    // program, device, attach type, flags, then the place among other programs (64 bits) and the expected revision
    bpf(LINK_CREATE, &mut [program.as_raw_fd() as u32, ifindex, TCX_INGRESS, 0, 0, 0, 0, 0])
}

fn bpf<const N: usize>(command: libc::c_long, attributes: &mut [u32; N]) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are a prefix of `union bpf_attr` of the given size; the only address in them is that of a
    // string which the caller keeps for the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(|_| io::Error::other("descriptor out of range"))?;
    // SAFETY: the command returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
