//! The ways out of boxes: what a tunnel through egress carries against a direct connection, how many are served at
//! once, and what one takes that carries nothing. All of it on loopback, with the real egress.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use protocol::box_link::{BoxReply, BoxRequest};
use protocol::control::{
    Control, ControlEnd, EgressConfig, ModelRoute, Peer, Reach, Report, Scheme, SupervisorEnd,
};
use protocol::frame::Link;
use protocol::ids::{CallId, CallRef, RowId, RuleName, SessionId, TurnId};
use protocol::outbound::{
    Asks, Budgets, ByteCount, Cleartext, EgressRule, HostPattern, Inspect, Method, ProgramName,
    RuleReach, Subject,
};
use protocol::record::{LedgerReply, LedgerRequest};

use super::machine::{self, Memory};
use super::measure::Measure;
use crate::fault::Fault;
use crate::programs;

/// Tunnels at the same time.
const MANY: usize = 200;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of one write.
const PIECE: usize = 256 * 1024;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TunnelExtent {
    /// Transfers of each kind.
    runs: usize,
    /// Bytes of each.
    bytes: u64,
}

impl TunnelExtent {
    /// Figures to be quoted.
    pub(crate) const FULL: Self = Self {
        runs: 20,
        bytes: 512 << 20,
    };

    /// Whether it works at all.
    pub(crate) const QUICK: Self = Self {
        runs: 2,
        bytes: 16 << 20,
    };
}

/// Measures it.
pub(super) fn measure(extent: TunnelExtent) -> Result<Vec<Measure>, Fault> {
    let failed = |doing: &str| Fault::io(doing.to_owned());
    let server = serve(extent.bytes).map_err(failed("serve on 127.0.0.1"))?;
    let quiet = serve(1).map_err(failed("serve on 127.0.0.1"))?;
    let door = Door::start(&[server, quiet])?;
    let (mut direct, mut tunnelled) = (Vec::new(), Vec::new());
    for _ in 0..extent.runs {
        let stream = TcpStream::connect(server).map_err(failed("connect to 127.0.0.1"))?;
        direct.push(rate(stream, extent.bytes).map_err(failed("read from a connection"))?);
        let stream = door
            .ask(server)
            .and_then(opened_by)
            .map_err(failed("open a tunnel"))?;
        tunnelled.push(rate(stream, extent.bytes).map_err(failed("read from a tunnel"))?);
    }
    let direct = Measure::of("tunnel_direct", "MiB/s", &direct);
    let tunnelled = Measure::of("tunnel", "MiB/s", &tunnelled).against(direct.p50);
    let before = door.memory()?;
    let opened: Vec<_> = (0..MANY).map(|_| door.ask(quiet)).collect();
    let mut open = Vec::new();
    for stream in opened {
        open.extend(stream.and_then(opened_by).ok());
    }
    let mut served = open.len();
    for stream in &mut open {
        // The one byte of the server comes through each while all are open.
        let began = stream.write_all(&hello());
        served -= usize::from(began.and_then(|()| stream.read_exact(&mut [0; 1])).is_err());
    }
    // They carry nothing now.
    thread::sleep(Duration::from_secs(1));
    let each = (door.memory()? - before) * 1024.0 / MANY as f64;
    drop(open);
    Ok(vec![
        direct,
        tunnelled,
        Measure::of("tunnels_at_once", "tunnels", &[served as f64]),
        Measure::of("tunnel_idle", "KiB", &[each.max(0.0)]),
    ])
}

/// A server that waits for the first message of TLS, sends so many bytes that mean nothing, and stays.
fn serve(bytes: u64) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            thread::spawn(move || {
                let mut first = vec![0; hello().len()];
                if stream.read_exact(&mut first).is_err() {
                    return;
                }
                let piece = vec![0; PIECE];
                let mut left = bytes;
                while left > 0 {
                    let next = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
                    // Who has seen enough hangs up.
                    if stream.write_all(&piece[..next]).is_err() {
                        return;
                    }
                    left -= next as u64;
                }
                // Until the other side hangs up.
                let _ = stream.read(&mut [0]);
            });
        }
    });
    Ok(address)
}

/// MiB in a second, from the first message on.
fn rate(mut stream: TcpStream, bytes: u64) -> std::io::Result<f64> {
    let mut buffer = vec![0; PIECE];
    let began = Instant::now();
    stream.write_all(&hello())?;
    let mut got = 0;
    while got < bytes {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => got += read as u64,
        }
    }
    Ok(bytes as f64 / f64::from(1 << 20) / began.elapsed().as_secs_f64())
}

/// The first message of a client that speaks to an address (RFC 8446, 4.1.2): one suite, no extension but the
/// groups it knows.
fn hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend([0, 8, 0, 10, 0, 4, 0, 2, 0, 29]);
    let length = body.len();
    let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let mut message = vec![22, 3, 1];
    message.extend(short(length + 4));
    message.extend([1, 0]);
    message.extend(short(length));
    message.extend(body);
    message
}

/// `bulkhead-egress` with the way out of a box that is not there: its port is on this machine's loopback.
struct Door {
    child: Child,
    proxy: SocketAddr,
    _control: SupervisorEnd<EgressConfig>,
    _boxes: ControlEnd<BoxRequest, BoxReply>,
}

