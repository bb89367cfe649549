//! The system calls that neither the standard library nor `rustix` offers as safe functions.
//!
//! This folder is the only place in Bulkhead with `unsafe`. Each block says why it is needed
//! (JUSTIFICATION) and why it is sound (SAFETY).

#![allow(unsafe_code)]

mod memory;
mod net;
pub(crate) mod probe;
mod process;
mod signal;

use std::io;

use rustix::thread::CapabilitySet;

pub(crate) use memory::{lock_memory, page_size, unlock_memory};
pub(crate) use net::switch_loopback_on;
pub(crate) use process::{
    Below, Cloned, clone_into_namespaces, close_from, exit_now, files_as_root,
    reap_children_unasked, set_mount_flags, start_sharing, unshare,
};
pub(crate) use signal::{StopSet, block, reset_all, wait};

/// The newest Landlock ABI of the kernel, landlock_create_ruleset(2).
pub(crate) fn landlock_abi() -> io::Result<u32> {
    const CREATE_RULESET_VERSION: libc::c_ulong = 1;
    // JUSTIFICATION: the landlock crate keeps this number to itself, and receipts tell it.
    // SAFETY: with this flag the kernel takes a null pointer and size 0 and returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).map_err(|_| io::Error::last_os_error())
}

/// Empties the bounding set but for `keep`; needs `CAP_SETPCAP`.
pub(crate) fn drop_bounding_set(keep: CapabilitySet) -> io::Result<()> {
    for number in 0..u64::BITS {
        let bit = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(bit) {
            continue;
        }
        // JUSTIFICATION: rustix takes only the capabilities that it knows by name, and the kernel may know more.
        // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) } != 0
        {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // The first number that the kernel does not know: all have been dropped.
                Some(libc::EINVAL) if number > 0 => return Ok(()),
                Some(_) | None => return Err(error),
            }
        }
    }
    Ok(())
}

/// Makes a call whose arguments the kernel refuses; only for [`crate::probe`], whose table is private
/// and checked for that.
pub(crate) fn attempt(number: i64, arguments: [usize; 5]) -> io::Result<()> {
    let [a, b, c, d, e] = arguments;
    // JUSTIFICATION: the point is the bare call, also of those that no library offers.
    // SAFETY: pointers in the table are to the first page, which is never mapped, so the kernel
    // reads and writes nothing through them; descriptors and process ids do not exist.
    match unsafe { libc::syscall(number, a, b, c, d, e, 0_usize) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Maps a page that can be executed and gives it back; only for [`crate::probe`].
pub(crate) fn map_code() -> io::Result<()> {
    const PAGE: usize = 4096;
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_EXEC,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: the kernel chooses an address that nothing else uses.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // JUSTIFICATION: as above.
    // SAFETY: the page is the one just mapped, and nobody has a pointer into it.
    match unsafe { libc::munmap(page, PAGE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
