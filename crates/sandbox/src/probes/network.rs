//! Attacks by socket.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::Probe;
use super::attempt::Attempt;
use super::calls::{ZERO, n};
use super::scene::{CANARY, Scene};
use crate::sys::probe::call;

/// The name of the socket in the workspace where a process of the host gives a descriptor away.
pub(super) const SMUGGLER: &str = "smuggler";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) const PROBES: &[Probe] = &[
    Probe::new(
        "tcp-connect",
        "seccomp: unix sockets only; network namespace without an interface; Landlock: no TCP",
        |scene| tcp(scene.tcp),
        pair,
    ),
    Probe::new(
        "tcp-listen",
        "seccomp: unix sockets only; Landlock: no TCP; network namespace: nobody could come",
        |scene| Attempt::of(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))).on_the_host(scene),
        listen_by_path,
    ),
    Probe::new(
        "udp-send",
        "seccomp: unix sockets only; network namespace without an interface",
        |scene| udp(scene.udp, b"x"),
        |_| Attempt::of(UnixDatagram::pair()),
    ),
    Probe::new(
        "dns",
        "seccomp: unix sockets only; network namespace without an interface; own /etc without a name server",
        |scene| udp(scene.dns, &query()),
        |_| Attempt::of(std::fs::read("/etc/hosts")),
    ),
    Probe::new(
        "abstract-socket",
        "network namespace; Landlock: no abstract socket out of the domain (ABI 6)",
        |scene| {
            let connect = || {
                let address = UnixAddress::from_abstract_name(&scene.abstract_socket)?;
                greeted(UnixStream::connect_addr(&address)?)
            };
            Attempt::of(connect())
        },
        pair,
    ),
    Probe::new(
        "path-socket",
        "own root: the host's files are not there",
        |scene| Attempt::of(UnixStream::connect(&scene.path_socket).and_then(greeted)),
        listen_by_path,
    ),
    Probe::new(
        "smuggled-descriptor",
        "the workspace is a layer over the host's: a socket there is another file",
        |_| Attempt::of(smuggled()),
        pair,
    ),
    Probe::new(
        "vsock",
        "seccomp: unix sockets only",
        |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        pair,
    )
    .apart(),
    Probe::new(
        "netlink",
        "seccomp: unix sockets only; network namespace",
        |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, 0),
        pair,
    ),
    Probe::new(
        "packet-socket",
        "seccomp: unix sockets only; no capabilities; network namespace",
        |_| socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
        pair,
    )
    .throwaway(),
    Probe::new(
        "raw-socket",
        "seccomp: unix sockets only; no capabilities; network namespace",
        |_| socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        pair,
    )
    .throwaway(),
    Probe::new(
        "other-families",
        "seccomp: unix sockets only",
        |_| other_families(),
        pair,
    ),
];

fn tcp(address: SocketAddr) -> Attempt {
    let connect = || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut [0; CANARY.len()])
    };
    Attempt::of(connect())
}

fn udp(address: SocketAddr, message: &[u8]) -> Attempt {
    let ask = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(message, address)?;
        socket.recv(&mut [0; 512])
    };
    Attempt::of(ask())
}

/// A query for the address of `canary.example`, RFC 1035.
fn query() -> Vec<u8> {
    let mut message = vec![0x7d, 0x1f, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["canary", "example"] {
        // A label is at most 63 bytes long.
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

fn greeted(mut stream: UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut [0; CANARY.len()])
}

fn pair(_: &Scene) -> Attempt {
    Attempt::of(UnixStream::pair())
}

fn listen_by_path(scene: &Scene) -> Attempt {
    let path = scene.tmp.join(format!("socket-{}", std::process::id()));
    let talk = || {
        let listener = UnixListener::bind(&path)?;
        let _client = UnixStream::connect(&path)?;
        listener.accept().map(drop)
    };
    let done = talk();
    let _ = std::fs::remove_file(&path);
    Attempt::of(done)
}

/// Asks the process of the host for its descriptor, and reads the secret file through it.
fn smuggled() -> io::Result<()> {
    let stream = UnixStream::connect(Path::new(SMUGGLER))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        &stream,
        &mut [io::IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::empty(),
    )?;
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match rights {
        Some(secret) => Ok(rustix::io::pread(&secret, &mut [0; CANARY.len()], 0).map(drop)?),
        None => Err(io::Error::other("no descriptor came")),
    }
}

fn socket(family: i32, kind: i32, protocol: i32) -> Attempt {
    let made = call(libc::SYS_socket, [n(family), n(kind), n(protocol)]);
    Attempt::reaching(made).at(format_args!("socket({family})"))
}

fn other_families() -> Attempt {
    const FAMILIES: i32 = 46;
    let usual = [
        libc::AF_UNSPEC,
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
    ];
    let others = (0..FAMILIES).filter(|family| !usual.contains(family));
    let kinds = [libc::SOCK_RAW, libc::SOCK_DGRAM, libc::SOCK_STREAM];
    let all = others.flat_map(|family| kinds.map(|kind| (family, kind)));
    let open = |(family, kind)| call(libc::SYS_socket, [n(family), n(kind), ZERO]).is_ok();
    let opened: Vec<String> = all
        .filter(|pair| open(*pair))
        .map(|(family, _)| family.to_string())
        .collect();
    match opened.is_empty() {
        true => Attempt::stopped("none of the families 3 to 45"),
        false => Attempt::through(format_args!("families {}", opened.join(", "))),
    }
}
