//! System calls of what runs in a box.
//!
//! Namespaces, mounts and capabilities keep a box from files, processes and networks. This
//! list is what keeps it from the kernel: what is not needed by ordinary programs cannot be
//! reached, and what would make a new namespace, a setuid file or memory that no limit counts is refused.

use super::Test::{Bits, Clear, Is, Set};
use super::groups::{
    ASYNC, BASE, CLONE3, LINKS, NEW_NAMESPACES, OLD_ASYNC, OLD_BASE, OLD_READ_FILES,
    OLD_WRITE_FILES,
};
use super::groups::{READ_FILES, SET_ID, THREADS, WRITE_FILES};
use super::{Calls, Rule, calls};
use crate::native::spec::Kind;

/// The list for what runs in a box.
pub(crate) fn of_box(kind: Kind) -> Calls {
    match kind {
        Kind::Exec => Calls::Only {
            allowed: EXEC,
            absent: &[
                (CLONE3, libc::ENOSYS),
                (ABSENT, libc::ENOSYS),
                (OPENAT2, libc::ENOSYS),
            ],
        },
        Kind::Online => Calls::Only {
            allowed: ONLINE,
            absent: &[
                (CLONE3, libc::ENOSYS),
                (ABSENT, libc::ENOSYS),
                (OPENAT2, libc::ENOSYS),
            ],
        },
        Kind::Tool => Calls::Only {
            allowed: TOOL,
            absent: &[(CLONE3, libc::ENOSYS), (ABSENT, libc::ENOSYS)],
        },
    }
}

/// The list of the program that builds boxes: what they need, and what building takes. A box' own list is
/// installed over it and takes the latter away again.
pub(super) fn sandbox_service() -> Calls {
    Calls::Only {
        allowed: &[
            MEMORY,
            PROCESSES,
            SIGNALS,
            TIME,
            DESCRIPTORS,
            FILES,
            CREATE,
            SOCKETS,
            STREAMS,
            LIMITS,
            OLD,
            OPENAT2,
            BUILD,
        ],
        absent: &[(CLONE3, libc::ENOSYS), (ABSENT, libc::ENOSYS)],
    }
}

/// Building a box: namespaces, mounts, and giving up what is not needed any more.
const BUILD: &[Rule] = calls![
    SYS_clone(Set(0, libc::CLONE_NEWUSER as u32)),
    SYS_unshare(Is(0, libc::CLONE_NEWCGROUP as u32)),
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_open_tree,
    SYS_move_mount,
    SYS_mount_setattr,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_sethostname,
    SYS_capset,
    SYS_seccomp,
    SYS_landlock_create_ruleset,
    SYS_landlock_add_rule,
    SYS_landlock_restrict_self,
    SYS_prctl(Is(0, libc::PR_CAPBSET_DROP as u32)),
    SYS_prctl(Is(0, libc::PR_CAP_AMBIENT as u32)),
    // Switching the loopback of a box on.
    SYS_ioctl(Is(1, libc::SIOCSIFFLAGS as u32)),
];

/// Any program.
const EXEC: &[&[Rule]] = &[
    MEMORY,
    PROCESSES,
    SIGNALS,
    TIME,
    DESCRIPTORS,
    FILES,
    CREATE,
    SOCKETS,
    LIMITS,
    OLD,
];

/// Any program, with a way to egress.
const ONLINE: &[&[Rule]] = &[
    MEMORY,
    PROCESSES,
    SIGNALS,
    TIME,
    DESCRIPTORS,
    FILES,
    CREATE,
    SOCKETS,
    STREAMS,
    LIMITS,
    OLD,
];

/// The built-in tools: files, and no process but their own.
const TOOL: &[&[Rule]] = &[
    BASE,
    OLD_BASE,
    THREADS,
    LINKS,
    ASYNC,
    OLD_ASYNC,
    READ_FILES,
    OLD_READ_FILES,
    WRITE_FILES,
    OLD_WRITE_FILES,
    CREATE,
    START,
    OPENAT2,
];

/// What a tool's start takes: the loader maps code. Which files may be executed, Landlock says.
const START: &[Rule] = calls![
    SYS_execve,
    SYS_mmap,
    SYS_mprotect,
    SYS_close_range,
    SYS_symlinkat,
    SYS_linkat,
    SYS_copy_file_range
];

