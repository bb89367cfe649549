//! Attacks on files of the host: reading, writing, linking, devices, and what leaks into the box.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, StatVfsMountFlags, linkat, mknodat, statvfs};

use super::Probe;
use super::attempt::Attempt;
use super::calls::reach;
use super::calls::{NONE, ZERO, n};
use super::scene::{CANARY, SECRET_VARIABLE, Scene};
use crate::sys::probe::{Arg, call};

pub(super) const PROBES: &[Probe] = &[
    Probe::new(
        "read-host-file",
        "own root: the host's files are not there",
        |scene| read_canary(&scene.secret_file),
        read_own,
    ),
    Probe::new(
        "read-homes",
        "own root: no home, no logs, no state of services",
        |_| {
            let folders = [
                "/root", "/home", "/var/log", "/var/lib", "/boot", "/srv", "/opt",
            ];
            Attempt::any(folders.map(|path| Attempt::of(std::fs::read_dir(path)).at(path)))
        },
        read_own,
    ),
    Probe::new(
        "read-kernel-settings",
        "own /proc with processes only; no /sys",
        |scene| {
            let files = ["/proc/cpuinfo", "/proc/kallsyms", "/sys/kernel/notes"];
            let open = |path| Attempt::of(File::open(path)).at(path).on_the_host(scene);
            Attempt::any(std::iter::once(hostname(scene)).chain(files.map(open)))
        },
        |_| Attempt::of(std::fs::read("/proc/self/stat")),
    ),
    Probe::new(
        "write-system-files",
        "own root, read-only; Landlock: only the workspace and /tmp can be written",
        |_| {
            Attempt::any([
                write_file(Path::new("/usr/bin/env")),
                write_file(Path::new("/etc/passwd")),
                write_file(Path::new("/usr/lib/os-release")),
            ])
        },
        write_own,
    ),
    Probe::new(
        "write-sandbox-program",
        "own root: it is not there, or read-only; Landlock",
        |scene| write_program(&scene.helper),
        write_own,
    ),
    Probe::new(
        "write-configuration",
        "own root: it is not there",
        |scene| write_file(&scene.config),
        write_own,
    ),
    Probe::new(
        "write-own-program",
        "the program is mounted read-only; Landlock",
        |scene| {
            Attempt::any([
                write_program(Path::new("/proc/self/exe")),
                write_program(&scene.own_program),
            ])
        },
        write_own,
    ),
    Probe::new(
        "write-kernel-settings",
        "own /proc with processes only; Landlock",
        |_| {
            let files = [
                "/proc/sysrq-trigger",
                "/proc/sys/kernel/core_pattern",
                "/proc/sys/kernel/modprobe",
                "/proc/sys/vm/overcommit_memory",
                "/proc/sys/net/ipv4/ip_default_ttl",
            ];
            Attempt::any(files.map(|path| write_only(Path::new(path)).at(path)))
        },
        write_own,
    )
    .apart(),
    Probe::new(
        "write-sys",
        "own root: /sys is not there",
        |_| {
            let files = [
                "/sys/power/state",
                "/sys/kernel/mm/transparent_hugepage/enabled",
                "/sys/kernel/uevent_helper",
            ];
            Attempt::any(files.map(|path| write_only(Path::new(path)).at(path)))
        },
        write_own,
    )
    .apart(),
    Probe::new(
        "device-nodes",
        "own /dev with nodes that reach no device",
        |scene| {
            let nodes = [
                "/dev/kvm",
                "/dev/mem",
                "/dev/kmsg",
                "/dev/vda",
                "/dev/sda",
                "/dev/nvme0n1",
                "/dev/loop-control",
                "/dev/tty0",
            ];
            // Devices without a thing behind them: every kernel has its own.
            let of_kernels = ["/dev/fuse", "/dev/ptmx"];
            let open = |path| Attempt::of(File::open(path)).at(path);
            let own = of_kernels.map(|path| open(path).on_the_host(scene));
            Attempt::any(nodes.map(open).into_iter().chain(own))
        },
        |_| Attempt::of(File::open("/dev/null").and(File::open("/dev/urandom"))),
    ),
    Probe::new(
        "kernel-log-device",
        "own /dev",
        |_| Attempt::of(File::open("/dev/kmsg")),
        |_| Attempt::of(File::open("/dev/zero")),
    )
    .apart(),
    Probe::new(
        "make-device",
        "seccomp: no device nodes; no capabilities; nodev; Landlock",
        |scene| {
            let path = scene.tmp.join(format!("node-{}", std::process::id()));
            let device = rustix::fs::makedev(1, 3);
            let made = mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR, device);
            let _ = std::fs::remove_file(&path);
            Attempt::any([
                Attempt::of(made),
                // In no folder: whoever may not make nodes learns that the kernel looked.
                reach(
                    libc::SYS_mknodat,
                    [
                        NONE,
                        crate::sys::probe::Arg::Text(c"x"),
                        n(libc::S_IFCHR),
                        n(0x103_i64),
                    ],
                ),
            ])
        },
        |scene| {
            let path = scene.tmp.join(format!("fifo-{}", std::process::id()));
            let made = mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0);
            let _ = std::fs::remove_file(&path);
            Attempt::of(made)
        },
    ),
    Probe::new(
        "hard-link-host-file",
        "own root; the workspace is another mount",
        |scene| {
            let name = format!("hard-link-{}", std::process::id());
            let link = |target: &Path| {
                let made = linkat(CWD, target, CWD, &*name, AtFlags::empty());
                let _ = std::fs::remove_file(&name);
                Attempt::of(made)
            };
            Attempt::any([link(&scene.secret_file), link(Path::new("/usr/bin/env"))])
        },
        |_| {
            let (old, new) = (
                format!("old-{}", std::process::id()),
                format!("new-{}", std::process::id()),
            );
            let made = std::fs::write(&old, "x").and_then(|()| std::fs::hard_link(&old, &new));
            let _ = (std::fs::remove_file(&old), std::fs::remove_file(&new));
            Attempt::of(made)
        },
    ),
    Probe::new(
        "symlink-out",
        "own root: a link in the workspace leads to the box' files",
        |scene| {
            let name = format!("out-{}", std::process::id());
            let read = symlink(&scene.secret_file, &name).map(|()| read_canary(Path::new(&name)));
            let _ = std::fs::remove_file(&name);
            read.unwrap_or_else(|error| Attempt::of(Err::<(), _>(error)))
        },
        read_own,
    ),
    Probe::new(
        "up-and-out",
        "own root: above it is nothing",
        |scene| {
            let up = Path::new("/..").join("..").join("..");
            let below = scene
                .secret_file
                .strip_prefix("/")
                .unwrap_or(&scene.secret_file);
            read_canary(&up.join(below))
        },
        read_own,
    ),
    Probe::new(
        "descriptor-leak",
        "the box' first process closes every descriptor",
        |_| leaked_descriptor(),
        |_| Attempt::of(rustix::io::dup(rustix::stdio::stdout())),
    ),
    Probe::new(
        "environment-leak",
        "the environment is built from a list",
        |_| match std::env::var(SECRET_VARIABLE) {
            Ok(secret) if secret == CANARY => Attempt::through("the secret is in the environment"),
            Ok(_) | Err(_) => Attempt::stopped("not in the environment"),
        },
        |_| match std::env::var("PATH") {
            Ok(path) => Attempt::through(format_args!("PATH={path}")),
            Err(error) => Attempt::stopped(error),
        },
    ),
    Probe::new(
        "shared-memory-of-host",
        "IPC namespace; seccomp: System V memory does not exist in a box",
        |scene| Attempt::of(call(libc::SYS_shmget, [n(scene.shared_memory), ZERO, ZERO])),
        write_own,
    ),
];

