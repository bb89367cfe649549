//! Processes, descriptors, namespaces and mounts.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use crate::layers::{self, Layer};
use rustix::mount::MountAttrFlags;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which side of a fork this is.
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The old one, and the new one's id.
    Parent(Pid),
}

/// Forks a process that has one thread.
pub(crate) fn fork() -> io::Result<Fork> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other("only a process with one thread may fork"));
    }
    // JUSTIFICATION: the box needs a child that goes on in Rust before it execs, with mounts and limits
    // between; Command cannot do that without unsafe code either.
    // SAFETY: no other thread exists (checked above), so no lock is held and no state is half
    // changed in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid)
            .map(Fork::Parent)
            .ok_or_else(|| io::Error::other("fork returned no process id")),
    }
}

/// Closes all descriptors from this number on. For the very start of a process, when none of them is owned.
pub(crate) fn close_from(first: u32) {
    // JUSTIFICATION: no safe wrapper exists, since it closes what others may own.
    // SAFETY: called before anything has been opened; a number that is open belongs to nobody here.
    // It cannot fail for this range.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Leaves every namespace of the parent that a box has of its own.
pub(crate) fn unshare_all() -> io::Result<()> {
    let flags = [
        (UnshareFlags::NEWUSER, Layer::User),
        (UnshareFlags::NEWNS, Layer::Mount),
        (UnshareFlags::NEWPID, Layer::Pid),
        (UnshareFlags::NEWNET, Layer::Net),
        (UnshareFlags::NEWIPC, Layer::Ipc),
        (UnshareFlags::NEWUTS, Layer::Uts),
        (UnshareFlags::NEWCGROUP, Layer::Cgroup),
    ]
    .into_iter()
    .filter(|(_, layer)| layers::on(*layer))
    .fold(UnshareFlags::empty(), |all, (flag, _)| all | flag);
    // JUSTIFICATION: the function is unsafe for the sake of CLONE_FILES, which is not among the flags.
    // SAFETY: the descriptor table stays shared with nobody.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
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
