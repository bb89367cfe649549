//! Memory that the kernel keeps out of the swap: for the vault, where keys and values lie.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::sys;

/// How much a program that locks memory asks for, in bytes; more than it ever locks.
const WANTED: u64 = 16 << 20;

/// The least with which such a program starts, in bytes.
pub const LEAST: u64 = 1 << 20;

/// Some bytes that are kept out of the swap. To be dropped once they were wiped, and best before
/// they are freed: whole pages that another thread got and locked in between would be let go.
#[derive(Debug)]
#[must_use = "the bytes may go to the swap as soon as this is dropped"]
pub struct Locked {
    /// Whole pages that hold nothing else: address and length in bytes.
    own: (usize, usize),
}

/// Keeps the pages in which these bytes lie in memory, until what is returned is dropped. The
/// first and the last page, which other bytes may share that have to stay, are not let go then.
///
/// # Errors
///
/// mlock(2) refuses: the limit `RLIMIT_MEMLOCK` is reached. Whoever asked must not go on.
pub fn lock(bytes: &[u8]) -> io::Result<Locked> {
    if !bytes.is_empty() {
        sys::lock_memory(bytes)?;
    }
    let page = sys::page_size();
    let start = bytes.as_ptr().addr().next_multiple_of(page);
    let end = (bytes.as_ptr().addr() + bytes.len()) / page * page;
    Ok(Locked {
        own: (start, end.saturating_sub(start)),
    })
}

impl Locked {
    /// Keeps the bytes for as long as the process lives, wherever they are freed.
    pub fn for_good(self) {
        std::mem::forget(self);
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if self.own.1 > 0 {
            sys::unlock_memory(self.own.0, self.own.1);
        }
    }
}

/// Raises the limit of locked memory to what is wanted, or as far as it may be raised.
pub(crate) fn raise_limit() -> Result<(), String> {
    let enough = |limit: Option<u64>| limit.is_none_or(|bytes| bytes >= WANTED);
    let had = getrlimit(Resource::Memlock);
    if enough(had.current) {
        return Ok(());
    }
    let set = |current, maximum| setrlimit(Resource::Memlock, Rlimit { current, maximum });
    // Above the hard limit only with CAP_SYS_RESOURCE, which is dropped later.
    let maximum = if enough(had.maximum) {
        had.maximum
    } else {
        Some(WANTED)
    };
    if set(Some(WANTED), maximum).is_ok() {
        return Ok(());
    }
    set(had.maximum, had.maximum).map_err(|e| format!("setrlimit(RLIMIT_MEMLOCK): {e}"))?;
    match had.maximum {
        Some(bytes) if bytes < LEAST => Err(format!(
            "it may lock {bytes} bytes of memory and needs {LEAST}, or keys could be written to the \
             swap; raise the limit (`ulimit -l 8192`, `LimitMEMLOCK=8M` of systemd, `--ulimit memlock=8388608` of a container engine)"
        )),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says this process has locked, in KiB.
    fn locked() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck:"));
        line.unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }

    #[test]
    fn what_is_locked_the_kernel_counts_and_nothing_needs_no_lock() {
        drop(lock(&[]).unwrap());
        let bytes = vec![1_u8; 64 * 1024];
        let before = locked();
        let held = lock(&bytes).unwrap();
        assert!(locked() >= before + 64, "{} after {before}", locked());
        drop(held);
        assert!(locked() <= before + 8, "{} after {before}", locked());
        lock(&bytes).unwrap().for_good();
        assert!(locked() >= before + 64, "{} after {before}", locked());
    }
}
