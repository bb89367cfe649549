//! Memory out of the swap.

use std::io;

/// Locks the pages in which these bytes lie, mlock(2).
pub(crate) fn lock_memory(bytes: &[u8]) -> io::Result<()> {
    // JUSTIFICATION: rustix has it as an unsafe function only, as it takes an address.
    // SAFETY: the range is that of a slice, so it is mapped; the call changes nothing that the program can
    // see, and keeps the pages where they are.
    match unsafe { libc::mlock(bytes.as_ptr().cast(), bytes.len()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