fn read_canary(path: &Path) -> Attempt {
    match std::fs::read_to_string(path) {
        Ok(text) if text.starts_with(CANARY) => Attempt::through("the canary was read"),
        Ok(_) => Attempt::stopped("another file is there"),
        Err(error) => Attempt::of(Err::<(), _>(error)),
    }
}

/// Opens for writing, and writes nothing. Where only the file's mode is in the way, whoever owns it could.
fn write_file(path: &Path) -> Attempt {
    let error = match File::options().write(true).open(path) {
        Ok(_) => return Attempt::through(format_args!("{} can be written", path.display())),
        Err(error) => error,
    };
    let writable = on_writable_mount(path);
    match writable && error.raw_os_error() == Some(libc::EACCES) {
        true => Attempt::through(format_args!(
            "only the mode of {} is in the way",
            path.display()
        )),
        false => Attempt::of(Err::<(), _>(error)).at(path.display()),
    }
}

/// The same for a program that runs: that it is busy is no wall, since it ends one day.
fn write_program(path: &Path) -> Attempt {
    let writable = on_writable_mount(path);
    match write_file(path) {
        busy if busy.answer == "ETXTBSY" && writable => Attempt::through("only until it ends"),
        other => other,
    }
}

/// Whether no mount keeps the file from being written, by either of the two ways to ask.
fn on_writable_mount(path: &Path) -> bool {
    let told = statvfs(path).is_ok_and(|of| !of.f_flag.contains(StatVfsMountFlags::RDONLY));
    // gVisor tells it only in the list of mounts.
    told && !listed_read_only(path).unwrap_or(false)
}

