//! What there is to reach outside of a box: set up before the attacks, taken away after.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::FdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Signal, kill_process};

use super::calls::{ZERO, n};
use super::limits::BOUNDS;
use super::network::SMUGGLER;
use super::privileges::SETUID_PROGRAM;
use super::scene::{CANARY, Kernel, Scene, Side};
use crate::native::{facts, mounts};
use crate::sys::probe::call;

/// Everything that is set up.
pub(super) struct Outside {
    /// The scene for attacks in the box.
    pub(super) inside: Scene,
    /// The scene for the same outside.
    pub(super) outside: Scene,
    /// The workspace of the boxes.
    pub(super) workspace: PathBuf,
    /// The folder where attacks outside work.
    pub(super) ground: PathBuf,
    folder: PathBuf,
    victim: Child,
    shared_memory: usize,
    _leak: File,
}

impl Outside {
    /// Sets up.
    pub(super) fn new(helper: &Path, config: &Path) -> io::Result<Self> {
        let mark = mark()?;
        let folder = std::env::temp_dir().join(&mark);
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let at = |name: &str| folder.join(name);
        for name in ["workspace", "ground"] {
            std::fs::create_dir(at(name))?;
        }
        let tmp = in_memory(&mark).unwrap_or_else(|_| at("ground/tmp"));
        std::fs::create_dir_all(&tmp)?;
        let secret = at("secret");
        std::fs::write(&secret, CANARY)?;
        let config = if config.is_file() {
            config.to_owned()
        } else {
            stand_in_config(&folder)?
        };
        for place in [at("workspace"), at("ground")] {
            smuggle(&place.join(SMUGGLER), &secret)?;
            setuid_program(&place)?;
        }
        let (victim, canary_at) = victim()?;
        let key = i32::try_from(std::process::id()).unwrap_or(1) ^ 0x4248_0000;
        let create = n(libc::IPC_CREAT | libc::IPC_EXCL | 0o600);
        let shared_memory = call(libc::SYS_shmget, [n(key), n(4096), create])?;
        let outside = Scene {
            side: Side::Outside,
            victim: i32::try_from(victim.id()).map_err(io::Error::other)?,
            init: i32::try_from(victim.id()).map_err(io::Error::other)?,
            canary_at,
            tcp: greet_tcp()?,
            udp: echo()?,
            dns: echo()?,
            abstract_socket: greet(
                UnixListener::bind_addr(&UnixAddress::from_abstract_name(&mark)?)?,
                mark.clone(),
            ),
            path_socket: greet(UnixListener::bind(at("socket"))?, at("socket")),
            secret_file: secret.clone(),
            helper: helper.to_owned(),
            config,
            own_program: std::env::current_exe()?,
            tmp,
            shared_memory: key,
            namespaces: facts::namespaces()?,
            kernel: Kernel::own(),
            hostname: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            bounds: BOUNDS,
            mark,
        };
        let inside = Scene {
            side: Side::Inside,
            init: 1,
            own_program: mounts::TOOL.into(),
            tmp: "/tmp".into(),
            ..outside.clone()
        };
        let leak = File::open(&secret)?;
        rustix::io::fcntl_setfd(&leak, FdFlags::empty())?;
        Ok(Self {
            inside,
            outside,
            workspace: at("workspace"),
            ground: at("ground"),
            victim,
            shared_memory,
            folder,
            _leak: leak,
        })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        const REMOVE: i64 = 0;
        let id = i64::try_from(self.shared_memory).unwrap_or(-1);
        let _ = call(libc::SYS_shmctl, [n(id), n(REMOVE), ZERO]);
        let _ = self.victim.kill();
        let _ = self.victim.wait();
        let _ = std::fs::remove_dir_all(&self.outside.tmp);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A folder on a tmpfs, as a box' `/tmp` is: ten thousands of names take a busy disk minutes.
fn in_memory(mark: &str) -> io::Result<PathBuf> {
    let folder = Path::new("/dev/shm").join(mark);
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}

/// A word that no other run has.
fn mark() -> io::Result<String> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(io::Error::other)?;
    Ok(format!(
        "bulkhead-probe-{}-{}",
        std::process::id(),
        now.as_nanos()
    ))
}

/// Where there is no configuration, its like.
fn stand_in_config(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join("bulkhead.toml");
    std::fs::write(&path, "# nothing is configured\n")?;
    Ok(path)
}

fn victim() -> io::Result<(Child, usize)> {
    let mut child = Command::new("/proc/self/exe")
        .arg("victim")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let address = line.trim().parse().map_err(io::Error::other)?;
    Ok((child, address))
}

/// A program that becomes another user; only root can make one.
fn setuid_program(folder: &Path) -> io::Result<()> {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let path = folder.join(SETUID_PROGRAM);
    std::fs::copy("/bin/cat", &path)?;
    std::os::unix::fs::chown(&path, Some(NOBODY), None)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755))
}

fn greet_tcp() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut stream| {
            // Whoever does not listen is not greeted.
            let _ = stream.write_all(CANARY.as_bytes());
        });
    });
    Ok(address)
}

fn echo() -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..length], from);
        }
    });
    Ok(address)
}

fn greet<T>(listener: UnixListener, name: T) -> T {
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut stream| {
            let _ = stream.write_all(CANARY.as_bytes());
        });
    });
    name
}

/// Gives a descriptor of the secret to whoever connects.
fn smuggle(at: &Path, secret: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(at)?;
    let secret = OwnedFd::from(File::open(secret)?);
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|stream| {
            let _ = give(&stream, &secret);
        });
    });
    Ok(())
}

fn give(stream: &UnixStream, secret: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [secret.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(
        stream,
        &[IoSlice::new(b"x")],
        &mut control,
        SendFlags::empty(),
    )?;
    Ok(())
}

/// The processes that carry a mark and run this probe, as the host sees them.
pub(super) fn marked(mark: &str, name: &str) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let carries = |pid: &i32| {
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
            return false;
        };
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.get(1) == Some(&b"one".as_slice())
            && words.get(4) == Some(&name.as_bytes())
            && words[2]
                .windows(mark.len())
                .any(|part| part == mark.as_bytes())
    };
    numbers.filter(carries).filter_map(Pid::from_raw).collect()
}

/// Ends what is left of a probe.
pub(super) fn end(mark: &str, name: &str) {
    for pid in marked(mark, name) {
        let _ = kill_process(pid, Signal::KILL);
    }
}
