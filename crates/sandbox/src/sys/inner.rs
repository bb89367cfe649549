//! A user namespace alone, for a box whose other walls exist.

use std::io;

use rustix::thread::UnshareFlags;

/// Leaves the user namespace.
pub(crate) fn unshare_user() -> io::Result<()> {
    // JUSTIFICATION: the function is unsafe for the sake of CLONE_FILES, which is not asked for.
    // SAFETY: the descriptor table stays shared with nobody.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(io::Error::from)
}
