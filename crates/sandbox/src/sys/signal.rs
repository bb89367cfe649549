//! Signal masks, dispositions and waiting.

use std::io;
use std::mem::MaybeUninit;

/// The signals that ask a program to stop: SIGINT, SIGTERM and SIGHUP.
pub(crate) struct StopSet(libc::sigset_t);

impl StopSet {
    /// The set.
    pub(crate) fn new() -> Self {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // JUSTIFICATION: sigset_t is opaque; only these functions make one.
        // SAFETY: sigemptyset fills the set before it is read, and the three numbers are valid.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            set.assume_init()
        };
        Self(set)
    }
}

/// Blocks the set in this thread and in those it starts.
pub(crate) fn block(set: &StopSet) -> io::Result<()> {
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: the set is initialised, and the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set.0, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Waits for one of the set, which must be blocked, and takes it.
pub(crate) fn wait(set: &StopSet) -> io::Result<i32> {
    let mut signal = 0;
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: both pointers are to initialised values that live over the call.
    match unsafe { libc::sigwait(&set.0, &mut signal) } {
        0 => Ok(signal),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Gives every signal its default disposition and blocks none: Rust ignores SIGPIPE, and what
/// is ignored or blocked stays so over execve(2).
pub(crate) fn reset_all() -> io::Result<()> {
    /// The kernel's `struct sigaction`, all zero: the default, no flag, no mask.
    const DEFAULT: [u64; 4] = [0; 4];
    const SIGNALS: i32 = 64;
    for signal in (1..=SIGNALS).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        // JUSTIFICATION: no safe wrapper exists, and the C library's refuses the two signals that it
        // keeps for itself, which may have been inherited as ignored all the same.
        // SAFETY: the kernel reads a struct that is at most as long as the array; no handler is installed.
        let result = unsafe {
            let old = std::ptr::null_mut::<u64>();
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                old,
                size_of::<u64>(),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // JUSTIFICATION: as above.
    // SAFETY: sigemptyset fills the set before it is read.
    let result = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
