//! Harmless attempts at what attackers do, for tests that run inside a confinement.
//!
//! Each call has arguments that no kernel accepts, so that nothing comes of it: it fails with
//! the error of a filter, or with the kernel's own about the arguments. Which of the two it is
//! tells whether the call can be reached.

use std::io;

use crate::sys;

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A filter refused the call before the kernel looked at it.
    Refused,
    /// The call reached the kernel.
    Reached,
}

/// A system call to attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The call's name.
    pub name: &'static str,
    number: i64,
    arguments: [usize; 5],
}

/// An address that is not mapped, and not null, which some calls take for "none".
const BAD: usize = 1;
/// No descriptor, no process, no flag set that exists.
const NONE: usize = usize::MAX;

/// All of them.
pub const ALL: &[Probe] = &[
    // Other processes.
    Probe {
        name: "ptrace",
        number: libc::SYS_ptrace,
        arguments: [0x7fff, NONE, 0, 0, 0],
    },
    Probe {
        name: "process_vm_readv",
        number: libc::SYS_process_vm_readv,
        arguments: [NONE, BAD, 1, BAD, 1],
    },
    Probe {
        name: "pidfd_getfd",
        number: libc::SYS_pidfd_getfd,
        arguments: [NONE, NONE, 0, 0, 0],
    },
    // Other programs.
    Probe {
        name: "execve",
        number: libc::SYS_execve,
        arguments: [BAD, BAD, BAD, 0, 0],
    },
    Probe {
        name: "execveat",
        number: libc::SYS_execveat,
        arguments: [NONE, BAD, BAD, BAD, 0],
    },
    // Namespaces and mounts.
    Probe {
        name: "unshare",
        number: libc::SYS_unshare,
        arguments: [1, 0, 0, 0, 0],
    },
    Probe {
        name: "setns",
        number: libc::SYS_setns,
        arguments: [NONE, 0, 0, 0, 0],
    },
    Probe {
        name: "mount",
        number: libc::SYS_mount,
        arguments: [BAD, BAD, BAD, 0, 0],
    },
    Probe {
        name: "clone3",
        number: libc::SYS_clone3,
        arguments: [BAD, 0, 0, 0, 0],
    },
    // The kernel's less travelled roads.
    Probe {
        name: "io_uring_setup",
        number: libc::SYS_io_uring_setup,
        arguments: [0, BAD, 0, 0, 0],
    },
    Probe {
        name: "keyctl",
        number: libc::SYS_keyctl,
        arguments: [0x7fff, 0, 0, 0, 0],
    },
    Probe {
        name: "add_key",
        number: libc::SYS_add_key,
        arguments: [BAD, BAD, 0, 0, 0],
    },
    Probe {
        name: "memfd_create",
        number: libc::SYS_memfd_create,
        arguments: [BAD, 0, 0, 0, 0],
    },
    Probe {
        name: "name_to_handle_at",
        number: libc::SYS_name_to_handle_at,
        arguments: [NONE, BAD, BAD, BAD, 0],
    },
    // Sockets: a protocol that no family has.
    Probe {
        name: "socket(AF_UNIX)",
        number: libc::SYS_socket,
        arguments: [1, 1, 0x7fff, 0, 0],
    },
    Probe {
        name: "socket(AF_INET)",
        number: libc::SYS_socket,
        arguments: [2, 1, 0x7fff, 0, 0],
    },
    Probe {
        name: "socket(AF_NETLINK)",
        number: libc::SYS_socket,
        arguments: [16, 3, 0x7fff, 0, 0],
    },
    Probe {
        name: "socketpair",
        number: libc::SYS_socketpair,
        arguments: [1, 1, 0x7fff, 0, 0],
    },
];

impl Probe {
    /// Attempts it in this thread.
    pub fn attempt(&self) -> Outcome {
        match sys::attempt(self.number, self.arguments)
            .err()
            .and_then(|e: io::Error| e.raw_os_error())
        {
            Some(libc::EPERM | libc::ENOSYS | libc::EAFNOSUPPORT) => Outcome::Refused,
            Some(_) | None => Outcome::Reached,
        }
    }
}

/// Maps a page of memory that can be executed, and gives it back.
pub fn map_code() -> io::Result<()> {
    sys::map_code()
}
