//! Being asked to stop.
//!
//! A program that starts others blocks the signals before its first thread and has one
//! thread wait for them; so no handler ever runs. Processes that the standard library's
//! `Command` starts get an empty mask and the default for SIGPIPE again; programs of a
//! terminal's foreground group still get its Ctrl-C, so give children their own group
//! (`CommandExt::process_group(0)`).

use std::io;

use crate::sys;

/// What asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal is gone.
    HangUp,
}

/// Blocks SIGINT, SIGTERM and SIGHUP in this thread and in those it starts afterwards, so that
/// they wait for [`wait_for_stop`]. Call it before any thread is started.
pub fn block_stop_signals() -> io::Result<()> {
    sys::block(&sys::StopSet::new())
}

/// Waits until one of the three comes; they must be blocked. Which thread waits does not matter.
pub fn wait_for_stop() -> io::Result<Signal> {
    match sys::wait(&sys::StopSet::new())? {
        libc::SIGINT => Ok(Signal::Interrupt),
        libc::SIGHUP => Ok(Signal::HangUp),
        // The set holds three; the third is SIGTERM.
        _ => Ok(Signal::Terminate),
    }
}