/// It has its modes in memory, where no filter sees them. The tools need it to stay below the workspace, and
/// programs that are told that it does not exist use openat.
const OPENAT2: &[Rule] = calls![SYS_openat2];

/// Callers do without these: memory that no limit of a process counts, and calls that no filter sees.
const ABSENT: &[Rule] = calls![
    SYS_memfd_create,
    SYS_memfd_secret,
    SYS_shmget,
    SYS_shmat,
    SYS_shmctl,
    SYS_shmdt,
    SYS_msgget,
    SYS_msgsnd,
    SYS_msgrcv,
    SYS_msgctl,
    SYS_semget,
    SYS_semop,
    SYS_semctl,
    SYS_semtimedop,
    SYS_mq_open,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_userfaultfd,
];

const MEMORY: &[Rule] = calls![
    // Code may be mapped, or nothing could be loaded or compiled.
    SYS_mmap,
    SYS_mprotect,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_brk,
    SYS_mincore,
    SYS_msync,
    SYS_mlock,
    SYS_mlock2,
    SYS_munlock,
    SYS_mlockall,
    SYS_munlockall,
    SYS_pkey_alloc,
    SYS_pkey_free,
    SYS_pkey_mprotect,
    SYS_get_mempolicy,
    SYS_membarrier,
    SYS_getrandom,
];

const PROCESSES: &[Rule] = calls![
    SYS_clone(Clear(0, NEW_NAMESPACES)),
    SYS_execve,
    SYS_execveat,
    SYS_exit,
    SYS_exit_group,
    SYS_wait4,
    SYS_waitid,
    SYS_getpid,
    SYS_getppid,
    SYS_gettid,
    SYS_getpgid,
    SYS_setpgid,
    SYS_getsid,
    SYS_setsid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getresuid,
    SYS_getresgid,
    SYS_getgroups,
    SYS_capget,
    // To an id that one has; there is only one.
    SYS_setuid,
    SYS_setgid,
    SYS_setreuid,
    SYS_setregid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_setfsuid,
    SYS_setfsgid,
    SYS_futex,
    SYS_futex_waitv,
    SYS_set_robust_list,
    SYS_get_robust_list,
    SYS_rseq,
    SYS_set_tid_address,
    SYS_restart_syscall,
    SYS_uname,
    SYS_sysinfo,
    SYS_umask,
    // Names, what becomes of children, closing itself, and reading what is set. Not: seccomp, memory maps, ptracers.
    SYS_prctl(Is(0, libc::PR_SET_NAME as u32)),
    SYS_prctl(Is(0, libc::PR_GET_NAME as u32)),
    SYS_prctl(Is(0, libc::PR_SET_PDEATHSIG as u32)),
    SYS_prctl(Is(0, libc::PR_GET_PDEATHSIG as u32)),
    SYS_prctl(Is(0, libc::PR_SET_DUMPABLE as u32)),
    SYS_prctl(Is(0, libc::PR_GET_DUMPABLE as u32)),
    SYS_prctl(Is(0, libc::PR_SET_CHILD_SUBREAPER as u32)),
    SYS_prctl(Is(0, libc::PR_GET_CHILD_SUBREAPER as u32)),
    SYS_prctl(Is(0, libc::PR_SET_NO_NEW_PRIVS as u32)),
    SYS_prctl(Is(0, libc::PR_GET_NO_NEW_PRIVS as u32)),
    SYS_prctl(Is(0, libc::PR_GET_SECCOMP as u32)),
    SYS_prctl(Is(0, libc::PR_GET_KEEPCAPS as u32)),
    SYS_prctl(Is(0, libc::PR_GET_SECUREBITS as u32)),
    SYS_prctl(Is(0, libc::PR_CAPBSET_READ as u32)),
    SYS_prctl(Is(0, libc::PR_SET_TIMERSLACK as u32)),
    SYS_prctl(Is(0, libc::PR_GET_TIMERSLACK as u32)),
    SYS_prctl(Is(0, libc::PR_SET_THP_DISABLE as u32)),
    SYS_prctl(Is(0, libc::PR_SET_VMA as u32)),
    // Asking which personality it is, and the usual one.
    SYS_personality(Is(0, 0)),
    SYS_personality(Is(0, u32::MAX)),
];