fn listed_read_only(path: &Path) -> std::io::Result<bool> {
    let path = path.canonicalize()?;
    Ok(innermost_read_only(
        &std::fs::read_to_string("/proc/self/mounts")?,
        &path,
    ))
}

/// Of the mounts that hold the path the deepest counts, and of those at one place the last.
fn innermost_read_only(mounts: &str, path: &Path) -> bool {
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (at, options) = (fields.nth(1)?, fields.nth(1)?);
        path.starts_with(at).then_some((at.len(), options))
    });
    holding
        .max_by_key(|(depth, _)| *depth)
        .is_some_and(|(_, options)| options.split(',').any(|option| option == "ro"))
}

/// The host's name is the host's by whatever kernel it is told.
fn hostname(scene: &Scene) -> Attempt {
    const PATH: &str = "/proc/sys/kernel/hostname";
    let attempt = Attempt::of(File::open(PATH)).at(PATH);
    match std::fs::read_to_string(PATH) {
        Ok(name) if name.trim() == scene.hostname => attempt,
        Ok(_) | Err(_) => attempt.on_the_host(scene),
    }
}

fn write_only(path: &Path) -> Attempt {
    Attempt::of(File::options().write(true).open(path))
}

fn write_own(scene: &Scene) -> Attempt {
    let path = scene.tmp.join(format!("own-{}", std::process::id()));
    let wrote = std::fs::write(&path, "x").and_then(|()| File::options().write(true).open(&path));
    let _ = std::fs::remove_file(&path);
    Attempt::of(wrote)
}

fn read_own(_: &Scene) -> Attempt {
    let name = format!("read-{}", std::process::id());
    let read = std::fs::write(&name, "x").and_then(|()| std::fs::read(&name));
    let _ = std::fs::remove_file(&name);
    Attempt::of(read)
}

fn leaked_descriptor() -> Attempt {
    const MOST: u32 = 256;
    let holds_canary = |fd: &u32| {
        let mut bytes = [0; CANARY.len()];
        let size = n(CANARY.len() as i64);
        // By its number, since to open it anew is another right. What cannot seek is not read.
        let read = call(
            libc::SYS_pread64,
            [n(*fd), Arg::Out(&mut bytes), size, ZERO],
        );
        read.is_ok() && bytes == CANARY.as_bytes()
    };
    match (3..MOST).find(holds_canary) {
        Some(fd) => Attempt::through(format_args!("descriptor {fd} is a secret file of the host")),
        None => Attempt::stopped("no descriptor of the host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_and_last_mount_tells_whether_a_file_can_be_written() {
        let path = Path::new("/etc/passwd");
        assert!(innermost_read_only("none / 9p ro,trans=fd 0 0\n", path));
        assert!(!innermost_read_only(
            "a / 9p ro 0 0\nb /etc ext4 rw 0 0\n",
            path
        ));
        assert!(innermost_read_only(
            "b /etc ext4 ro 0 0\na / 9p rw 0 0\n",
            path
        ));
        assert!(!innermost_read_only(
            "a / 9p ro 0 0\nb / tmpfs rw 0 0\n",
            path
        ));
        assert!(!innermost_read_only("a /et 9p ro 0 0\n", path));
        assert!(!innermost_read_only("", path));
    }
}
