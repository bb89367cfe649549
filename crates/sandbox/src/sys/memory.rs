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

/// Lets pages go again, munlock(2).
pub(crate) fn unlock_memory(address: usize, len: usize) {
    // JUSTIFICATION: likewise.
    // SAFETY: the call reads and writes no memory of the program, whatever the address; one that is not
    // mapped is an error, which leaves nothing to do.
    unsafe { libc::munlock(std::ptr::without_provenance(address), len) };
}

/// The size of a page in bytes, sysconf(3).
pub(crate) fn page_size() -> usize {
    // JUSTIFICATION: rustix has it behind a feature that nothing else here needs.
    // SAFETY: the call takes a number and touches no memory.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // Every Linux knows it.
    usize::try_from(size).unwrap_or(4096)
}
