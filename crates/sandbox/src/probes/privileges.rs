//! Attacks for more rights: other ids, setuid files, capabilities, higher limits, programs from memory.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{
    CWD, FileType, MemfdFlags, Mode, OFlags, ResolveFlags, XattrFlags, memfd_create, mknodat,
    openat, openat2, setxattr,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Probe;
use super::attempt::Attempt;
use super::calls::{ZERO, c_path, n};
use super::scene::Scene;
use crate::sys::probe::{Arg, call};

/// The name in the workspace of a program that would become somebody else, where root could make one.
pub(super) const SETUID_PROGRAM: &str = "setuid-program";
const MODES: &str = "seccomp: no mode with setuid or setgid";

pub(super) const PROBES: &[Probe] = &[
    Probe::new(
        "become-root",
        "user namespace with one id, which is not 0; no capabilities",
        |_| Attempt::of(call(libc::SYS_setuid, [ZERO])),
        |_| {
            let own = rustix::process::getuid().as_raw();
            Attempt::of(call(libc::SYS_setuid, [n(own)]))
        },
    )
    .throwaway(),
    Probe::new(
        "become-another",
        "user namespace with one id; no capabilities",
        |_| {
            const OTHER: i64 = 0;
            let groups = [0_u8; 4];
            Attempt::any([
                Attempt::of(call(libc::SYS_setresuid, [n(OTHER), n(OTHER), n(OTHER)])),
                Attempt::of(call(libc::SYS_setgid, [n(OTHER)])),
                Attempt::of(call(libc::SYS_setgroups, [n(1), Arg::In(&groups)])),
            ])
        },
        |_| Attempt::through(rustix::process::getgid()),
    )
    .throwaway(),
    Probe::new(
        "capabilities",
        "all five sets are empty, checked before the command starts",
        |_| match rustix::thread::capabilities(None) {
            Ok(sets) if sets.effective.is_empty() && sets.permitted.is_empty() => {
                Attempt::stopped("none")
            }
            Ok(_) => Attempt::through("there are some"),
            Err(error) => Attempt::of(Err::<(), _>(error)),
        },
        |_| Attempt::of(rustix::thread::capabilities(None)),
    )
    .throwaway(),
    Probe::new(
        "clear-no-new-privileges",
        "no_new_privs, which the kernel never takes back",
        |_| {
            let cleared = rustix::thread::set_no_new_privs(false);
            match rustix::thread::no_new_privs() {
                Ok(true) => Attempt::stopped(format_args!("still set: {cleared:?}")),
                Ok(false) => Attempt::through("execve may give privileges"),
                Err(error) => Attempt::of(Err::<(), _>(error)),
            }
        },
        |_| Attempt::of(rustix::thread::no_new_privs()),
    ),
    Probe::new(
        "setuid-program",
        "no_new_privs; nosuid mounts; user namespace with one id",
        setuid_program,
        super::processes::start_and_wait,
    ),
    Probe::new("chmod-setuid", MODES, |_| made(chmod_setuid), plain_mode),
    Probe::new("fchmod-setgid", MODES, |_| made(fchmod_setgid), plain_mode),
    Probe::new(
        "fchmodat2-setuid",
        MODES,
        |_| made(fchmodat2_setuid),
        plain_mode,
    ),
    Probe::new("open-setuid", MODES, |_| made(open_setuid), plain_mode),
    Probe::new("creat-setuid", MODES, |_| made(creat_setuid), plain_mode),
    Probe::new(
        "openat2-setuid",
        "seccomp: openat2 has its modes where no filter sees them, and does not exist",
        |_| made(openat2_setuid),
        plain_mode,
    ),
    Probe::new("tmpfile-setuid", MODES, |_| tmpfile_setuid(), plain_mode),
    Probe::new("mkdir-setgid", MODES, |_| made(mkdir_setgid), plain_mode),
    Probe::new("mknod-setuid", MODES, |_| made(mknod_setuid), plain_mode),
    Probe::new(
        "file-capabilities",
        "no capabilities",
        |_| made(file_capabilities).at("security.capability"),
        plain_mode,
    )
    .throwaway(),
    Probe::new(
        "raise-limits",
        "hard limits, and no capability to raise them",
        |_| raise_limits(),
        |_| {
            let limit = getrlimit(Resource::Nofile);
            Attempt::of(setrlimit(Resource::Nofile, limit))
        },
    ),
    Probe::new(
        "program-from-memory",
        "seccomp: memfd_create does not exist in a box",
        |_| Attempt::of(program_from_memory()),
        super::processes::start_and_wait,
    ),
];

/// Makes a file or folder with a mode that gives away rights, looks whether it has it, and removes it.
fn made(make: fn(&Path) -> io::Result<()>) -> Attempt {
    let name = format!("made-{}", std::process::id());
    let path = Path::new(&name);
    let result = make(path).and_then(|()| Ok(std::fs::metadata(path)?.mode()));
    let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
    match result {
        Ok(mode) if mode & 0o6000 != 0 => {
            Attempt::through(format_args!("mode {:o}", mode & 0o7777))
        }
        Ok(mode) if mode & 0o100 == 0 => Attempt::through("it was set"),
        Ok(mode) => Attempt::stopped(format_args!("only mode {:o}", mode & 0o7777)),
        Err(error) => Attempt::of(Err::<(), _>(error)),
    }
}

fn plain_mode(_: &Scene) -> Attempt {
    let name = format!("plain-{}", std::process::id());
    let set = std::fs::write(&name, "x")
        .and_then(|()| std::fs::set_permissions(&name, std::fs::Permissions::from_mode(0o755)));
    let _ = std::fs::remove_file(&name);
    Attempt::of(set)
}

fn chmod_setuid(path: &Path) -> io::Result<()> {
    std::fs::write(path, "x")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o4755))
}

