//! Processes, descriptors, namespaces and mounts.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

use rustix::mount::MountAttrFlags;
use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use crate::ablation::{self, Layer};

/// Starts a process in this one's memory and waits until it has become another program or has ended. `child`
/// runs in it, and what it returns is its exit code. So a box is started without a second copy of init's memory.
///
/// Not vfork(2): who waits there counts as load of the machine, and a box that is kept ready waits long.
pub(crate) fn start_sharing(child: impl FnOnce() -> u8) -> io::Result<Pid> {
    /// Enough to read what is said of a process and to write it down.
    const STACK: usize = 512 * 1024;
    extern "C" fn enter<F: FnOnce() -> u8>(child: *mut libc::c_void) -> libc::c_int {
        // JUSTIFICATION: clone(2) takes one pointer.
        // SAFETY: it is that to the caller's own, which lives until this process no longer uses its memory.
        let child = unsafe { &mut *child.cast::<Option<F>>() };
        child.take().map_or(1, |child| child().into())
    }
    fn entry<F: FnOnce() -> u8>(_: &F) -> extern "C" fn(*mut libc::c_void) -> libc::c_int {
        enter::<F>
    }
    one_thread()?;
    let entry = entry(&child);
    let mut child = Some(child);
    let mut stack: Vec<u128> = Vec::with_capacity(STACK / size_of::<u128>());
    // It closes when the child becomes another program, and when it ends.
    let (left, inside) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let flags = libc::CLONE_VM | libc::SIGCHLD;
    // JUSTIFICATION: fork copies the page tables, and each page that either side then writes to.
    // SAFETY: no other thread exists (checked above). Until the child has left this memory this one only waits
    // below, by system calls that touch nothing but a byte of its own stack (rustix makes them itself, without
    // the C library's errno), so nobody else uses what the child uses. The stack grows down from its end, is
    // aligned to 16 bytes, and belongs to nobody else. A panic in the child does not leave `enter`: extern "C"
    // ends the process.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(stack.capacity());
        libc::clone(entry, top.cast(), flags, (&raw mut child).cast())
    };
    if pid == -1 {
        return Err(io::Error::last_os_error());
    }
    drop(inside);
    let mut byte = [0_u8];
    while rustix::io::read(&left, &mut byte) == Err(rustix::io::Errno::INTR) {}
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("clone returned no process id"))
}

/// Leaves some namespaces.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::Error::other("not the descriptors"));
    }
    // JUSTIFICATION: the function is unsafe for the sake of CLONE_FILES, which is refused above.
    // SAFETY: the descriptor table stays as it is.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Has the kernel take this thread for root where it asks whose a file is, and only there, setfsuid(2). It takes
/// `CAP_SETUID` and `CAP_SETGID`, and lasts until the next change of ids or execve(2).
pub(crate) fn files_as_root() -> io::Result<()> {
    /// No id at all: what there is stays, and is told.
    const ASK: u32 = u32::MAX;
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: the calls take and return numbers and touch no memory.
    let now = unsafe {
        libc::setfsgid(0);
        libc::setfsuid(0);
        (libc::setfsgid(ASK), libc::setfsuid(ASK))
    };
    match now {
        (0, 0) => Ok(()),
        // They tell no error.
        _ => Err(io::Error::from_raw_os_error(libc::EPERM)),
    }
}

/// Ends a process that goes on in a copy of another's memory, without what that one wanted done at its end.
pub(crate) fn exit_now(code: i32) -> ! {
    // JUSTIFICATION: std's exit runs the handlers of the process that this is a copy of.
    // SAFETY: _exit(2) never returns and runs nothing of this process.
    unsafe { libc::_exit(code) }
}

/// Which side of [`clone_into_namespaces`] this is.
pub(crate) enum Cloned {
    /// Process 1 of namespaces of its own, with no user or group mapped yet.
    Child,
    /// The old process; the new one's id in its own namespace, and a handle on it.
    Parent(Pid, OwnedFd),
}

/// Forks a process that has one thread, as the first of its own namespaces, all but that of cgroups. It
/// dies by SIGKILL alone, as every process 1 does.
pub(crate) fn clone_into_namespaces() -> io::Result<Cloned> {
    one_thread()?;
    let flags = [
        (libc::CLONE_NEWUSER, Layer::User),
        (libc::CLONE_NEWNS, Layer::Mount),
        (libc::CLONE_NEWPID, Layer::Pid),
        (libc::CLONE_NEWNET, Layer::Net),
        (libc::CLONE_NEWIPC, Layer::Ipc),
        (libc::CLONE_NEWUTS, Layer::Uts),
    ]
    .into_iter()
    .filter(|(_, layer)| ablation::on(*layer))
    .fold(libc::CLONE_PIDFD | libc::SIGCHLD, |all, (flag, _)| {
        all | flag
    });
    let mut handle: libc::c_int = -1;
    // JUSTIFICATION: the C library's fork takes no namespaces, and unshare(2) would take a second process.
    // SAFETY: without a stack and CLONE_VM this is fork(2): the child goes on with a copy of the memory, and no
    // other thread exists (checked above), so no lock is held. With CLONE_PIDFD the kernel writes a
    // descriptor to the third argument, which lives over the call; the others are unused.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_ulong::from(flags.cast_unsigned()),
            0_usize,
            &raw mut handle,
            0_usize,
            0_usize,
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => {
            // JUSTIFICATION: the kernel made the descriptor for this call.
            // SAFETY: it is open, and nothing else owns it.
            let handle = unsafe { OwnedFd::from_raw_fd(handle) };
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| io::Error::other("clone returned no process id"))?;
            Ok(Cloned::Parent(pid, handle))
        }
    }
}

/// Has the kernel reap this process' children, whose end their handles tell.
pub(crate) fn reap_children_unasked() -> io::Result<()> {
    // JUSTIFICATION: no safe wrapper exists.
    // SAFETY: SIG_IGN installs no handler.
    match unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

pub(super) fn one_thread() -> io::Result<()> {
    match std::fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        _ => Err(io::Error::other("only a process with one thread may fork")),
    }
}

/// Closes all descriptors from this number on. For the very start of a process, when none of them is owned.
pub(crate) fn close_from(first: u32) {
    // JUSTIFICATION: no safe wrapper exists, since it closes what others may own.
    // SAFETY: called before anything has been opened; a number that is open belongs to nobody here.
    // It cannot fail for this range.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Whether the mounts below are meant too.
#[derive(Clone, Copy)]
pub(crate) enum Below {
    /// This one and all below.
    Too,
    /// This one only.
    Not,
}

/// Adds flags to a mount, mount_setattr(2).
pub(crate) fn set_mount_flags(
    mount: impl AsFd,
    flags: MountAttrFlags,
    below: Below,
) -> io::Result<()> {
    /// `struct mount_attr`
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr {
        set: u64::from(flags.bits()),
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let at = match below {
        Below::Too => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
        Below::Not => libc::AT_EMPTY_PATH,
    };
    let fd = mount.as_fd().as_raw_fd();
    // JUSTIFICATION: neither rustix nor libc has it.
    // SAFETY: the path is a C string, and the struct is as long as its size says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            at,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
