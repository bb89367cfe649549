//! Attacks on the kernel by way of its less travelled roads.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd};

use super::Probe;
use super::attempt::Attempt;
use super::calls::{BAD, NONE, ZERO, n, reach};
use super::scene::{Scene, Side};
use crate::sys::probe::{Arg, call};

const NOT_LISTED: &str = "seccomp: not on the list";
const NOT_LISTED_NOR_CAPABLE: &str = "seccomp: not on the list; no capabilities";
const ABSENT: &str = "seccomp: does not exist in a box";

pub(super) const PROBES: &[Probe] = &[
    Probe::new(
        "bpf",
        NOT_LISTED_NOR_CAPABLE,
        |_| reach(libc::SYS_bpf, [ZERO, BAD, n(1 << 20)]),
        read_clock,
    ),
    Probe::new(
        "perf-event-open",
        NOT_LISTED,
        |_| reach(libc::SYS_perf_event_open, [BAD, ZERO, NONE, NONE, ZERO]),
        read_clock,
    ),
    Probe::new(
        "userfaultfd",
        ABSENT,
        |_| {
            const USER_MODE_ONLY: i64 = 1;
            Attempt::of(call(libc::SYS_userfaultfd, [n(USER_MODE_ONLY)]))
        },
        map_memory,
    )
    .apart(),
    Probe::new("io-uring", ABSENT, io_uring, read_file).apart(),
    Probe::new(
        "keyctl",
        NOT_LISTED,
        |_| {
            const GET_KEYRING_ID: i64 = 0;
            const USER_SESSION: i64 = -5;
            Attempt::reaching(call(
                libc::SYS_keyctl,
                [n(GET_KEYRING_ID), n(USER_SESSION), ZERO],
            ))
        },
        read_file,
    ),
    Probe::new("add-key", NOT_LISTED, add_key, read_file),
    Probe::new(
        "request-key",
        NOT_LISTED,
        |_| {
            let name = Arg::Text(c"bulkhead-no-such-key");
            Attempt::reaching(call(
                libc::SYS_request_key,
                [Arg::Text(c"user"), name, ZERO, ZERO],
            ))
        },
        read_file,
    ),
    Probe::new(
        "module-load",
        NOT_LISTED_NOR_CAPABLE,
        |_| {
            Attempt::any([
                reach(libc::SYS_init_module, [BAD, ZERO, BAD]),
                reach(libc::SYS_finit_module, [NONE, BAD, n(0x7fff)]),
            ])
        },
        read_file,
    )
    .traced(libc::SYS_init_module),
    Probe::new(
        "module-unload",
        NOT_LISTED_NOR_CAPABLE,
        |_| reach(libc::SYS_delete_module, [BAD, ZERO]),
        read_file,
    )
    .traced(libc::SYS_delete_module),
    Probe::new(
        "kexec",
        NOT_LISTED_NOR_CAPABLE,
        |_| {
            // No such flag, and no segments.
            reach(
                libc::SYS_kexec_load,
                [ZERO, n(1 << 20), BAD, n(0x7fff_0000)],
            )
        },
        read_clock,
    )
    .traced(libc::SYS_kexec_load),
    Probe::new(
        "reboot",
        NOT_LISTED_NOR_CAPABLE,
        |_| {
            // Two numbers that are not the magic ones.
            reach(libc::SYS_reboot, [n(1), n(2), ZERO, ZERO])
        },
        read_clock,
    )
    .throwaway(),
    Probe::new(
        "set-clock",
        NOT_LISTED_NOR_CAPABLE,
        |_| {
            // The time is where no memory is.
            Attempt::any([
                reach(libc::SYS_clock_settime, [ZERO, BAD]),
                reach(libc::SYS_settimeofday, [BAD, ZERO]),
            ])
        },
        read_clock,
    ),
    Probe::new(
        "adjust-clock",
        NOT_LISTED_NOR_CAPABLE,
        |_| {
            Attempt::any([
                reach(libc::SYS_adjtimex, [BAD]),
                reach(libc::SYS_clock_adjtime, [ZERO, BAD]),
            ])
        },
        read_clock,
    ),
    Probe::new(
        "kernel-log",
        NOT_LISTED_NOR_CAPABLE,
        |_| {
            const SIZE_BUFFER: i64 = 10;
            Attempt::reaching(call(libc::SYS_syslog, [n(SIZE_BUFFER), ZERO, ZERO]))
        },
        read_clock,
    )
    .traced(libc::SYS_syslog),
    Probe::new(
        "swap",
        NOT_LISTED_NOR_CAPABLE,
        |_| reach(libc::SYS_swapon, [BAD, n(0x7fff_0000)]),
        read_file,
    )
    .traced(libc::SYS_swapon),
    Probe::new(
        "process-accounting",
        NOT_LISTED_NOR_CAPABLE,
        |_| reach(libc::SYS_acct, [BAD]),
        read_file,
    )
    .traced(libc::SYS_acct),
    Probe::new(
        "quota",
        NOT_LISTED_NOR_CAPABLE,
        |_| reach(libc::SYS_quotactl, [n(0x7fff_ffff), BAD, ZERO, BAD]),
        read_file,
    )
    .apart(),
    Probe::new(
        "fanotify",
        NOT_LISTED,
        |_| {
            const REPORT_FID: i64 = 0x200;
            Attempt::reaching(call(libc::SYS_fanotify_init, [n(REPORT_FID), ZERO]))
        },
        |_| {
            Attempt::of(rustix::fs::inotify::init(
                rustix::fs::inotify::CreateFlags::CLOEXEC,
            ))
        },
    )
    .apart(),
    Probe::new(
        "file-handles",
        "seccomp: name_to_handle_at and open_by_handle_at are not on the list; no capabilities",
        |_| {
            Attempt::any([
                reach(libc::SYS_name_to_handle_at, [NONE, BAD, BAD, BAD, ZERO]),
                reach(libc::SYS_open_by_handle_at, [NONE, BAD, ZERO]),
            ])
        },
        read_file,
    ),
    Probe::new(
        "personality",
        "seccomp: personality only to ask, and to the usual one",
        |_| {
            const NO_RANDOM_ADDRESSES: i64 = 0x0004_0000;
            Attempt::of(call(libc::SYS_personality, [n(NO_RANDOM_ADDRESSES)]))
        },
        |_| Attempt::through(rustix::system::uname().release().to_string_lossy()),
    ),
    #[cfg(target_arch = "x86_64")]
    Probe::new(
        "modify-ldt",
        NOT_LISTED,
        |_| {
            let mut bytes = [0; 16];
            Attempt::reaching(call(
                libc::SYS_modify_ldt,
                [ZERO, Arg::Out(&mut bytes), n(16)],
            ))
        },
        map_memory,
    )
    .apart(),
    #[cfg(target_arch = "x86_64")]
    Probe::new(
        "port-access",
        NOT_LISTED_NOR_CAPABLE,
        |_| {
            Attempt::any([
                // No such level, and a range that wraps around.
                reach(libc::SYS_iopl, [n(4)]),
                reach(libc::SYS_ioperm, [NONE, n(2), n(1)]),
            ])
        },
        map_memory,
    )
    .apart(),
    #[cfg(target_arch = "x86_64")]
    Probe::new(
        "calls-of-i386",
        "seccomp: a call of another architecture kills",
        |_| Attempt::of(crate::sys::probe::getpid_i386()),
        |_| Attempt::through(std::process::id()),
    )
    .apart(),
    #[cfg(target_arch = "x86_64")]
    Probe::new(
        "calls-of-x32",
        "seccomp: a number of x32 kills",
        |_| {
            const X32: i64 = 0x4000_0000;
            Attempt::of(call(X32 | libc::SYS_getpid, []))
        },
        |_| Attempt::through(std::process::id()),
    )
    .apart(),
    Probe::new(
        "memfd-secret",
        ABSENT,
        |_| Attempt::of(call(libc::SYS_memfd_secret, [ZERO])),
        map_memory,
    )
    .apart(),
    Probe::new(
        "other-calls",
        "seccomp: not on the list: placing memory, mapping pages out of order",
        |_| {
            Attempt::any([
                reach(libc::SYS_set_mempolicy, [n(0x7fff), BAD, n(64)]),
                reach(
                    libc::SYS_mbind,
                    [ZERO, n(4096), n(0x7fff), BAD, n(64), ZERO],
                ),
                reach(
                    libc::SYS_remap_file_pages,
                    [n(1), n(4096), n(1), ZERO, ZERO],
                ),
            ])
        },
        read_file,
    ),
    Probe::new(
        "own-filter",
        "seccomp: prctl(PR_SET_SECCOMP) and seccomp are not on the list",
        |_| {
            Attempt::any([
                reach(libc::SYS_seccomp, [n(0x7fff), ZERO, ZERO]),
                reach(libc::SYS_prctl, [n(libc::PR_SET_SECCOMP), n(0x7fff), ZERO]),
            ])
        },
        |_| Attempt::of(rustix::thread::name()),
    ),
    Probe::new(
        "terminal-input",
        "seccomp: ioctl without TIOCSTI; own session without a terminal",
        |scene| terminal(scene, libc::TIOCSTI),
        is_terminal,
    ),
    Probe::new(
        "console-commands",
        "seccomp: ioctl without TIOCLINUX; own session without a terminal",
        |scene| terminal(scene, libc::TIOCLINUX),
        is_terminal,
    ),
    Probe::new(
        "controlling-terminal",
        "own session; own /dev without a terminal",
        |_| Attempt::of(File::options().read(true).write(true).open("/dev/tty")),
        |_| Attempt::of(File::open("/dev/null")),
    ),
];

