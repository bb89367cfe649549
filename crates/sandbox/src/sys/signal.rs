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
    for signal in 1..=libc::SIGRTMAX() {
        // JUSTIFICATION: no safe wrapper exists.
        // SAFETY: SIG_DFL installs no handler. SIGKILL, SIGSTOP and the two that the C library keeps for
        // itself are refused with EINVAL and have no other disposition.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
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