/// Signals; only processes of the box have ids here.
const SIGNALS: &[Rule] = calls![
    SYS_kill,
    SYS_tgkill,
    SYS_tkill,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_rt_sigpending,
    SYS_rt_sigsuspend,
    SYS_rt_sigtimedwait,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_sigaltstack,
    SYS_signalfd4,
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
];

/// Reading clocks and waiting; no clock can be set.
const TIME: &[Rule] = calls![
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_gettimeofday,
    SYS_times,
    SYS_getitimer,
    SYS_setitimer,
    SYS_timer_create,
    SYS_timer_settime,
    SYS_timer_gettime,
    SYS_timer_getoverrun,
    SYS_timer_delete,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_timerfd_gettime,
];

const DESCRIPTORS: &[Rule] = calls![
    SYS_read,
    SYS_readv,
    SYS_write,
    SYS_writev,
    SYS_pread64,
    SYS_preadv,
    SYS_preadv2,
    SYS_pwrite64,
    SYS_pwritev,
    SYS_pwritev2,
    SYS_close,
    SYS_close_range,
    SYS_lseek,
    SYS_dup,
    SYS_dup3,
    SYS_pipe2,
    SYS_fcntl,
    SYS_flock,
    SYS_ppoll,
    SYS_pselect6,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_eventfd2,
    SYS_inotify_init1,
    SYS_inotify_add_watch,
    SYS_inotify_rm_watch,
    SYS_sendfile,
    SYS_splice,
    SYS_tee,
    SYS_vmsplice,
    SYS_copy_file_range,
    // Descriptors, terminals and copies that share blocks. Not typing into a terminal, the console's own commands,
    // flags of inodes, or what a file system keeps for its administrator.
    SYS_ioctl(Is(1, libc::FIONREAD as u32)),
    SYS_ioctl(Is(1, libc::FIONBIO as u32)),
    SYS_ioctl(Is(1, libc::FIOASYNC as u32)),
    SYS_ioctl(Is(1, libc::FIOCLEX as u32)),
    SYS_ioctl(Is(1, libc::FIONCLEX as u32)),
    SYS_ioctl(Is(1, libc::TIOCOUTQ as u32)),
    SYS_ioctl(Is(1, libc::TCGETS as u32)),
    SYS_ioctl(Is(1, libc::TCGETS2 as u32)),
    SYS_ioctl(Is(1, libc::TCSETS as u32)),
    SYS_ioctl(Is(1, libc::TCSETSW as u32)),
    SYS_ioctl(Is(1, libc::TCSETSF as u32)),
    SYS_ioctl(Is(1, libc::TIOCGWINSZ as u32)),
    SYS_ioctl(Is(1, libc::TIOCSWINSZ as u32)),
    SYS_ioctl(Is(1, libc::TIOCGPGRP as u32)),
    SYS_ioctl(Is(1, libc::TIOCSPGRP as u32)),
    SYS_ioctl(Is(1, libc::FICLONE as u32)),
    SYS_ioctl(Is(1, libc::FICLONERANGE as u32)),
];

/// Files that are there; which, the mounts and Landlock say.
const FILES: &[Rule] = calls![
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_statfs,
    SYS_fstatfs,
    SYS_getdents64,
    SYS_readlinkat,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_getcwd,
    SYS_chdir,
    SYS_fchdir,
    SYS_truncate,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fsync,
    SYS_fdatasync,
    SYS_sync,
    SYS_syncfs,
    SYS_sync_file_range,
    SYS_fadvise64,
    SYS_readahead,
    SYS_renameat,
    SYS_renameat2,
    SYS_linkat,
    SYS_symlinkat,
    SYS_unlinkat,
    SYS_utimensat,
    // To an id that one has; there is only one.
    SYS_fchown,
    SYS_fchownat,
    SYS_getxattr,
    SYS_lgetxattr,
    SYS_fgetxattr,
    SYS_listxattr,
    SYS_llistxattr,
    SYS_flistxattr,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_fsetxattr,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_fremovexattr,
];

/// What gives a file its mode: never setuid or setgid. On the host, such a file would be the workspace owner's.
const CREATE: &[Rule] = calls![
    // The mode counts only where a file is made; otherwise the argument is whatever is there.
    SYS_openat(Clear(3, SET_ID)),
    SYS_openat(Clear(2, MAKES_FILE)),
    SYS_mkdirat(Clear(2, SET_ID)),
    SYS_mknodat(Bits(2, FILE_TYPE | SET_ID, 0)),
    SYS_mknodat(Bits(2, FILE_TYPE | SET_ID, libc::S_IFREG)),
    SYS_mknodat(Bits(2, FILE_TYPE | SET_ID, libc::S_IFIFO)),
    SYS_fchmod(Clear(1, SET_ID)),
    SYS_fchmodat(Clear(2, SET_ID)),
    SYS_fchmodat2(Clear(2, SET_ID)),
];

