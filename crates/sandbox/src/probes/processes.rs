//! Attacks on other processes: of the host, and on the first one of the box.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use rustix::process::{Pid, PidfdFlags, pidfd_open, test_kill_process};

use super::Probe;
use super::attempt::Attempt;
use super::calls::{BAD, NONE, ZERO, n, reach};
use super::scene::{CANARY, Scene};
use crate::sys::probe::{Arg, call, read_memory};

pub(super) const PROBES: &[Probe] = &[
    Probe::new(
        "ptrace",
        "pid namespace: no process of the host has an id here; seccomp: ptrace is not on the list",
        ptrace,
        start_and_wait,
    ),
    Probe::new(
        "ptrace-call",
        "seccomp: ptrace is not on the list",
        |_| reach(libc::SYS_ptrace, [n(0x7fff), NONE, ZERO, ZERO]),
        start_and_wait,
    ),
    Probe::new(
        "signal-host",
        "pid namespace; Landlock: no signals out of the domain (ABI 6)",
        |scene| Attempt::of(pid(scene.victim).and_then(|pid| Ok(test_kill_process(pid)?))),
        |_| Attempt::of(test_kill_process(rustix::process::getpid())),
    ),
    Probe::new(
        "pidfd-open-host",
        "pid namespace",
        |scene| {
            Attempt::of(pid(scene.victim).and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?)))
        },
        |_| Attempt::of(test_kill_process(rustix::process::getpid())),
    ),
    Probe::new(
        "pidfd-getfd",
        "seccomp: pidfd_getfd is not on the list",
        |_| reach(libc::SYS_pidfd_getfd, [NONE, NONE, ZERO]),
        |_| Attempt::of(rustix::io::dup(rustix::stdio::stdout())),
    ),
    Probe::new(
        "process-vm-readv",
        "pid namespace; seccomp: process_vm_readv is not on the list",
        memory_of_victim,
        own_memory,
    ),
    Probe::new(
        "process-vm-writev",
        "seccomp: process_vm_writev is not on the list",
        |_| {
            reach(
                libc::SYS_process_vm_writev,
                [NONE, BAD, n(1), BAD, n(1), ZERO],
            )
        },
        own_memory,
    ),
    Probe::new(
        "compare-processes",
        "seccomp: kcmp is not on the list",
        |_| reach(libc::SYS_kcmp, [NONE, NONE, ZERO, ZERO, ZERO]),
        own_memory,
    )
    .apart(),
    Probe::new(
        "advise-other-memory",
        "seccomp: process_madvise, process_mrelease, move_pages and migrate_pages are not on the list",
        |_| {
            Attempt::any([
                reach(libc::SYS_process_madvise, [NONE, BAD, n(1), ZERO, ZERO]),
                reach(libc::SYS_process_mrelease, [NONE, ZERO]),
                reach(
                    libc::SYS_move_pages,
                    [n(0x7fff_ffff), ZERO, BAD, BAD, BAD, n(0x7fff)],
                ),
                reach(libc::SYS_migrate_pages, [n(0x7fff_ffff), ZERO, BAD, BAD]),
            ])
        },
        own_memory,
    ),
    Probe::new(
        "proc-memory-host",
        "pid namespace; own /proc",
        |scene| proc_memory(scene.victim, scene.canary_at),
        |_| Attempt::of(std::fs::read("/proc/self/maps")),
    ),
    Probe::new(
        "proc-environ-host",
        "pid namespace; own /proc",
        |scene| proc_environ(scene.victim),
        |_| Attempt::of(std::fs::read("/proc/self/environ")),
    ),
    Probe::new(
        "proc-of-init",
        "init is not dumpable, and /proc hides it (hidepid); user namespace",
        proc_of_init,
        |_| Attempt::of(std::fs::read("/proc/self/status")),
    ),
    Probe::new(
        "list-host-processes",
        "pid namespace; own /proc",
        |scene| Attempt::of(std::fs::read(format!("/proc/{}/cmdline", scene.victim))),
        |_| Attempt::of(std::fs::read_dir("/proc")),
    ),
    Probe::new(
        "limits-of-others",
        "pid namespace; seccomp: prlimit64 only for oneself",
        |scene| limits_of(scene.victim),
        |_| limits_of(0),
    ),
    Probe::new(
        "schedule-others",
        "pid namespace",
        |scene| {
            Attempt::of(
                pid(scene.victim).and_then(|pid| Ok(rustix::thread::sched_getaffinity(Some(pid))?)),
            )
        },
        |_| Attempt::of(rustix::thread::sched_getaffinity(None)),
    ),
];

