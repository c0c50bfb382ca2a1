//! Descriptors that were inherited across `exec` (`fd@N`), adopted without unsafe code.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// A duplicate of descriptor `n` of this process (close-on-exec). `n` itself stays open.
///
/// # Errors
/// `EBADF` when there is no such descriptor.
pub fn adopt(n: i32) -> io::Result<OwnedFd> {
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(this, n, PidfdGetfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn adopts_an_open_descriptor_and_refuses_a_closed_one() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(adopt(a.as_raw_fd()).is_ok());
        assert!(adopt(9_999).is_err());
    }
}