/// Between the processes of a box. It has no network, and whoever builds boxes needs none either.
const SOCKETS: &[Rule] = calls![
    SYS_socket(Is(0, libc::AF_UNIX as u32)),
    SYS_socketpair(Is(0, libc::AF_UNIX as u32)),
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_getsockname,
    SYS_getpeername,
    SYS_sendto,
    SYS_recvfrom,
    SYS_sendmsg,
    SYS_recvmsg,
    SYS_sendmmsg,
    SYS_recvmmsg,
    SYS_shutdown,
    SYS_getsockopt,
    SYS_setsockopt,
];

/// TCP over IPv4, without the kinds of sockets that are TCP in name only. To where, Landlock says, and the
/// network namespace: to one port of its own loopback. No datagrams, so no names are asked for.
const STREAMS: &[Rule] = calls![
    SYS_socket(
        Is(0, libc::AF_INET as u32),
        Bits(1, !SOCKET_FLAGS, libc::SOCK_STREAM as u32),
        Is(2, 0)
    ),
    SYS_socket(
        Is(0, libc::AF_INET as u32),
        Bits(1, !SOCKET_FLAGS, libc::SOCK_STREAM as u32),
        Is(2, libc::IPPROTO_TCP as u32)
    ),
];

/// What may stand in the kind of a socket beside the kind itself.
const SOCKET_FLAGS: u32 = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u32;

const LIMITS: &[Rule] = calls![
    SYS_getrusage,
    SYS_getrlimit,
    SYS_setrlimit,
    SYS_getpriority,
    SYS_setpriority,
    SYS_ioprio_get,
    SYS_ioprio_set,
    // Its own.
    SYS_prlimit64(Is(0, 0)),
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_sched_setaffinity,
    SYS_sched_getparam,
    SYS_sched_setparam,
    SYS_sched_getscheduler,
    SYS_sched_setscheduler,
    SYS_sched_getattr,
    SYS_sched_setattr,
    SYS_sched_get_priority_max,
    SYS_sched_get_priority_min,
    SYS_sched_rr_get_interval,
    SYS_getcpu,
];

/// Older names of calls above.
#[cfg(target_arch = "x86_64")]
const OLD: &[Rule] = calls![
    SYS_fork,
    SYS_vfork,
    SYS_getpgrp,
    SYS_arch_prctl,
    SYS_alarm,
    SYS_pause,
    SYS_time,
    SYS_pipe,
    SYS_dup2,
    SYS_poll,
    SYS_select,
    SYS_epoll_create,
    SYS_epoll_wait,
    SYS_epoll_pwait,
    SYS_eventfd,
    SYS_signalfd,
    SYS_inotify_init,
    SYS_getdents,
    SYS_stat,
    SYS_lstat,
    SYS_readlink,
    SYS_access,
    SYS_rename,
    SYS_link,
    SYS_symlink,
    SYS_unlink,
    SYS_rmdir,
    SYS_utime,
    SYS_utimes,
    SYS_futimesat,
    SYS_chown,
    SYS_lchown,
    SYS_open(Clear(2, SET_ID)),
    SYS_open(Clear(1, MAKES_FILE)),
    SYS_creat(Clear(1, SET_ID)),
    SYS_mkdir(Clear(1, SET_ID)),
    SYS_mknod(Bits(1, FILE_TYPE | SET_ID, 0)),
    SYS_mknod(Bits(1, FILE_TYPE | SET_ID, libc::S_IFREG)),
    SYS_mknod(Bits(1, FILE_TYPE | SET_ID, libc::S_IFIFO)),
    SYS_chmod(Clear(1, SET_ID)),
];
/// There are none on this architecture.
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[Rule] = &[];

/// The flags with which open(2) reads a mode. `O_TMPFILE` has a bit of its own beside that of a folder.
const MAKES_FILE: u32 = (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY) as u32;
/// The part of a mode that says what kind of file it is.
const FILE_TYPE: u32 = libc::S_IFMT;