fn pid(number: i32) -> std::io::Result<Pid> {
    Pid::from_raw(number).ok_or_else(|| std::io::Error::from_raw_os_error(libc::ESRCH))
}

fn ptrace(scene: &Scene) -> Attempt {
    const SEIZE: i64 = 0x4206;
    // The end of this process lets go of it again.
    Attempt::of(call(
        libc::SYS_ptrace,
        [n(SEIZE), n(scene.victim), ZERO, ZERO],
    ))
}

/// What a debugger's pair does: start a program, and learn how it ended.
pub(super) fn start_and_wait(_: &Scene) -> Attempt {
    match Command::new("/bin/true").status() {
        Ok(status) if status.success() => Attempt::through("/bin/true ended well"),
        Ok(status) => Attempt::stopped(status),
        Err(error) => Attempt::of(Err::<(), _>(error)),
    }
}

fn memory_of_victim(scene: &Scene) -> Attempt {
    let mut bytes = vec![0; CANARY.len()];
    match read_memory(scene.victim, scene.canary_at, &mut bytes) {
        Ok(_) if bytes == CANARY.as_bytes() => Attempt::through("the canary was read"),
        Ok(_) => Attempt::through("memory was read"),
        Err(error) => Attempt::of(Err::<(), _>(error)),
    }
}

fn own_memory(_: &Scene) -> Attempt {
    let mut bytes = [0; 64];
    Attempt::of(File::open("/proc/self/cmdline").and_then(|mut file| file.read(&mut bytes)))
}

fn proc_memory(pid: i32, address: usize) -> Attempt {
    let mut bytes = vec![0; CANARY.len()];
    let mut read = || {
        let at = u64::try_from(address).map_err(std::io::Error::other)?;
        File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut bytes, at)
    };
    Attempt::of(read())
}

fn proc_environ(pid: i32) -> Attempt {
    match std::fs::read(format!("/proc/{pid}/environ")) {
        Ok(bytes) => Attempt::through(format_args!("{} bytes of environment", bytes.len())),
        Err(error) => Attempt::of(Err::<(), _>(error)),
    }
}

fn proc_of_init(scene: &Scene) -> Attempt {
    let at = |name: &str| format!("/proc/{}/{name}", scene.init);
    Attempt::any([
        environ_of_init(scene).at("environ"),
        Attempt::of(File::open(at("mem"))).at("mem"),
        Attempt::of(std::fs::read_link(at("exe"))).at("exe"),
        Attempt::of(std::fs::read_dir(at("fd")))
            .at("fd")
            .on_the_host(scene),
        Attempt::of(std::fs::read_dir(at("root")))
            .at("root")
            .on_the_host(scene),
    ])
}

/// A kernel other than the host's may show it, as long as it holds only what every container is given.
fn environ_of_init(scene: &Scene) -> Attempt {
    const GIVEN: [&[u8]; 3] = [b"PATH=", b"HOME=", b"HOSTNAME="];
    let attempt = proc_environ(scene.init);
    let its = std::fs::read(format!("/proc/{}/environ", scene.init)).unwrap_or_default();
    let mut variables = its.split(|byte| *byte == 0).filter(|one| !one.is_empty());
    match variables.all(|one| GIVEN.iter().any(|name| one.starts_with(name))) {
        true => attempt.on_the_host(scene),
        false => attempt,
    }
}

fn limits_of(pid: i32) -> Attempt {
    let mut limit = [0; 16];
    Attempt::of(call(
        libc::SYS_prlimit64,
        [n(pid), n(7), ZERO, Arg::Out(&mut limit)],
    ))
}
