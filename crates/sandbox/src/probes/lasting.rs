//! Attacks that try to last longer, or to say more, than they may.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use protocol::runner::{Limits, RunOutcome};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, setsid};

use super::Probe;
use super::attempt::Attempt;
use super::outside;
use super::processes::start_and_wait;
use super::scene::Scene;
use crate::sys::{self, probe::Fork};

/// How long what should be dead stays, if nobody kills it.
const LONGEST: Duration = Duration::from_secs(20);

fn two_seconds(limits: &mut Limits) {
    limits.wall_seconds = 2;
}

pub(super) const PROBES: &[Probe] = &[
    Probe::new(
        "daemon",
        "pid namespace: all of it dies with its first process",
        |_| daemon(),
        start_and_wait,
    )
    .alone(two_seconds)
    .judged(|scene, _| left(scene, "daemon")),
    Probe::new(
        "ignores-signals",
        "time limit; pid namespace: its first process is killed by a signal that cannot be ignored",
        |_| {
            sys::probe::ignore_all();
            std::thread::sleep(LONGEST);
            Attempt::through("it slept")
        },
        start_and_wait,
    )
    .alone(two_seconds)
    .judged(|scene, _| left(scene, "ignores-signals")),
    Probe::new(
        "output-flood",
        "the program around the box keeps a part of the output and throws the rest away",
        |_| flood(),
        |_| Attempt::of(std::io::stderr().write_all(b"a line\n")),
    )
    .alone(two_seconds)
    .judged(flooded),
    Probe::new(
        "core-file",
        "RLIMIT_CORE is 0",
        |_| core_file(),
        start_and_wait,
    ),
];

/// Leaves its session and its parent.
fn daemon() -> Attempt {
    match sys::probe::fork() {
        Ok(Fork::Parent(_)) => return Attempt::stopped("started"),
        Ok(Fork::Child) => {}
        Err(error) => return Attempt::of(Err::<(), _>(error)),
    }
    let _ = setsid();
    match sys::probe::fork() {
        Ok(Fork::Child) => {
            sys::probe::ignore_all();
            // The one that waits for the output does not wait for this one.
            let _ = close_standard();
            std::thread::sleep(LONGEST);
        }
        Ok(Fork::Parent(_)) | Err(_) => {}
    }
    std::process::exit(0)
}

fn close_standard() -> std::io::Result<()> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// What is left of it when the box is over.
fn left(scene: &Scene, name: &str) -> Attempt {
    std::thread::sleep(Duration::from_millis(100));
    match outside::marked(&scene.mark, name).len() {
        0 => Attempt::stopped("nothing of it is left"),
        count => Attempt::through(format_args!("{count} processes are left")),
    }
}

const FLOOD: usize = 4 << 20;

fn flood() -> Attempt {
    let line = [b'x'; 4095];
    let mut out = std::io::stdout().lock();
    let written = (0..FLOOD / 4096).try_for_each(|_| {
        out.write_all(&line)?;
        out.write_all(b"\n")
    });
    Attempt::of(written)
}

fn flooded(_: &Scene, outcome: &RunOutcome) -> Attempt {
    match outcome.stdout.len() {
        kept if kept >= FLOOD => Attempt::through(format_args!("{kept} bytes were kept")),
        kept => Attempt::stopped(format_args!("{kept} of {FLOOD} bytes were kept")),
    }
}

/// Whether the kernel writes the memory of a crashed program to a file.
fn core_file() -> Attempt {
    let most = getrlimit(Resource::Core).maximum;
    let raised = Rlimit {
        current: most,
        maximum: most,
    };
    if let Err(error) = setrlimit(Resource::Core, raised) {
        return Attempt::of(Err::<(), _>(error));
    }
    let ended = Command::new("/bin/sh")
        .args(["-c", "kill -SEGV $$"])
        .status();
    let _ = std::fs::remove_file("core");
    match ended {
        Ok(status) if status.core_dumped() => Attempt::through("memory was dumped"),
        Ok(status) if most == Some(0) => Attempt::stopped(format_args!(
            "{status}, and the hard limit of cores (ulimit -H -c) is 0"
        )),
        Ok(status) => Attempt::stopped(status),
        Err(error) => Attempt::of(Err::<(), _>(error)),
    }
}
