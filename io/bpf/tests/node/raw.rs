//! How are frames sent and seen that no ordinary socket makes?

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A packet socket on one interface.
pub struct Raw(OwnedFd);

impl Raw {
    /// Opens it in the namespace of the calling thread.
    pub fn open(ifindex: u32) -> io::Result<Raw> {
        let all = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: no memory is involved
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, i32::from(all)) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zeros is a socket address
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = all;
        address.sll_ifindex = ifindex as i32;
        let length = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: the address lives during the call and has the length that is given
        let bound = unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) };
        if bound == 0 { Ok(Raw(fd)) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends a frame as it is.
    pub fn send(&self, frame: &[u8]) {
        // SAFETY: the frame lives during the call
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// The first frame within a second that somebody else sent and that is wanted.
    pub fn receive(&self, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        self.receive_within(Duration::from_secs(1), wanted)
    }

    /// The same within another time.
    pub fn receive_within(&self, time: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let end = Instant::now() + time;
        let mut buffer = vec![0u8; 65536];
        loop {
            // SAFETY: the buffer lives during the call and has the length that is given
            let length = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if let Ok(length) = usize::try_from(length) {
                if wanted(&buffer[..length]) {
                    return Some(buffer[..length].to_vec());
                }
                continue;
            }
            if Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
