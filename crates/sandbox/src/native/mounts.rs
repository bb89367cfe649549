//! The root of a box: read-only, made of the host's `/usr` and a few files, with the workspace.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use protocol::workspace::LayerFolders;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount_change, move_mount, open_tree, unmount,
};

use super::parts;
use super::spec::{BoxSpec, Failure};
use super::way::{AUTHORITIES, Way};
use crate::ablation::{self, Layer};
use crate::sys;

/// Where the program of the built-in tools is inside.
pub(crate) const TOOL: &str = "/run/bulkhead/tool";
/// Where the workspace is inside.
pub(crate) const WORKSPACE: &str = protocol::call::WORKSPACE;

/// Device nodes that programs need and that reach no device.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// Links that programs expect in `/dev`. Shared memory is `/tmp`, so that one size bounds both.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("shm", "/tmp"),
];
/// Folders of the host's root that are a part of `/usr`, or were once.
pub(super) const USR_PARTS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Public folders of `/etc`: which of several programs a name means, and root certificates.
pub(super) const ETC_FOLDERS: [&str; 2] = ["alternatives", "ssl/certs"];
/// Public files of `/etc`: where libraries are, which zone the clock is in, how OpenSSL is set up.
pub(super) const ETC_FILES: [&str; 3] = ["ld.so.cache", "localtime", "ssl/openssl.cnf"];
/// The longest file of `/etc` that is copied.
const MAX_ETC_FILE: u64 = 4 * 1024 * 1024;
/// Size of the root's own tmpfs: the copies of [`ETC_FILES`] and names.
const ROOT_SIZE: &str = "16m";
/// The most files in `/tmp`.
const TMP_FILES: &str = "65536";

/// Builds the root and makes it this process' root. Afterwards nothing else of the host is
/// mounted in this namespace.
pub(crate) fn build(spec: &BoxSpec, way: &Way) -> Result<(), Failure> {
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(Failure::at("separating the mounts of the box"))?;
    let read_only = read_only();
    let workspace = workspace(spec)?;
    let tool = tree(&spec.tool_program, read_only)?;
    let usr = tree(Path::new("/usr"), read_only)?;
    let etc = read_etc()?;

    // Any folder that surely exists will do as the place; it is left behind with the old root.
    let root = tmpfs("0755", ROOT_SIZE, "4096")?;
    attach(&root, "/usr")?;
    rustix::process::chdir("/usr").map_err(Failure::at("entering the new root"))?;

    attach_new_folder(&usr, "usr")?;
    usr_parts()?;
    write_etc(&etc)?;
    devices()?;
    attach_new_folder(&proc()?, "proc")?;
    attach_new_folder(
        &tmpfs("1777", &spec.limits.tmp_bytes.to_string(), TMP_FILES)?,
        "tmp",
    )?;
    attach_new_folder(&workspace, relative(WORKSPACE))?;
    folder("run/bulkhead")?;
    attach_new_file(&tool, relative(TOOL))?;
    if !way.authorities().is_empty() {
        file(relative(AUTHORITIES), way.authorities().as_bytes(), 0o444)?;
    }
    folder("var")?;
    link("/tmp", "var/tmp")?;
    link("/run", "var/run")?;

    rustix::process::pivot_root(".", ".").map_err(Failure::at("changing the root"))?;
    if ablation::on(Layer::Root) {
        unmount(".", UnmountFlags::DETACH).map_err(Failure::at("leaving the host's root"))?;
    }
    rustix::process::chdir("/").map_err(Failure::at("entering the new root"))?;
    sys::set_mount_flags(&root, read_only, sys::Below::Not)
        .map_err(Failure::at("making the root read-only"))
}

/// What makes a mount read-only.
fn read_only() -> MountAttrFlags {
    match ablation::on(Layer::ReadOnly) {
        true => MountAttrFlags::MOUNT_ATTR_RDONLY,
        false => MountAttrFlags::empty(),
    }
}

/// The workspace as the box sees it. Whatever the box writes goes to its layer.
fn workspace(spec: &BoxSpec) -> Result<OwnedFd, Failure> {
    match &spec.layer {
        LayerFolders::Overlay { .. } if !ablation::on(Layer::Overlay) => {
            tree(&spec.workspace, MountAttrFlags::empty())
        }
        LayerFolders::Overlay { upper, work } => overlay(&spec.workspace, upper, work),
        LayerFolders::Copy { folder } => tree(folder, MountAttrFlags::empty()),
    }
}

/// The kernel's documentation, filesystems/overlayfs.
fn overlay(lower: &Path, upper: &Path, work: &Path) -> Result<OwnedFd, Failure> {
    let folder = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, path, flags, Mode::empty())
            .map_err(Failure::at(format!("opening {}", path.display())))
    };
    let (lower, upper, work) = (folder(lower)?, folder(upper)?, folder(work)?);
    // The options take names; these mean the folders that were opened, whatever they are called.
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let make = || {
        let config = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in [
            ("lowerdir", name(&lower).as_str()),
            ("upperdir", &name(&upper)),
            ("workdir", &name(&work)),
            // Nothing in the layer may lead elsewhere: each entry holds what it shows.
            ("index", "off"),
            ("metacopy", "off"),
            ("xino", "off"),
        ] {
            fsconfig_set_string(&config, key, value)?;
        }
        // Its own attributes in names that need no privilege.
        fsconfig_set_flag(&config, "userxattr")?;
        // A layer is synced when it is kept, and otherwise never.
        fsconfig_set_flag(&config, "volatile")?;
        fsconfig_create(&config)?;
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        fsmount(&config, FsMountFlags::FSMOUNT_CLOEXEC, flags)
    };
    make().map_err(Failure::at(OVERLAY))
}

