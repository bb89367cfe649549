//! Groups of system calls that profiles are made of.

use super::Test::{Bits, Clear, Is, Not, Own, Set};
use super::{Rule, calls};

const EXEC: u32 = libc::PROT_EXEC as u32;

/// Every program: memory that is not executable, the descriptors it has, time, its own identity, its end.
pub(super) const BASE: &[Rule] = calls![
    SYS_read,
    SYS_readv,
    SYS_write,
    SYS_writev,
    SYS_close,
    SYS_lseek,
    SYS_fstat,
    SYS_ppoll,
    SYS_pipe2,
    SYS_dup,
    SYS_dup3,
    // No code may come in after the start: what a hijacked program maps, it cannot run.
    SYS_mmap(Clear(2, EXEC)),
    SYS_mprotect(Clear(2, EXEC)),
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_brk,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_restart_syscall,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_gettimeofday,
    SYS_getrandom,
    SYS_getpid,
    SYS_gettid,
    SYS_getppid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    // std asks how many threads are useful, and how long a stack may grow (argument 2: it sets nothing).
    SYS_sched_getaffinity,
    SYS_sched_yield,
    SYS_prlimit64(Is(2, 0)),
    SYS_sysinfo,
    SYS_uname,
    SYS_exit,
    SYS_exit_group,
    // abort(3) signals its own thread; others are not its business.
    SYS_tgkill(Own(0)),
    SYS_fcntl(Is(1, libc::F_DUPFD as u32)),
    SYS_fcntl(Is(1, libc::F_DUPFD_CLOEXEC as u32)),
    SYS_fcntl(Is(1, libc::F_GETFD as u32)),
    SYS_fcntl(Is(1, libc::F_SETFD as u32)),
    SYS_fcntl(Is(1, libc::F_GETFL as u32)),
    SYS_fcntl(Is(1, libc::F_SETFL as u32)),
    // Non-blocking mode, close-on-exec, how much is there, and whether standard error is a terminal.
    SYS_ioctl(Is(1, libc::FIONBIO as u32)),
    SYS_ioctl(Is(1, libc::FIOCLEX as u32)),
    SYS_ioctl(Is(1, libc::FIONREAD as u32)),
    SYS_ioctl(Is(1, libc::TCGETS as u32)),
];

/// std's threads.
pub(super) const THREADS: &[Rule] = calls![
    // A thread and never a process.
    SYS_clone(Set(0, libc::CLONE_THREAD as u32), Clear(0, NEW_NAMESPACES)),
    SYS_futex,
    SYS_set_robust_list,
    SYS_get_robust_list,
    SYS_rseq,
    SYS_set_tid_address,
    SYS_membarrier,
    // Names of threads.
    SYS_prctl(Is(0, libc::PR_SET_NAME as u32)),
    SYS_prctl(Is(0, libc::PR_GET_NAME as u32)),
];

/// Messages over the sockets it was given, descriptors with them included. No socket can be made.
pub(super) const LINKS: &[Rule] = calls![
    SYS_sendmsg,
    SYS_recvmsg,
    SYS_sendto,
    SYS_recvfrom,
    SYS_shutdown,
    SYS_getsockname,
    SYS_getpeername,
    // Time limits of links, and errors.
    SYS_setsockopt(Is(1, libc::SOL_SOCKET as u32)),
    SYS_getsockopt(Is(1, libc::SOL_SOCKET as u32)),
];

/// Taking connections from a listening socket that it was given.
pub(super) const ACCEPT: &[Rule] = calls![SYS_accept4];

/// tokio: readiness of descriptors.
pub(super) const ASYNC: &[Rule] = calls![
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    // TCP_NODELAY and keep-alive of connections it has.
    SYS_setsockopt(Is(1, libc::IPPROTO_TCP as u32)),
    SYS_getsockopt(Is(1, libc::IPPROTO_TCP as u32)),
];

/// Reading files; which, Landlock says.
pub(super) const READ_FILES: &[Rule] = calls![
    SYS_openat,
    SYS_newfstatat,
    SYS_statx,
    SYS_getdents64,
    SYS_readlinkat,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_pread64,
    SYS_preadv,
    SYS_getcwd,
    SYS_fadvise64,
    SYS_fstatfs,
    SYS_statfs,
];

/// Writing files; which, Landlock says. What SQLite and an atomic replacement need.
pub(super) const WRITE_FILES: &[Rule] = calls![
    SYS_pwrite64,
    SYS_pwritev,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fsync,
    SYS_fdatasync,
    SYS_renameat,
    SYS_renameat2,
    SYS_unlinkat,
    SYS_mkdirat(Clear(2, SET_ID)),
    SYS_fchmod(Clear(1, SET_ID)),
    SYS_fchmodat(Clear(2, SET_ID)),
    SYS_umask,
    SYS_flock,
    // SQLite's locks, of the file and of a descriptor.
    SYS_fcntl(Is(1, libc::F_GETLK as u32)),
    SYS_fcntl(Is(1, libc::F_SETLK as u32)),
    SYS_fcntl(Is(1, libc::F_SETLKW as u32)),
    SYS_fcntl(Is(1, libc::F_OFD_GETLK as u32)),
    SYS_fcntl(Is(1, libc::F_OFD_SETLK as u32)),
    SYS_fcntl(Is(1, libc::F_OFD_SETLKW as u32)),
];

/// Writing to files that were opened before the confinement.
pub(super) const OPEN_FILES: &[Rule] = calls![SYS_pwrite64, SYS_ftruncate, SYS_fdatasync];