impl Drop for Door {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Door {
    fn start(places: &[SocketAddr]) -> Result<Self, Fault> {
        let failed = |doing: &str| Fault::io(doing.to_owned());
        let unexpected = |error: protocol::frame::LinkError| {
            Fault::Refused(format!("bulkhead-egress does not answer: {error}"))
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket"))?;
        let child = Command::new(programs::path("bulkhead-egress")?)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .map_err(failed("start bulkhead-egress"))?;
        let control = SupervisorEnd::<EgressConfig>::new(ours);
        let config = config(rule(places)?);
        let started = control
            .send(&Control::Start { config })
            .and_then(|()| control.receive());
        match started.map_err(unexpected)?.0 {
            Report::Ready => {}
            _ => return Err(Fault::Unexpected("bulkhead-egress")),
        }
        let link = |peer| {
            let (ours, theirs) = UnixStream::pair()?;
            control.send_with(&Control::Link { peer }, theirs.into())?;
            Ok(ours)
        };
        record(link(Peer::Ledger).map_err(unexpected)?);
        let boxes = ControlEnd::new(link(Peer::Sandbox).map_err(unexpected)?);
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed("listen on 127.0.0.1"))?;
        let proxy = listener
            .local_addr()
            .map_err(failed("listen on 127.0.0.1"))?;
        let open = BoxRequest::Open {
            run: call(),
            rules: vec![rule(places)?],
        };
        let opened = boxes
            .send_with(&open, listener.into())
            .and_then(|()| boxes.receive());
        match opened.map_err(unexpected)?.0 {
            BoxReply::Opened { .. } => Ok(Self {
                child,
                proxy,
                _control: control,
                _boxes: boxes,
            }),
            BoxReply::Refused { reason, .. } => Err(Fault::Refused(reason)),
        }
    }

    /// Asks for a tunnel to this place.
    fn ask(&self, place: SocketAddr) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.proxy)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n")?;
        Ok(stream)
    }

    /// MiB of egress.
    fn memory(&self) -> Result<f64, Fault> {
        let (memory, _) =
            machine::memory(&[self.child.id()]).map_err(Fault::io("read memory from /proc"))?;
        match memory {
            Memory::Proportional(mib) | Memory::Resident(mib) => Ok(mib),
        }
    }
}

/// Waits for the answer to CONNECT.
fn opened_by(mut stream: TcpStream) -> std::io::Result<TcpStream> {
    const OPEN: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
    let mut answer = [0; OPEN.len()];
    stream.read_exact(&mut answer)?;
    match answer == *OPEN {
        true => Ok(stream),
        false => Err(std::io::Error::other("egress refused a tunnel")),
    }
}

fn config(rule: EgressRule) -> EgressConfig {
    EgressConfig {
        model: ModelRoute {
            name: "none".to_owned(),
            scheme: Scheme::Http,
            host: "127.0.0.1".to_owned(),
            port: 1,
            path: "/".to_owned(),
            reach: Reach::Loopback,
            idle_seconds: 1,
        },
        tunnels: Vec::new(),
        rules: vec![rule],
        extra_roots: Vec::new(),
    }
}

fn call() -> CallRef {
    CallRef {
        session: SessionId::parse("bench").expect("it has only letters"),
        turn: TurnId(1),
        call: CallId(1),
    }
}

/// As wide as a rule can be, but for where it leads.
fn rule(places: &[SocketAddr]) -> Result<EgressRule, Fault> {
    let bad = || Fault::Refused("the rule of the bench is none".to_owned());
    let port = |place: &SocketAddr| place.port().try_into().map_err(|_| bad());
    Ok(EgressRule {
        name: RuleName::parse("bench").map_err(|_| bad())?,
        subject: Subject::Exec(ProgramName::parse("bench").ok_or_else(bad)?),
        host: HostPattern::Address(Ipv4Addr::LOCALHOST.into()),
        ports: places.iter().map(port).collect::<Result<_, _>>()?,
        methods: Method::ALL.to_vec(),
        paths: vec!["/*".parse().map_err(|_| bad())?],
        owner: "bench".parse().map_err(|_| bad())?,
        expires: "9999-12-31".parse().map_err(|_| bad())?,
        ask: Asks::Never,
        credential: None,
        budgets: Budgets {
            per_minute: std::num::NonZeroU32::MAX,
            per_day: ByteCount::mib(u32::MAX),
            upload: ByteCount::mib(u32::MAX),
            download: ByteCount::mib(u32::MAX),
        },
        cleartext: Cleartext::Refused,
        reach: RuleReach::Private,
        inspect: Inspect::No,
    })
}

/// A ledger that takes every row at once, so that no disk is measured.
fn record(stream: UnixStream) {
    thread::spawn(move || {
        let link = Link::<LedgerReply, LedgerRequest>::new(stream);
        while let Ok(LedgerRequest::Append { .. }) = link.receive() {
            if link
                .send(&LedgerReply::Appended { first: RowId(1) })
                .is_err()
            {
                return;
            }
        }
    });
}
