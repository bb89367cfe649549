//! What the door adds to a model that streams: the real program for it, against the same server
//! asked directly, turn about, so that both meet the same machine.
//!
//! The rows are taken at once here; what a durable row costs is `fdatasync`.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use protocol::control::{
    Control, EgressConfig, ModelRoute, Peer, Reach, Report, Scheme, SupervisorEnd,
};
use protocol::egress::{ModelReply, ModelRequest};
use protocol::frame::{Link, LinkError};
use protocol::ids::{RowId, SessionId, TurnId};
use protocol::record::{LedgerReply, LedgerRequest};
use serde_json::json;

use super::measure::{Measure, ms};
use crate::fault::Fault;
use crate::programs;

/// Between two tokens: faster than a model on a usual machine.
const PACE: Duration = Duration::from_millis(2);

/// After this something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A piece as OpenAI's interface streams it.
const TOKEN: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"token \"}}]}\n\n";

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoorExtent {
    /// Answers, each way.
    pub(super) answers: usize,
    /// Tokens of each.
    pub(super) tokens: usize,
}

/// When the pieces of an answer came.
struct Times {
    first: Duration,
    /// Tokens a second from the first to the last.
    rate: f64,
}

/// The figures of the door.
pub(super) fn measure(extent: DoorExtent) -> Result<Vec<Measure>, Fault> {
    let port = serve(extent.tokens).map_err(Fault::io("listen on 127.0.0.1"))?;
    let door = Door::start(port)?;
    let (mut added, mut direct, mut through) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..extent.answers {
        let content = format!("say something, number {number}");
        let body = json!({ "stream": true, "messages": [{ "role": "user", "content": content }] });
        let body = body.to_string();
        let plain = directly(port, &body, extent.tokens).map_err(Fault::io("ask the server"))?;
        let passed = door.ask(number as u64, &body, extent.tokens)?;
        added.push((ms(passed.first) - ms(plain.first)).max(0.0));
        direct.push(plain.rate);
        through.push(passed.rate);
    }
    let direct = Measure::of("model_stream_direct", "tokens/s", &direct);
    let through = Measure::of("model_stream", "tokens/s", &through).against(direct.p50);
    Ok(vec![
        Measure::of("first_token_added", "ms", &added),
        direct,
        through,
    ])
}

/// A server that streams so many tokens, each at its time however late the one before it was.
fn serve(tokens: usize) -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // Whoever asked may be gone; the figures are missing then.
                let _ = stream_to(stream, tokens);
            });
        }
    });
    Ok(port)
}

fn stream_to(mut stream: TcpStream, tokens: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    let piece = format!("{:x}\r\n{TOKEN}\r\n", TOKEN.len());
    let mut at = Instant::now();
    for _ in 0..tokens {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        stream.write_all(piece.as_bytes())?;
        at += PACE;
    }
    stream.write_all(b"0\r\n\r\n")
}

/// Asks the server itself.
fn directly(port: u16, body: &str, tokens: usize) -> io::Result<Times> {
    let began = Instant::now();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    stream.write_all(
        format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
            .as_bytes(),
    )?;
    let mut clock = Clock::new(began, tokens);
    let (mut buffer, mut seen) = ([0; 16 * 1024], Vec::new());
    while !clock.over() {
        let got = stream.read(&mut buffer)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        seen.extend_from_slice(&buffer[..got]);
        clock.see(&mut seen);
    }
    Ok(clock.times())
}

/// Counts tokens in bytes as they come.
struct Clock {
    began: Instant,
    wanted: usize,
    seen: usize,
    first: Option<Instant>,
    last: Instant,
}

impl Clock {
    fn new(began: Instant, wanted: usize) -> Self {
        Self {
            began,
            wanted,
            seen: 0,
            first: None,
            last: began,
        }
    }

    /// Takes whole tokens off the bytes.
    fn see(&mut self, bytes: &mut Vec<u8>) {
        let now = Instant::now();
        while let Some(at) = bytes.windows(7).position(|part| part == b"token \"") {
            bytes.drain(..at + 7);
            self.seen += 1;
            self.first.get_or_insert(now);
            self.last = now;
        }
    }

    fn over(&self) -> bool {
        self.seen >= self.wanted
    }