/// Moving files of any kind as they are, and copying them.
pub(super) const KEEP_FILES: &[Rule] = calls![
    // Below a folder and never through a link. Its flags are in memory, where no filter sees them; what it
    // opens and makes, Landlock says, as for openat.
    SYS_openat2,
    // A step is on the disk before it is true.
    SYS_syncfs,
    // Copies: blocks shared or copied by the kernel, links, fifos, times.
    SYS_ioctl(Is(1, libc::FICLONE as u32)),
    SYS_copy_file_range,
    SYS_symlinkat,
    SYS_linkat,
    SYS_mknodat(Bits(2, libc::S_IFMT, libc::S_IFIFO), Clear(2, SET_ID)),
    SYS_utimensat,
    // Overlayfs' own attributes are taken off what is kept.
    SYS_flistxattr,
    SYS_fgetxattr,
    SYS_fremovexattr,
];

/// Keeping secrets out of the swap.
pub(super) const SECRETS: &[Rule] = calls![SYS_mlock, SYS_mlock2, SYS_munlock];

/// Going out by TCP, and asking a name server by UDP.
pub(super) const NETWORK: &[Rule] = calls![
    SYS_socket(Is(0, libc::AF_INET as u32), Clear(1, RAW_SOCKET)),
    SYS_socket(Is(0, libc::AF_INET6 as u32), Clear(1, RAW_SOCKET)),
    SYS_connect,
    SYS_bind,
    SYS_sendmmsg,
    SYS_recvmmsg,
    SYS_setsockopt(Is(1, libc::IPPROTO_IP as u32)),
    SYS_setsockopt(Is(1, libc::IPPROTO_IPV6 as u32)),
    // Tunnels: one end of each goes to a channel.
    SYS_socketpair(Is(0, libc::AF_UNIX as u32)),
];

/// Bytes from one connection to another without a copy in between.
pub(super) const SPLICE: &[Rule] = calls![
    SYS_splice,
    // The pipe between them holds more than the usual.
    SYS_fcntl(Is(1, libc::F_SETPIPE_SZ as u32)),
];

/// Connecting to a socket by its path.
pub(super) const UNIX: &[Rule] = calls![SYS_socket(Is(0, libc::AF_UNIX as u32)), SYS_connect];

/// The older names of calls above, which the C library still uses here.
#[cfg(target_arch = "x86_64")]
pub(super) const OLD_BASE: &[Rule] = calls![SYS_poll, SYS_arch_prctl, SYS_time];
/// There are none on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OLD_BASE: &[Rule] = &[];

/// Older names for [`ASYNC`].
#[cfg(target_arch = "x86_64")]
pub(super) const OLD_ASYNC: &[Rule] = calls![SYS_epoll_wait];
/// There are none on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OLD_ASYNC: &[Rule] = &[];

/// Older names for [`READ_FILES`].
#[cfg(target_arch = "x86_64")]
pub(super) const OLD_READ_FILES: &[Rule] =
    calls![SYS_open, SYS_stat, SYS_lstat, SYS_access, SYS_readlink];
/// There are none on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OLD_READ_FILES: &[Rule] = &[];

/// Older names for [`WRITE_FILES`].
#[cfg(target_arch = "x86_64")]
pub(super) const OLD_WRITE_FILES: &[Rule] = calls![
    SYS_rename,
    SYS_unlink,
    SYS_rmdir,
    SYS_mkdir(Clear(1, SET_ID)),
    SYS_chmod(Clear(1, SET_ID))
];
/// There are none on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OLD_WRITE_FILES: &[Rule] = &[];

/// clone3 has its flags in memory, where no filter sees them. Told that it does not exist, the C
/// library uses clone.
pub(super) const CLONE3: &[Rule] = calls![SYS_clone3];

/// What nothing needs that Bulkhead starts, boxes included: other processes' memory, the
/// kernel's own programs and modules, its keyrings, clocks and swap, asynchronous calls that no
/// filter sees, and socket families beyond the three.
pub(super) const NOBODY: &[Rule] = calls![
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_kcmp,
    SYS_pidfd_getfd,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    SYS_setns,
    SYS_fanotify_init,
    SYS_fanotify_mark,
    SYS_acct,
    SYS_swapon,
    SYS_swapoff,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_reboot,
    SYS_syslog,
    SYS_vhangup,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_move_pages,
    SYS_migrate_pages,
    SYS_memfd_secret,
    SYS_lookup_dcookie,
    SYS_socket(
        Not(0, libc::AF_UNIX as u32),
        Not(0, libc::AF_INET as u32),
        Not(0, libc::AF_INET6 as u32)
    ),
];

/// [`NOBODY`], of this architecture.
#[cfg(target_arch = "x86_64")]
pub(super) const NOBODY_HERE: &[Rule] = calls![
    SYS_kexec_file_load,
    SYS_iopl,
    SYS_ioperm,
    SYS_modify_ldt,
    SYS_uselib
];
/// [`NOBODY`], of this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const NOBODY_HERE: &[Rule] = &[];

/// Flags of clone(2) that make a namespace. `CLONE_NEWTIME` is not among them: clone(2) reads its bit
/// as a part of the exit signal.
pub(super) const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// The bits of a mode that give a file's owner or group to who executes it.
pub(super) const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;

/// Stream is 1 and datagram 2; raw is 3, and the kinds from 4 on have this bit.
const RAW_SOCKET: u32 = 4;
