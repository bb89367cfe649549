//! Attacks on the box' walls: new namespaces, old ones, mounts, roots, names, control groups.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsOpenFlags, MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, fsopen, mount,
    mount_change, open_tree, unmount,
};
use rustix::thread::UnshareFlags;

use super::Probe;
use super::attempt::Attempt;
use super::calls::{BAD, NONE, ZERO, n, reach};
use super::processes::start_and_wait;
use super::scene::Scene;
use crate::sys::probe::{call, clone_with, clone3_with};
use crate::sys::unshare;

pub(super) const PROBES: &[Probe] = &[
    Probe::new(
        "unshare-user",
        "seccomp: unshare is not on the list; max_user_namespaces is 0 in the box",
        |_| Attempt::of(unshare(UnshareFlags::NEWUSER)),
        start_and_wait,
    ),
    Probe::new(
        "clone-user",
        "seccomp: clone without flags for namespaces; max_user_namespaces is 0 in the box",
        |_| Attempt::of(clone_with(libc::CLONE_NEWUSER)),
        |_| Attempt::of(clone_with(0)),
    ),
    Probe::new(
        "clone3-user",
        "seccomp: clone3 has its flags where no filter sees them, and does not exist; max_user_namespaces is 0",
        |_| Attempt::of(clone3_with(libc::CLONE_NEWUSER)),
        start_and_wait,
    ),
    Probe::new(
        "unshare-others",
        "no capabilities; seccomp: unshare is not on the list",
        |_| Attempt::of(unshare(UnshareFlags::NEWNS)),
        start_and_wait,
    )
    .throwaway(),
    Probe::new(
        "setns",
        "seccomp: setns is not on the list; no capabilities",
        |_| {
            let join = || {
                let own = File::open("/proc/self/ns/uts")?;
                call(libc::SYS_setns, [n(own.as_raw_fd()), ZERO])
            };
            Attempt::of(join())
        },
        start_and_wait,
    )
    .throwaway(),
    Probe::new(
        "shares-a-namespace",
        "all seven namespaces are the box' own, checked before the command starts",
        shared,
        start_and_wait,
    ),
    Probe::new(
        "mount",
        "no capabilities; seccomp: mount is not on the list",
        |_| Attempt::of(mount("none", "/tmp", c"tmpfs", MountFlags::empty(), None)),
        write_tmp,
    )
    .throwaway(),
    Probe::new(
        "remount-writable",
        "no capabilities; seccomp: mount is not on the list; mounts are locked",
        |_| {
            let flags = MountPropagationFlags::PRIVATE;
            Attempt::of(mount_change("/", flags))
        },
        write_tmp,
    )
    .throwaway(),
    Probe::new(
        "umount",
        "no capabilities; seccomp: umount2 is not on the list",
        |_| {
            Attempt::any([
                Attempt::reaching(unmount("/tmp", UnmountFlags::DETACH)),
                Attempt::reaching(unmount("/proc", UnmountFlags::DETACH)),
            ])
        },
        write_tmp,
    )
    .throwaway(),
    Probe::new(
        "pivot-root",
        "no capabilities; seccomp: pivot_root is not on the list",
        |_| Attempt::reaching(rustix::process::pivot_root("/", "/")),
        |_| Attempt::of(rustix::process::chdir("/")),
    )
    .throwaway(),
    Probe::new(
        "chroot",
        "no capabilities; seccomp: chroot is not on the list",
        |_| Attempt::of(rustix::process::chroot("/")),
        |_| Attempt::of(rustix::process::chdir("/")),
    )
    .throwaway(),
    Probe::new(
        "open-tree",
        "no capabilities; seccomp: open_tree is not on the list",
        |_| {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE;
            Attempt::of(open_tree(CWD, "/", flags))
        },
        |_| Attempt::of(std::fs::read_dir("/")),
    )
    .throwaway(),
    Probe::new(
        "fsopen",
        "no capabilities; seccomp: fsopen is not on the list",
        |_| Attempt::of(fsopen("tmpfs", FsOpenFlags::empty())),
        |_| Attempt::of(rustix::fs::statfs("/tmp")),
    )
    .throwaway(),
    Probe::new(
        "mount-calls",
        "seccomp: move_mount, mount_setattr, fspick, fsmount and fsconfig are not on the list; no capabilities",
        |_| {
            Attempt::any([
                reach(libc::SYS_move_mount, [NONE, BAD, NONE, BAD, ZERO]),
                reach(libc::SYS_mount_setattr, [NONE, BAD, ZERO, BAD, n(32)]),
                reach(libc::SYS_fspick, [NONE, BAD, ZERO]),
                reach(libc::SYS_fsmount, [NONE, ZERO, ZERO]),
                reach(libc::SYS_fsconfig, [NONE, ZERO, BAD, BAD, ZERO]),
            ])
        },
        |_| Attempt::of(std::fs::read("/proc/self/mountinfo")),
    )
    .throwaway(),
    Probe::new(
        "sethostname",
        "seccomp: sethostname is not on the list; no capabilities",
        |_| Attempt::of(rustix::system::sethostname(b"taken")),
        |_| Attempt::through(rustix::system::uname().nodename().to_string_lossy()),
    )
    .throwaway(),
    Probe::new(
        "setdomainname",
        "seccomp: setdomainname is not on the list; no capabilities",
        |_| Attempt::of(rustix::system::setdomainname(b"taken")),
        |_| Attempt::through(rustix::system::uname().release().to_string_lossy()),
    )
    .throwaway(),
    Probe::new(
        "cgroup-files",
        "own root: /sys is not there; cgroup namespace",
        |scene| {
            let join = |path: &str| {
                Attempt::of(File::options().write(true).open(Path::new(path)))
            };
            Attempt::any([
                join("/sys/fs/cgroup/cgroup.procs"),
                join("/sys/fs/cgroup/unified/cgroup.procs"),
                join("/sys/fs/cgroup/memory/cgroup.procs"),
                Attempt::of(std::fs::read_dir("/sys/fs/cgroup"))
                    .at("listing")
                    .on_the_host(scene),
            ])
        },
        |_| Attempt::of(std::fs::read("/proc/self/cgroup")),
    ),
    Probe::new(
        "cgroup-mount",
        "no capabilities; seccomp: mount is not on the list",
        |_| {
            let flags = MountFlags::empty();
            Attempt::any([
                Attempt::reaching(mount("none", "/usr", c"cgroup2", flags, None)),
                Attempt::reaching(mount("none", "/usr", c"cgroup", flags, Some(c"memory"))),
            ])
        },
        |_| Attempt::of(std::fs::read("/proc/self/cgroup")),
    )
    .throwaway(),
];

fn shared(scene: &Scene) -> Attempt {
    let same = |(name, inode): &&(String, u64)| {
        std::fs::metadata(format!("/proc/self/ns/{name}")).is_ok_and(|own| own.ino() == *inode)
    };
    let names: Vec<&str> = scene
        .namespaces
        .iter()
        .filter(same)
        .map(|(name, _)| name.as_str())
        .collect();
    match names.as_slice() {
        [] => Attempt::stopped("none is the host's"),
        names => Attempt::through(format_args!("the host's: {}", names.join(", "))),
    }
}

fn write_tmp(scene: &Scene) -> Attempt {
    let path = scene.tmp.join(format!("written-by-{}", std::process::id()));
    let wrote = std::fs::write(&path, "x");
    let _ = std::fs::remove_file(&path);
    Attempt::of(wrote)
}