fn read_clock(_: &Scene) -> Attempt {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Attempt::through(format_args!("{} s since the start", now.tv_sec))
}

fn read_file(_: &Scene) -> Attempt {
    Attempt::of(std::fs::read("/etc/passwd"))
}

fn map_memory(_: &Scene) -> Attempt {
    Attempt::of(crate::sys::map_code())
}

fn io_uring(_: &Scene) -> Attempt {
    // `struct io_uring_params`.
    let mut parameters = [0; 120];
    Attempt::reaching(call(
        libc::SYS_io_uring_setup,
        [n(4), Arg::Out(&mut parameters)],
    ))
}

fn add_key(_: &Scene) -> Attempt {
    // It goes with the process.
    const PROCESS_KEYRING: i64 = -2;
    let (kind, name) = (Arg::Text(c"user"), Arg::Text(c"bulkhead-probe"));
    Attempt::of(call(
        libc::SYS_add_key,
        [kind, name, Arg::In(b"x"), n(1), n(PROCESS_KEYRING)],
    ))
}

/// Whether the terminal's driver, or whatever is the standard input, sees the command. Typing nothing: the
/// address is where no memory is.
fn terminal(scene: &Scene, command: u64) -> Attempt {
    let tty = match scene.side {
        Side::Outside => File::open("/dev/tty").ok(),
        Side::Inside => None,
    };
    let fd = tty.as_ref().map_or(0, AsRawFd::as_raw_fd);
    reach(libc::SYS_ioctl, [n(fd), Arg::Number(command as usize), BAD])
}

fn is_terminal(_: &Scene) -> Attempt {
    let yes = rustix::termios::isatty(rustix::stdio::stdin().as_fd());
    Attempt::through(format_args!("standard input is a terminal: {yes}"))
}
