//! A program's own namespaces, which it enters before it gives up its capabilities.
//!
//! A user namespace needs no privilege, holds nothing but the program's own user and group, and is what the
//! others are made from. What the kernel does not grant of it is an error: no program runs in the machine's
//! namespaces because its own were not to be had.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount,
    mount_change, move_mount, open_tree,
};
use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;

use crate::check;
use crate::confine::Files;
use crate::profiles::Apart;
use crate::sys::{self, Below};

/// What even a program that sees no more than it has to writes to: its own entry in `/proc`, when a box maps
/// its user, and the groups of boxes.
const SYSTEM: [&str; 2] = ["/proc", "/sys/fs/cgroup"];

/// Enters namespaces of its own. The process must have one thread.
pub(crate) fn enter(apart: Apart, files: &Files) -> Result<(), String> {
    let flags = match apart {
        Apart::Nowhere => return Ok(()),
        Apart::User => UnshareFlags::NEWUSER | UnshareFlags::NEWIPC,
        Apart::Network => UnshareFlags::NEWUSER | UnshareFlags::NEWIPC | UnshareFlags::NEWNET,
        Apart::View => {
            UnshareFlags::NEWUSER
                | UnshareFlags::NEWIPC
                | UnshareFlags::NEWNET
                | UnshareFlags::NEWNS
        }
    };
    let (uid, gid) = (geteuid(), getegid());
    sys::unshare(flags)
        .map_err(|error| format!("no namespaces of its own: unshare: {error}. {}", advice()))?;
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &one(uid.as_raw()))?;
    write("/proc/self/gid_map", &one(gid.as_raw()))?;
    match apart {
        Apart::View => view(files).map_err(|error| format!("its view of the files: {error}")),
        Apart::Nowhere | Apart::User | Apart::Network => Ok(()),
    }
}

/// The same id inside as outside, and no other.
fn one(id: u32) -> String {
    format!("{id} {id} 1")
}

/// In one write(2), which these files need.
fn write(path: &str, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| {
        format!(
            "no user namespace of its own: writing {text:?} to {path}: {error}. {}",
            advice()
        )
    })
}

/// What keeps programs from namespaces here, and what to do.
fn advice() -> String {
    match check::obstacle(Path::new("/")) {
        Some(refused) => format!("{}: {}", refused.reason, refused.fix),
        None => "a container or service manager around Bulkhead may forbid them: allow unshare(2) there (systemd: \
                 RestrictNamespaces=no), and as root CAP_SETFCAP, which maps user 0"
            .to_owned(),
    }
}

/// Makes everything read-only but what the program writes to, and covers what is hidden. No namespace that is
/// made from this one can take a cover or the flag off again (mount_namespaces(7), "locked" mounts).
fn view(files: &Files) -> Result<(), String> {
    let failed = |what: &str, path: &Path, error: rustix::io::Errno| {
        format!("{what} {}: {error}", path.display())
    };
    let root = Path::new("/");
    // What is mounted on the host later on comes in here, and nothing of this goes there.
    mount_change(
        root,
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(|error| failed("keeping to itself", root, error))?;
    let own = files.write.iter().map(PathBuf::as_path);
    let own = own
        .chain(SYSTEM.map(Path::new))
        .filter(|path| path.exists());
    let mut writable: Vec<(&Path, OwnedFd)> = Vec::new();
    for path in own {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(CWD, path, flags).map_err(|error| failed("copying", path, error))?;
        writable.push((path, tree));
    }
    let whole = rustix::fs::open(
        root,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|error| failed("opening", root, error))?;
    sys::set_mount_flags(&whole, MountAttrFlags::MOUNT_ATTR_RDONLY, Below::Too)
        .map_err(|error| format!("making it read-only: {error}"))?;
    for (path, tree) in &writable {
        lay(tree, path).map_err(|error| failed("opening for writing", path, error))?;
    }
    for path in files.hide.iter().filter(|path| path.exists()) {
        cover(path).map_err(|error| failed("hiding", path, error))?;
    }
    Ok(())
}

fn lay(tree: &OwnedFd, over: &Path) -> rustix::io::Result<()> {
    move_mount(tree, "", CWD, over, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Puts an empty folder over a folder, and nothing over a file.
fn cover(path: &Path) -> rustix::io::Result<()> {
    if path.is_dir() {
        let flags =
            MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        return mount("tmpfs", path, "tmpfs", flags, Some(c"size=4k,mode=0"));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    lay(&open_tree(CWD, "/dev/null", flags)?, path)
}
