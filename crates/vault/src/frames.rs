//! Frames whose bytes are wiped after use, since they may hold a secret.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use protocol::frame::{self, LinkError};
use sandbox::memory::Locked;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroize as _;

/// Until when to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// For as long as the peer lives.
    Endless,
    /// Until then.
    Until(Instant),
}

impl Patience {
    pub(crate) fn of(limit: Duration) -> Self {
        Self::Until(Instant::now() + limit)
    }

    /// What is left, as socket(7) wants it: `None` waits for ever.
    fn left(self) -> io::Result<Option<Duration>> {
        match self {
            Self::Endless => Ok(None),
            Self::Until(then) => match then.saturating_duration_since(Instant::now()) {
                Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
                left => Ok(Some(left)),
            },
        }
    }
}

/// Whether frames are kept out of the swap: those of the vault are. Who asks it has no leave to
/// lock memory, and wipes what it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Memory {
    /// As any other.
    #[default]
    Plain,
    /// Out of the swap, or the frame fails.
    Locked,
}

impl Memory {
    fn hold(self, bytes: &[u8]) -> io::Result<Option<Locked>> {
        match self {
            Self::Plain => Ok(None),
            Self::Locked => sandbox::memory::lock(bytes).map(Some),
        }
    }
}

/// Counts what is written, and keeps none of it.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The bytes of one frame, in a buffer that never grew: growing leaves copies behind.
fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, LinkError> {
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).map_err(LinkError::Malformed)?;
    let len = u32::try_from(count.0)
        .ok()
        .filter(|_| count.0 <= frame::MAX_FRAME)
        .ok_or(LinkError::TooLong(count.0))?;
    let mut bytes = Vec::with_capacity(4 + count.0);
    bytes.extend(len.to_be_bytes());
    serde_json::to_writer(&mut bytes, value).map_err(LinkError::Malformed)?;
    Ok(bytes)
}

/// Writes one frame.
pub(crate) fn send<T: Serialize>(
    mut stream: &UnixStream,
    value: &T,
    limit: Duration,
    memory: Memory,
) -> Result<(), LinkError> {
    let mut bytes = encode(value)?;
    let held = memory.hold(&bytes);
    let sent = match &held {
        Ok(_) => stream
            .set_write_timeout(Some(limit))
            .and_then(|()| stream.write_all(&bytes)),
        Err(_) => Ok(()),
    };
    bytes.zeroize();
    held?;
    Ok(sent?)
}

/// Reads frames, and goes on with a half-read one after a timeout.
#[derive(Default)]
pub(crate) struct FrameReader {
    buffer: Vec<u8>,
    have: usize,
    memory: Memory,
    // Of the buffer.
    held: Option<Locked>,
}

impl FrameReader {
    /// One whose frames lie in such memory.
    pub(crate) fn within(memory: Memory) -> Self {
        Self {
            buffer: Vec::new(),
            have: 0,
            memory,
            held: None,
        }
    }

    /// Waits for one frame. After a timeout it may be called again; after any other error not.
    pub(crate) fn receive<T: DeserializeOwned>(
        &mut self,
        stream: &UnixStream,
        patience: Patience,
    ) -> Result<T, LinkError> {
        self.fill(stream, 4, patience)?;
        let header = [
            self.buffer[0],
            self.buffer[1],
            self.buffer[2],
            self.buffer[3],
        ];
        let len = frame::announced(header)?;
        self.fill(stream, 4 + len, patience)?;
        let value = frame::decode(&self.buffer[4..4 + len]);
        self.buffer.zeroize();
        self.have = 0;
        value
    }

