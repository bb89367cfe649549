//! Getting at another process in the ways that an attacker of the same user has. For `bulkhead-intruder`; a confined
//! program is refused all of them.

use std::io;

use rustix::process::Pid;

use crate::sys::probe::{self, Arg};

/// A way to get at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// ptrace(2): from now on its tracer; the kernel lets it go when the caller ends.
    Trace,
    /// process_vm_readv(2).
    ReadMemory,
    /// pidfd_getfd(2), of its first descriptor.
    TakeDescriptor,
    /// What it was started with, of proc(5).
    Environment,
    /// Its memory as a file, of proc(5).
    MemoryFile,
    /// kill(2), with no signal: whether one would come.
    Signal,
}

/// All of them.
pub const WAYS: [Way; 6] = [
    Way::Trace,
    Way::ReadMemory,
    Way::TakeDescriptor,
    Way::Environment,
    Way::MemoryFile,
    Way::Signal,
];

/// Tries it. The process is not changed; what it holds is not told.
///
/// # Errors
///
/// What the kernel, or a filter, answers.
pub fn reach(pid: Pid, way: Way) -> io::Result<()> {
    const SEIZE: usize = 0x4206;
    let raw = pid.as_raw_nonzero().get();
    let number = usize::try_from(raw).map_err(io::Error::other)?;
    match way {
        Way::Trace => {
            probe::call(libc::SYS_ptrace, [SEIZE, number, 0, 0].map(Arg::Number)).map(drop)
        }
        Way::ReadMemory => {
            let read = probe::read_memory(raw, 0, &mut [0]);
            match read.map_err(|error| error.raw_os_error()) {
                // Nothing is mapped there, but whoever may not look is not told that.
                Ok(_) | Err(Some(libc::EFAULT)) => Ok(()),
                Err(Some(other)) => Err(io::Error::from_raw_os_error(other)),
                Err(None) => Err(io::Error::other("no answer")),
            }
        }
        Way::TakeDescriptor => {
            let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
            Ok(
                rustix::process::pidfd_getfd(handle, 0, rustix::process::PidfdGetfdFlags::empty())
                    .map(drop)?,
            )
        }
        Way::Environment => std::fs::read(format!("/proc/{raw}/environ")).map(drop),
        Way::MemoryFile => std::fs::File::open(format!("/proc/{raw}/mem")).map(drop),
        Way::Signal => Ok(rustix::process::test_kill_process(pid)?),
    }
}