/// What is being done when a file system cannot take a layer.
pub(crate) const OVERLAY: &str = "laying a layer over the workspace";

/// A copy of the mount at a path of the host, and of those below it, without setuid and devices.
fn tree(path: &Path, more: MountAttrFlags) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let handle =
        open_tree(CWD, path, flags).map_err(Failure::at(format!("opening {}", path.display())))?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | more;
    sys::set_mount_flags(&handle, flags, sys::Below::Too).map_err(Failure::at(format!(
        "restricting the mount of {}",
        path.display()
    )))?;
    Ok(handle)
}

fn tmpfs(mode: &str, size: &str, files: &str) -> Result<OwnedFd, Failure> {
    let make = || {
        let config = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in [("mode", mode), ("size", size), ("nr_inodes", files)] {
            fsconfig_set_string(&config, key, value)?;
        }
        fsconfig_create(&config)?;
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        fsmount(&config, FsMountFlags::FSMOUNT_CLOEXEC, flags)
    };
    make().map_err(Failure::at("making a tmpfs"))
}

/// Processes of the box and nothing else: no kernel settings, and none of a process that may not be looked into.
fn proc() -> Result<OwnedFd, Failure> {
    let make = || {
        let config = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        if ablation::on(Layer::Proc) {
            fsconfig_set_string(&config, "subset", "pid")?;
            // Not "invisible": that shows everything to the group 0 of the host, which root's boxes have.
            fsconfig_set_string(&config, "hidepid", "ptraceable")?;
        }
        fsconfig_create(&config)?;
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        fsmount(&config, FsMountFlags::FSMOUNT_CLOEXEC, flags)
    };
    make().map_err(Failure::at("mounting /proc"))
}

fn attach(mount: &OwnedFd, at: &str) -> Result<(), Failure> {
    move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(Failure::at(format!("mounting /{}", relative(at))))
}

fn attach_new_folder(mount: &OwnedFd, at: &str) -> Result<(), Failure> {
    folder(at)?;
    attach(mount, at)
}

fn attach_new_file(mount: &OwnedFd, at: &str) -> Result<(), Failure> {
    file(at, b"", 0o400)?;
    attach(mount, at)
}

/// `/bin`, `/lib` and so on, links or folders like the host's.
fn usr_parts() -> Result<(), Failure> {
    for name in USR_PARTS {
        let on_host = Path::new("/").join(name);
        match fs::read_link(&on_host) {
            Ok(target) => link(target, name)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                attach_new_folder(&tree(&on_host, read_only())?, name)?;
            }
            Err(error) => return Err(Failure::at(format!("reading /{name}"))(error)),
        }
    }
    Ok(())
}

/// What of the host's `/etc` goes into the box.
struct Etc {
    files: Vec<(&'static str, Vec<u8>)>,
    folders: Vec<(&'static str, OwnedFd)>,
}

fn read_etc() -> Result<Etc, Failure> {
    let mut etc = Etc {
        files: Vec::new(),
        folders: Vec::new(),
    };
    for name in ETC_FILES {
        let path = Path::new("/etc").join(name);
        match fs::metadata(&path) {
            Ok(data) if data.is_file() && data.len() <= MAX_ETC_FILE => {
                let content =
                    fs::read(&path).map_err(Failure::at(format!("reading {}", path.display())))?;
                etc.files.push((name, content));
            }
            // Programs do without any of these.
            Ok(_) | Err(_) => {}
        }
    }
    for name in ETC_FOLDERS {
        let path = Path::new("/etc").join(name);
        if path.is_dir() {
            etc.folders.push((name, tree(&path, read_only())?));
        }
    }
    Ok(etc)
}

fn write_etc(etc: &Etc) -> Result<(), Failure> {
    folder("etc/ssl")?;
    for (name, content) in parts::names() {
        file(&format!("etc/{name}"), content.as_bytes(), 0o444)?;
    }
    for (name, content) in &etc.files {
        file(&format!("etc/{name}"), content, 0o444)?;
    }
    for (name, folder) in &etc.folders {
        attach_new_folder(folder, &format!("etc/{name}"))?;
    }
    link("../usr/lib/os-release", "etc/os-release")?;
    link("/proc/self/mounts", "etc/mtab")
}

fn devices() -> Result<(), Failure> {
    folder("dev")?;
    for name in DEVICES {
        let on_host = PathBuf::from(format!("/dev/{name}"));
        // Read-only for the node, not for the device: as root, the box would own the host's node. And not
        // "nodev", or it could not be opened.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let node =
            open_tree(CWD, &on_host, flags).map_err(Failure::at(format!("opening /dev/{name}")))?;
        let flags =
            read_only() | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        sys::set_mount_flags(&node, flags, sys::Below::Not)
            .map_err(Failure::at(format!("restricting the mount of /dev/{name}")))?;
        attach_new_file(&node, &format!("dev/{name}"))?;
    }
    DEVICE_LINKS
        .iter()
        .try_for_each(|(name, target)| link(target, format!("dev/{name}")))
}

fn folder(at: impl AsRef<Path>) -> Result<(), Failure> {
    let at = at.as_ref();
    fs::create_dir_all(at).map_err(Failure::at(format!("making /{}", at.display())))
}

/// In a folder that is there. The umask lets the modes here through.
fn file(at: &str, content: &[u8], mode: u32) -> Result<(), Failure> {
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(at)?;
        io::Write::write_all(&mut file, content)
    };
    write().map_err(Failure::at(format!("writing /{at}")))
}

fn link(target: impl AsRef<Path>, at: impl AsRef<Path>) -> Result<(), Failure> {
    let at = at.as_ref();
    symlink(target, at).map_err(Failure::at(format!("linking /{}", at.display())))
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}