    fn fill(
        &mut self,
        mut stream: &UnixStream,
        want: usize,
        patience: Patience,
    ) -> Result<(), LinkError> {
        while self.have < want {
            self.make_room(want)?;
            stream.set_read_timeout(patience.left()?)?;
            match stream.read(&mut self.buffer[self.have..]) {
                Ok(0) if self.have == 0 => return Err(LinkError::Closed),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(n) => self.have += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Grows with what arrives, not with what was announced, and leaves no copy behind.
    fn make_room(&mut self, want: usize) -> io::Result<()> {
        if self.buffer.len() > self.have {
            return Ok(());
        }
        let size = want
            .min(self.have.saturating_mul(2).max(4096))
            .max(self.have + 1);
        let mut larger = vec![0; size.min(want)];
        let held = self.memory.hold(&larger)?;
        larger[..self.have].copy_from_slice(&self.buffer[..self.have]);
        self.buffer.zeroize();
        self.held = held;
        self.buffer = larger;
        Ok(())
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        // The fields go after this, in their order; what is freed first is wiped by then.
        self.buffer.zeroize();
        self.held = None;
    }
}

/// The error for a log. The words of a parser can hold a piece of what was parsed, so they stay out.
pub(crate) fn brief(error: &LinkError) -> String {
    match error {
        LinkError::Malformed(_) => "not a frame of this link".to_owned(),
        LinkError::Closed
        | LinkError::Io(_)
        | LinkError::TooLong(_)
        | LinkError::OutOfOrder { .. } => error.to_string(),
    }
}

/// Whether the error only says that the time was up.
pub(crate) fn timed_out(error: &LinkError) -> bool {
    matches!(error, LinkError::Io(error)
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
}

/// The asking end of a link on which every request has one reply.
///
/// A reply that did not come in time is thrown away when it comes, so that a peer that was
/// stopped for a while does not put the link out of step.
pub(crate) struct Exchange {
    stream: UnixStream,
    reader: FrameReader,
    owed: u32,
}

impl Exchange {
    /// Asks over this socket.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            reader: FrameReader::default(),
            owed: 0,
        }
    }

    /// Sends a request and waits at most `limit` for its reply.
    pub(crate) fn ask<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        request: &Q,
        limit: Duration,
    ) -> Result<A, LinkError> {
        let answer = self.try_ask(request, limit);
        if answer.as_ref().is_err_and(|error| !timed_out(error)) {
            self.close();
        }
        answer
    }

    /// Waits for what the peer says of itself, before anything was asked.
    pub(crate) fn hear<A: DeserializeOwned>(&mut self, limit: Duration) -> Result<A, LinkError> {
        self.reader.receive(&self.stream, Patience::of(limit))
    }

    fn try_ask<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        request: &Q,
        limit: Duration,
    ) -> Result<A, LinkError> {
        let patience = Patience::of(limit);
        while self.owed > 0 {
            self.reader.receive::<A>(&self.stream, patience)?;
            self.owed -= 1;
        }
        if let Err(error) = send(&self.stream, request, limit, Memory::Plain) {
            // Half a frame may be out.
            self.close();
            return Err(error);
        }
        self.owed += 1;
        let answer = self.reader.receive(&self.stream, patience)?;
        self.owed -= 1;
        Ok(answer)
    }

    fn close(&self) {
        // The peer may have closed it first; there is nothing left to do then.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn a_frame_is_that_of_every_link_and_its_buffer_never_grew() {
        for text in ["", "a \"quoted\" text\n", &"x".repeat(100_000)] {
            let bytes = encode(&text).unwrap();
            assert!(bytes == frame::encode(&text).unwrap());
            assert_eq!(bytes.capacity(), bytes.len());
        }
        let long = "x".repeat(frame::MAX_FRAME);
        assert!(matches!(encode(&long), Err(LinkError::TooLong(_))));
    }

    #[test]
    fn a_late_reply_is_thrown_away_and_the_link_stays_in_step() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut asking = Exchange::new(a);
        let late = asking.ask::<u32, u32>(&1, SHORT).unwrap_err();
        assert!(timed_out(&late));
        // Half of the late reply, then the rest of it.
        (&b).write_all(&[0, 0, 0, 2, b'1']).unwrap();
        assert!(timed_out(&asking.ask::<u32, u32>(&2, SHORT).unwrap_err()));
        (&b).write_all(b"0").unwrap();
        frame::write(&b, &20_u32).unwrap();
        assert_eq!(frame::read::<u32>(&b).unwrap(), 1);
        assert_eq!(asking.ask::<u32, u32>(&2, SHORT).unwrap(), 20);
        assert_eq!(frame::read::<u32>(&b).unwrap(), 2);
    }

    #[test]
    fn a_frame_longer_than_a_page_arrives_whole() {
        let (a, b) = UnixStream::pair().unwrap();
        let text = "x".repeat(100_000);
        let sent = text.clone();
        let writer =
            std::thread::spawn(move || send(&a, &sent, Duration::from_secs(5), Memory::Plain));
        let got: String = FrameReader::default()
            .receive(&b, Patience::of(Duration::from_secs(5)))
            .unwrap();
        writer.join().unwrap().unwrap();
        assert!(got == text);
    }

    #[test]
    fn what_is_no_reply_ends_the_link() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut asking = Exchange::new(a);
        frame::write(&b, &"words").unwrap();
        assert!(matches!(
            asking.ask::<u32, u32>(&1, SHORT),
            Err(LinkError::Malformed(_))
        ));
        assert!(asking.ask::<u32, u32>(&1, SHORT).is_err());
        assert_eq!(frame::read::<u32>(&b).unwrap(), 1);
        assert!(matches!(frame::read::<u32>(&b), Err(LinkError::Closed)));
    }
}
