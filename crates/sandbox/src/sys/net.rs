//! The one interface that a box has.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Switches the loopback interface of this network namespace on, netdevice(7). Any socket of the internet
/// will do to ask with; it takes `CAP_NET_ADMIN` over the namespace.
pub(crate) fn switch_loopback_on(asking: &OwnedFd) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    name[..2].copy_from_slice(&[b'l'.cast_signed(), b'o'.cast_signed()]);
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short,
        },
    };
    // JUSTIFICATION: neither the standard library nor rustix sets the flags of an interface.
    // SAFETY: the kernel reads a whole `struct ifreq`, which lives until the call returns, and writes nothing to it.
    let done = unsafe { libc::ioctl(asking.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
