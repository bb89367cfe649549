//! The program with its links, and servers that do what a test says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use protocol::control::{
    Control, EgressConfig, ModelRoute, Peer, Reach, Report, Scheme, SupervisorEnd, TunnelRule,
};
use protocol::egress::{EgressFault, ModelReply, ModelRequest};
use protocol::event::Event;
use protocol::frame::Link;
use protocol::ids::{ChannelId, RowId, SessionId, TurnId};
use protocol::record::{LedgerReply, LedgerRequest};

/// After this a test has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) type Agent = Link<ModelRequest, ModelReply>;
pub(crate) type Events = Receiver<(SessionId, Event)>;

/// The program under test.
pub(crate) struct Egress {
    pub(crate) child: Child,
    pub(crate) control: SupervisorEnd<EgressConfig>,
}

impl Egress {
    pub(crate) fn start(model: ModelRoute, tunnels: Vec<TunnelRule>) -> Self {
        Self::start_with(EgressConfig {
            model,
            tunnels,
            rules: Vec::new(),
            extra_roots: Vec::new(),
        })
    }

    pub(crate) fn start_with(config: EgressConfig) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-egress"));
        // Nobody listens there: whoever obeys these reaches nothing.
        for name in [
            "http_proxy",
            "HTTP_PROXY",
            "https_proxy",
            "HTTPS_PROXY",
            "ALL_PROXY",
        ] {
            command.env(name, "http://127.0.0.1:9");
        }
        let child = command.stdin(OwnedFd::from(theirs)).spawn().unwrap();
        let control = SupervisorEnd::new(ours);
        control.send(&Control::Start { config }).unwrap();
        assert_eq!(control.receive().unwrap().0, Report::Ready);
        Self { child, control }
    }

    /// The usual case: a model in the clear on this port, and a ledger that takes everything.
    pub(crate) fn with_model(port: u16) -> (Self, Agent, Events) {
        let egress = Self::start(loopback(port), Vec::new());
        let events = ledger(egress.link(Peer::Ledger));
        let agent = egress.agent();
        (egress, agent, events)
    }

    /// Our end of a new link.
    pub(crate) fn link(&self, peer: Peer) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        ours.set_write_timeout(Some(LIMIT)).unwrap();
        self.control
            .send_with(&Control::Link { peer }, theirs.into())
            .unwrap();
        ours
    }

    pub(crate) fn agent(&self) -> Agent {
        Link::new(self.link(Peer::Agent(session())))
    }

    pub(crate) fn stop(mut self) {
        self.control.send(&Control::Stop).unwrap();
        assert!(ended(&mut self.child).success());
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        // Gone already where the test stopped it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    let mut status = None;
    wait_until(|| {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

pub(crate) fn wait_until(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "it did not come to pass");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn session() -> SessionId {
    SessionId::parse("s1").unwrap()
}

pub(crate) fn telegram() -> ChannelId {
    ChannelId::parse("telegram").unwrap()
}

pub(crate) fn loopback(port: u16) -> ModelRoute {
    ModelRoute {
        name: "scripted".to_owned(),
        scheme: Scheme::Http,
        host: "127.0.0.1".to_owned(),
        port,
        path: "/api/chat".to_owned(),
        reach: Reach::Loopback,
        idle_seconds: 1,
    }
}

pub(crate) fn chat(id: u64, body: &str) -> ModelRequest {
    ModelRequest::Chat {
        id,
        turn: TurnId(7),
        body: body.to_owned(),
    }
}

/// All replies to a request up to the last.
pub(crate) fn replies(agent: &Agent) -> Vec<ModelReply> {
    let mut replies = Vec::new();
    loop {
        let reply = agent.receive().unwrap();
        let last = matches!(reply, ModelReply::End { .. } | ModelReply::Failed { .. });
        replies.push(reply);
        if last {
            return replies;
        }
    }
}

/// The fault a request ends with.
pub(crate) fn fault(agent: &Agent) -> EgressFault {
    match replies(agent).pop() {
        Some(ModelReply::Failed { fault, .. }) => fault,
        other => panic!("no fault: {other:?}"),
    }
}

/// Status and whole text of an answer that is complete.
pub(crate) fn answer(agent: &Agent) -> (u16, String) {
    let (mut status, mut text) = (0, String::new());
    for reply in replies(agent) {
        match reply {
            ModelReply::Status { status: s, .. } => status = s,
            ModelReply::Chunk { text: piece, .. } => text.push_str(&piece),
            ModelReply::End { .. } => {}
            ModelReply::Failed { fault, .. } => panic!("{fault:?}"),
        }
    }
    (status, text)
}

/// A ledger that takes every row and hands on its event before it says so.
pub(crate) fn ledger(stream: UnixStream) -> Events {
    let (sender, events) = channel();
    stream.set_read_timeout(None).unwrap();
    thread::spawn(move || {
        let link = Link::<LedgerReply, LedgerRequest>::new(stream);
        let mut next = 1;
        while let Ok(LedgerRequest::Append { rows }) = link.receive() {
            let first = RowId(next);
            next += rows.len() as u64;
            for row in rows {
                // The test may be over.
                let _ = sender.send((row.session, row.event));
            }
            if link.send(&LedgerReply::Appended { first }).is_err() {
                return;
            }
        }
    });
    events
}

pub(crate) fn next(events: &Events) -> Event {
    events.recv_timeout(LIMIT).unwrap().1
}

/// What a server was sent.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Request line and headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    pub(crate) fn has_header(&self, name: &str, value: &str) -> bool {
        let line = format!("{name}: {value}");
        self.head.lines().any(|l| l.eq_ignore_ascii_case(&line))
    }
}

/// Reads one request.
pub(crate) fn hear(stream: &TcpStream) -> Heard {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
        if line == "\r\n" || line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Heard { head, body }
}

/// A server on a port of its own that gives each connection to `serve`, in a thread.
pub(crate) struct Server {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let (counter, serve) = (Arc::clone(&connections), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                stream.set_write_timeout(Some(LIMIT)).unwrap();
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Self { port, connections }
    }

    /// Answers every request with these bytes, and closes.
    pub(crate) fn answering(response: &'static str) -> Self {
        Self::start(move |mut stream| {
            hear(&stream);
            stream.write_all(response.as_bytes()).unwrap();
        })
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A port on which nobody listens.
pub(crate) fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

pub(crate) const CHUNKED: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Sends one piece of a chunked body; an empty one ends it.
pub(crate) fn piece(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
    framed.extend(bytes);
    framed.extend(b"\r\n");
    stream.write_all(&framed)
}

/// Waits until the other side has closed the connection.
pub(crate) fn wait_for_close(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}