fn fchmod_setgid(path: &Path) -> io::Result<()> {
    File::create(path)?.set_permissions(std::fs::Permissions::from_mode(0o2755))
}

fn fchmodat2_setuid(path: &Path) -> io::Result<()> {
    std::fs::write(path, "x")?;
    let path = c_path(path)?;
    let at = n(libc::AT_FDCWD);
    call(libc::SYS_fchmodat2, [at, Arg::Text(&path), n(0o4755), ZERO]).map(drop)
}

fn open_setuid(path: &Path) -> io::Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o4755)
        .open(path)
        .map(drop)
}

#[cfg(target_arch = "x86_64")]
fn creat_setuid(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    call(libc::SYS_creat, [Arg::Text(&path), n(0o4755)]).map(drop)
}

#[cfg(not(target_arch = "x86_64"))]
fn creat_setuid(path: &Path) -> io::Result<()> {
    open_setuid(path)
}

fn openat2_setuid(path: &Path) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    openat2(
        CWD,
        path,
        flags,
        Mode::from_raw_mode(0o4755),
        ResolveFlags::empty(),
    )?;
    Ok(())
}

fn tmpfile_setuid() -> Attempt {
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    let opened = openat(CWD, ".", flags, Mode::from_raw_mode(0o4755));
    match opened.and_then(|file| rustix::fs::fstat(&file)) {
        Ok(data) if data.st_mode & 0o6000 != 0 => Attempt::through("an unnamed setuid file"),
        Ok(_) => Attempt::stopped("no setuid bit"),
        Err(error) => Attempt::of(Err::<(), _>(error)),
    }
}

fn mkdir_setgid(path: &Path) -> io::Result<()> {
    // Linux takes no setgid from mkdir(2), only from what follows it.
    std::fs::DirBuilder::new().mode(0o777).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o2777))
}

fn mknod_setuid(path: &Path) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o4755);
    Ok(mknodat(CWD, path, FileType::RegularFile, mode, 0)?)
}

fn file_capabilities(path: &Path) -> io::Result<()> {
    // `struct vfs_cap_data`, revision 2, effective: CAP_SYS_ADMIN, which is number 21.
    let mut value = [0_u8; 20];
    value[..4].copy_from_slice(&0x0200_0001_u32.to_le_bytes());
    value[4..8].copy_from_slice(&(1_u32 << 21).to_le_bytes());
    std::fs::write(path, "x")?;
    setxattr(path, "security.capability", &value, XattrFlags::empty())?;
    Ok(())
}

fn raise_limits() -> Attempt {
    let free = Rlimit {
        current: None,
        maximum: None,
    };
    let all = [
        Resource::Core,
        Resource::Cpu,
        Resource::Data,
        Resource::As,
        Resource::Fsize,
    ];
    Attempt::any(all.map(|which| {
        let raised = setrlimit(which, free);
        Attempt::of(raised).at(format_args!("{which:?}"))
    }))
}

fn program_from_memory() -> io::Result<()> {
    let program = memfd_create("probe", MemfdFlags::empty())?;
    let mut file = File::from(program);
    file.write_all(&std::fs::read("/bin/true")?)?;
    // As long as it can be written it is busy, so it is opened again for reading.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let readable = File::open(&path)?;
    drop(file);
    let fd = rustix::io::dup(&readable)?;
    let status = Command::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(status.to_string())),
    }
}

/// Starts what would become another user, held in the middle of it by a pipe that is full or empty, and
/// looks as whom it runs.
fn setuid_program(_: &Scene) -> Attempt {
    let programs = [
        "./setuid-program",
        "/usr/bin/su",
        "/usr/bin/mount",
        "/usr/bin/passwd",
        "/usr/bin/chsh",
        "/usr/bin/newgrp",
    ];
    let own = rustix::process::getuid().as_raw();
    let other = |path: &&&str| {
        std::fs::metadata(path).is_ok_and(|of| of.mode() & 0o4000 != 0 && of.uid() != own)
    };
    Attempt::any(
        programs
            .iter()
            .filter(other)
            .map(|program| match as_whom(program) {
                Ok(attempt) => attempt.at(program),
                Err(error) => Attempt::of(Err::<(), _>(error)).at(program),
            }),
    )
}

fn as_whom(program: &str) -> io::Result<Attempt> {
    let (_reader, writer) = full_pipe()?;
    let help = if program.starts_with("./") {
        "-"
    } else {
        "--help"
    };
    let mut child = Command::new(program)
        .arg(help)
        .stdin(Stdio::piped())
        .stdout(writer)
        .stderr(Stdio::null())
        .spawn()?;
    let seen = ids_of(&mut child);
    let _ = child.kill();
    child.wait()?;
    Ok(seen)
}

fn full_pipe() -> io::Result<(io::PipeReader, io::PipeWriter)> {
    let (reader, mut writer) = io::pipe()?;
    let flags = rustix::fs::fcntl_getfl(&writer)?;
    rustix::fs::fcntl_setfl(&writer, flags | OFlags::NONBLOCK)?;
    while writer.write(&[0; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags)?;
    Ok((reader, writer))
}

fn ids_of(child: &mut Child) -> Attempt {
    let own = rustix::process::getuid().as_raw().to_string();
    let path = format!("/proc/{}/status", child.id());
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(10));
        let Ok(status) = std::fs::read_to_string(&path) else {
            return Attempt::stopped("it cannot be looked at");
        };
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let ids: Vec<&str> = ids.unwrap_or_default().split_whitespace().collect();
        if ids.get(1).is_some_and(|effective| *effective != own) {
            return Attempt::through(format_args!("it runs as user {}", ids[1]));
        }
    }
    Attempt::stopped("it runs as before")
}
