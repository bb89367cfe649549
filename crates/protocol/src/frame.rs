//! Frames: a length of four bytes, big-endian, then so many bytes of JSON.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

/// The longest frame in bytes, without its length. A longer one ends the link.
pub const MAX_FRAME: usize = 4 * 1024 * 1024;

/// Why a link cannot go on. Every variant ends it; a refusal by the peer is not one of
/// these but a reply.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer closed the link between two frames.
    #[error("the link was closed")]
    Closed,
    /// The peer closed the link, or the connection broke, inside a frame.
    #[error("the link broke: {0}")]
    Io(#[from] io::Error),
    /// The peer announced, or the program tried to send, more than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is over the limit of {MAX_FRAME}")]
    TooLong(usize),
    /// The peer sent something that is not a frame of this link. The message says where, and
    /// not what: serde's own words can hold the peer's bytes.
    #[error("not a frame of this link: {:?} error at column {}", .0.classify(), .0.column())]
    Malformed(serde_json::Error),
    /// The peer sent a frame that this phase of the link does not allow.
    #[error("a frame out of order: expected {expected}, got {got}")]
    OutOfOrder {
        /// What this phase allows.
        expected: &'static str,
        /// What came; a variant's name, never its content.
        got: &'static str,
    },
}

/// The bytes of one frame with its length in front.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, LinkError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, value).map_err(LinkError::Malformed)?;
    let len = bytes.len() - 4;
    let header = u32::try_from(len)
        .ok()
        .filter(|_| len <= MAX_FRAME)
        .ok_or(LinkError::TooLong(len))?;
    bytes[..4].copy_from_slice(&header.to_be_bytes());
    Ok(bytes)
}

/// Reads the body of a frame; left-over bytes and unknown fields are errors of the type read.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, LinkError> {
    serde_json::from_slice(body).map_err(LinkError::Malformed)
}

/// The length that a frame's first four bytes announce, if it is allowed.
pub fn announced(header: [u8; 4]) -> Result<usize, LinkError> {
    let len = u32::from_be_bytes(header) as usize;
    if len > MAX_FRAME {
        Err(LinkError::TooLong(len))
    } else {
        Ok(len)
    }
}

/// Writes one frame in one call.
pub fn write<T: Serialize>(mut to: impl Write, value: &T) -> Result<(), LinkError> {
    to.write_all(&encode(value)?)?;
    Ok(())
}

/// Reads one frame. [`LinkError::Closed`] if the peer closed before its first byte.
pub fn read<T: DeserializeOwned>(mut from: impl Read) -> Result<T, LinkError> {
    let mut header = [0; 4];
    let mut have = 0;
    while have < 4 {
        match from.read(&mut header[have..]) {
            Ok(0) if have == 0 => return Err(LinkError::Closed),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    // Memory grows with what arrives, not with what was announced.
    let len = announced(header)?;
    let mut body = Vec::with_capacity(len.min(64 * 1024));
    from.take(len as u64).read_to_end(&mut body)?;
    if body.len() < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    decode(&body)
}

/// One end of a link: what this side sends and what it receives are types, so that the
/// wrong message does not compile.
#[derive(Debug)]
pub struct Link<Send, Receive> {
    stream: UnixStream,
    types: std::marker::PhantomData<fn(Send) -> Receive>,
}

impl<Send: Serialize, Receive: DeserializeOwned> Link<Send, Receive> {
    /// Speaks frames over this socket.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            types: std::marker::PhantomData,
        }
    }

    /// Sends one frame; blocks while the peer's buffer is full.
    pub fn send(&self, value: &Send) -> Result<(), LinkError> {
        write(&self.stream, value)
    }

    /// Waits for one frame.
    pub fn receive(&self) -> Result<Receive, LinkError> {
        read(&self.stream)
    }

    /// A second handle on the same socket, for a thread that only reads or only writes.
    pub fn try_clone(&self) -> Result<Self, LinkError> {
        Ok(Self::new(self.stream.try_clone()?))
    }

    /// Bounds how long [`Self::receive`] and [`Self::send`] wait; `None` waits for ever.
    pub fn set_timeout(&self, limit: Option<Duration>) -> Result<(), LinkError> {
        self.stream.set_read_timeout(limit)?;
        self.stream.set_write_timeout(limit)?;
        Ok(())
    }

    /// Ends the link for both sides and for every handle on it.
    pub fn close(&self) {
        // The peer may have closed it first; there is nothing left to do then.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// The socket itself, once the peers have agreed that raw bytes follow.
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_there_and_back_in_order() {
        let (a, b) = UnixStream::pair().unwrap();
        let (a, b) = (Link::<u32, String>::new(a), Link::<String, u32>::new(b));
        a.send(&7).unwrap();
        a.send(&8).unwrap();
        b.send(&"x".to_owned()).unwrap();
        assert_eq!((b.receive().unwrap(), b.receive().unwrap()), (7, 8));
        assert_eq!(a.receive().unwrap(), "x");
        drop(a);
        assert!(matches!(b.receive(), Err(LinkError::Closed)));
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_its_header_alone() {
        let header = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes();
        assert!(matches!(
            read::<u32>(&header[..]),
            Err(LinkError::TooLong(_))
        ));
        assert!(matches!(
            encode(&"x".repeat(MAX_FRAME)),
            Err(LinkError::TooLong(_))
        ));
    }

    #[test]
    fn half_a_frame_and_left_over_bytes_are_errors() {
        assert!(matches!(read::<u32>(&[0, 0][..]), Err(LinkError::Io(_))));
        assert!(matches!(
            read::<u32>(&[0, 0, 0, 4, b'1'][..]),
            Err(LinkError::Io(_))
        ));
        assert!(matches!(
            read::<u32>(&[0, 0, 0, 3, b'1', b' ', b'2'][..]),
            Err(LinkError::Malformed(_))
        ));
        assert!(matches!(
            read::<u32>(&b"\0\0\0\x04nope"[..]),
            Err(LinkError::Malformed(_))
        ));
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        let deep = "[".repeat(100_000);
        let mut bytes = u32::try_from(deep.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(deep.as_bytes());
        assert!(matches!(
            read::<serde_json::Value>(&bytes[..]),
            Err(LinkError::Malformed(_))
        ));
    }
}
