//! A link, spoken badly.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::frame::{self, LinkError};
use serde::Serialize;
use serde_json::Value;

use super::report::{Reporter, is_silence};

/// How long a peer may take for what nobody waits for, or to take what is sent.
const MOMENT: Duration = Duration::from_millis(200);

/// How long it may take for an answer; without one it is not known what it would have been.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// The most frames of a flood, and how long it lasts.
const FLOOD: usize = 100_000;
const FLOOD_TIME: Duration = Duration::from_millis(500);

/// Announced, and begun.
const HUGE: u32 = 16 * 1024 * 1024;

/// As the system said it, so that silence can be told from a refusal.
pub(super) fn broken(error: LinkError) -> io::Error {
    match error {
        LinkError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// A link whose answers are all looked at.
pub(super) struct Wire {
    stream: UnixStream,
    name: String,
    reporter: Arc<Reporter>,
}

impl Wire {
    pub(super) fn new(stream: UnixStream, name: &str, reporter: &Arc<Reporter>) -> Self {
        // Without limits it would only be slower.
        let _ = stream.set_read_timeout(Some(MOMENT));
        let _ = stream.set_write_timeout(Some(MOMENT));
        Self {
            stream,
            name: name.to_owned(),
            reporter: Arc::clone(reporter),
        }
    }

    pub(super) fn send<T: Serialize>(&self, value: &T) -> io::Result<()> {
        frame::write(&self.stream, value).map_err(broken)
    }

    /// The next frame, if one comes within a moment.
    pub(super) fn receive(&self) -> io::Result<Value> {
        let mut header = [0; 4];
        (&self.stream).read_exact(&mut header)?;
        let mut body = vec![0; frame::announced(header).map_err(io::Error::other)?];
        (&self.stream).read_exact(&mut body)?;
        self.reporter.look(&self.name, &body);
        frame::decode(&body).map_err(io::Error::other)
    }

    /// All frames until none comes for a moment.
    pub(super) fn rest(&self) -> Vec<Value> {
        let until = Instant::now() + 5 * MOMENT;
        let mut frames = Vec::new();
        while let (Ok(frame), true) = (self.receive(), Instant::now() < until) {
            frames.push(frame);
        }
        frames
    }

    /// Sends it and waits for an answer of one of these types, looking at all others that come. A peer that says no,
    /// or hangs up, refuses; one that is silent is silent.
    pub(super) fn ask<T: Serialize>(&self, value: &T, wanted: &[&str]) -> io::Result<Value> {
        self.send(value)?;
        self.await_one(wanted)
    }

    /// Waits for one of these types likewise.
    pub(super) fn await_one(&self, wanted: &[&str]) -> io::Result<Value> {
        let until = Instant::now() + ANSWER;
        while Instant::now() < until {
            match self.receive() {
                Ok(frame) if wanted.iter().any(|wanted| frame["type"] == *wanted) => {
                    return Ok(frame);
                }
                Ok(frame) if frame["type"] == "refused" || frame["type"] == "failed" => {
                    return Err(io::Error::other(frame.to_string()));
                }
                Ok(_) => {}
                Err(error) if is_silence(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Asks for what was said in a conversation; nothing of it is a refusal.
    pub(super) fn transcript<T: Serialize>(&self, history: &T) -> io::Result<()> {
        let told = self.ask(history, &["transcript"])?;
        match told["entries"].as_array() {
            Some(entries) if !entries.is_empty() => Ok(()),
            _ => Err(io::Error::other("an empty transcript")),
        }
    }

    /// A frame that is far over the limit.
    pub(super) fn huge(&self) {
        let piece = vec![b'x'; 64 * 1024];
        let mut sent = (&self.stream).write_all(&HUGE.to_be_bytes());
        for _ in 0..HUGE as usize / piece.len() {
            sent = sent.and_then(|()| (&self.stream).write_all(&piece));
        }
        // The peer ends the link at some point, which is as it should be.
        drop(sent);
    }

    /// A frame that begins and never ends. The link stays open as long as this lives.
    pub(super) fn half(&self) {
        let begun = (&self.stream).write_all(&100_u32.to_be_bytes());
        // As above.
        drop(begun.and_then(|()| (&self.stream).write_all(b"{\"type\":")));
    }

    /// The same frame over and over, reading nothing.
    pub(super) fn flood(&self, frame: &Value) {
        let until = Instant::now() + FLOOD_TIME;
        for _ in 0..FLOOD {
            if self.send(frame).is_err() || Instant::now() > until {
                return;
            }
        }
    }
}
