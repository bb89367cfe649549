//! The native box: the process that builds one, runs one command in it, and is gone with it.
//!
//! Three processes, each with one thread, each dead with its parent:
//!
//! - the *keeper* makes the namespaces and stays outside of the process-id namespace. It watches its
//!   link to the service: when that closes, it kills the box.
//! - *init* is process 1 of the box. It builds the root, gives up all privilege, starts the command,
//!   reaps orphans, and tells how the command ended. The kernel kills all else when it ends.
//! - the command.

pub(crate) mod facts;
pub(crate) mod init;
mod memory;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub mod parts;
pub(crate) mod spec;

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, kill_process, pidfd_open, waitpid,
};

use rustix::thread::CapabilitySet;

use crate::sys;
use memory::HostProc;
use spec::{BoxEnd, BoxSpec, Failure, Report};

/// The main function of `bulkhead-sandbox box`: one box, whose description comes over standard input.
pub fn main() -> ExitCode {
    // First of all: whatever leaked into this process does not get into the box.
    sys::close_from(3);
    let Ok(service) = BoxEnd::from_stdin() else {
        return ExitCode::FAILURE;
    };
    let Ok((spec, Some(input))) = service.receive() else {
        return ExitCode::FAILURE;
    };
    match keep(&service, &spec, input) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If the service is gone, there is nobody to tell.
            let _ = service.send(&Report::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

fn keep(service: &BoxEnd, spec: &BoxSpec, input: OwnedFd) -> Result<(), Failure> {
    sys::reset_all().map_err(Failure::at("resetting signals"))?;
    init::die_with_parent(spec.parent)?;
    let keeper =
        pidfd_open(getpid(), PidfdFlags::empty()).map_err(Failure::at("naming the keeper"))?;
    // A failure only says that this process leads a group already, which will do as well.
    let _ = rustix::process::setsid();
    namespaces::enter()?;
    let proc = HostProc::open()?;
    match sys::fork().map_err(Failure::at("starting the first process of the box"))? {
        sys::Fork::Child => {
            drop(proc);
            init::main(service, spec, input, keeper)
        }
        sys::Fork::Parent(init) => {
            drop((input, keeper));
            init::close_stdio()?;
            watch(service, spec, init, &proc)
        }
    }
}

/// How often a box' memory is looked at.
const LOOK_EVERY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// Waits until init is over and all of the box with it. The service says nothing after the
/// description, so that whatever its link reads as means: kill the box.
fn watch(service: &BoxEnd, spec: &BoxSpec, init: Pid, proc: &HostProc) -> Result<(), Failure> {
    crate::confine::keep_only(CapabilitySet::empty()).map_err(Failure::because)?;
    let handle = pidfd_open(init, PidfdFlags::empty()).map_err(Failure::at("watching the box"))?;
    loop {
        let mut events = [
            PollFd::new(&handle, PollFlags::IN),
            PollFd::from_borrowed_fd(service.as_fd(), PollFlags::IN),
        ];
        match poll(&mut events, Some(&LOOK_EVERY)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::at("watching the box")(error)),
        }
        if !events[0].revents().is_empty() {
            break;
        }
        let unwanted = !events[1].revents().is_empty();
        if unwanted || proc.over(init, spec.limits.memory_bytes) {
            if !unwanted {
                // If the service is gone, there is nobody to tell.
                let _ = service.send(&Report::OverMemory);
            }
            kill_process(init, Signal::KILL).map_err(Failure::at("killing the box"))?;
            break;
        }
    }
    waitpid(Some(init), WaitOptions::empty()).map_err(Failure::at("waiting for the box"))?;
    Ok(())
}