    fn times(&self) -> Times {
        let first = self.first.unwrap_or(self.last);
        let between = self.last.duration_since(first).as_secs_f64();
        Times {
            first: first.duration_since(self.began),
            rate: (self.seen.saturating_sub(1)) as f64 / between.max(1e-9),
        }
    }
}

/// The program, with this process as its supervisor, its record and an agent.
struct Door {
    child: Child,
    agent: Link<ModelRequest, ModelReply>,
    /// Closed, the program ends.
    _control: SupervisorEnd<EgressConfig>,
}

impl Door {
    fn start(port: u16) -> Result<Self, Fault> {
        let pair = || UnixStream::pair().map_err(Fault::io("make a socket pair"));
        let (ours, theirs) = pair()?;
        let mut command = Command::new(programs::path("bulkhead-egress")?);
        let child = command.stdin(OwnedFd::from(theirs)).spawn();
        let child = child.map_err(Fault::io("start bulkhead-egress"))?;
        let control = SupervisorEnd::new(ours);
        let failed = Fault::link("bulkhead-egress");
        let config = EgressConfig {
            model: ModelRoute {
                name: "bench".to_owned(),
                scheme: Scheme::Http,
                host: Ipv4Addr::LOCALHOST.to_string(),
                port,
                path: "/".to_owned(),
                reach: Reach::Loopback,
                idle_seconds: 30,
            },
            tunnels: Vec::new(),
            rules: Vec::new(),
            extra_roots: Vec::new(),
        };
        let (record, their_record) = pair()?;
        let (agent, their_agent) = pair()?;
        agent
            .set_read_timeout(Some(PATIENCE))
            .map_err(Fault::io("set a time limit"))?;
        let session = SessionId::parse("bench").map_err(|bad| Fault::Usage(bad.to_string()))?;
        let told = || -> Result<(), LinkError> {
            control.send(&Control::Start { config })?;
            // Whatever else it reports, it does not run.
            if control.receive()?.0 != Report::Ready {
                return Err(LinkError::Closed);
            }
            let link = |peer| Control::Link { peer };
            control.send_with(&link(Peer::Ledger), their_record.into())?;
            control.send_with(&link(Peer::Agent(session)), their_agent.into())
        };
        told().map_err(failed)?;
        thread::spawn(move || take_rows(record));
        Ok(Self {
            child,
            agent: Link::new(agent),
            _control: control,
        })
    }

    fn ask(&self, id: u64, body: &str, tokens: usize) -> Result<Times, Fault> {
        let failed = Fault::link("bulkhead-egress");
        let began = Instant::now();
        let request = ModelRequest::Chat {
            id,
            turn: TurnId(1),
            body: body.to_owned(),
        };
        let (mut clock, mut seen) = (Clock::new(began, tokens), Vec::new());
        let mut all = || -> Result<Times, LinkError> {
            self.agent.send(&request)?;
            loop {
                match self.agent.receive()? {
                    ModelReply::Status { .. } => {}
                    ModelReply::Chunk { text, .. } => {
                        seen.extend_from_slice(text.as_bytes());
                        clock.see(&mut seen);
                    }
                    ModelReply::End { .. } if clock.over() => return Ok(clock.times()),
                    ModelReply::End { .. } | ModelReply::Failed { .. } => {
                        return Err(LinkError::Closed);
                    }
                }
            }
        };
        all().map_err(failed)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn take_rows(stream: UnixStream) {
    let link = Link::<LedgerReply, LedgerRequest>::new(stream);
    while let Ok(LedgerRequest::Append { .. }) = link.receive() {
        let first = RowId(1);
        if link.send(&LedgerReply::Appended { first }).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_however_they_are_cut() {
        let began = Instant::now();
        let mut clock = Clock::new(began, 2);
        let mut bytes = b"data: \"tok".to_vec();
        clock.see(&mut bytes);
        assert!(clock.first.is_none());
        bytes.extend(b"en \"} x token \"");
        clock.see(&mut bytes);
        assert!(clock.over() && bytes.is_empty());
    }

    #[test]
    fn the_server_streams_so_many_tokens_and_no_more() {
        let port = serve(5).unwrap();
        let times = directly(port, "{}", 5).unwrap();
        assert!(times.rate > 0.0 && times.rate < 1000.0, "{}", times.rate);
        assert!(directly(port, "{}", 6).is_err());
    }
}
