//! Frames over a socket of the runtime.
//!
//! Reading a frame cannot be given up half-way, so each link has a task that only reads and
//! one that only writes, with a short queue each. A peer that does not read fills its queue
//! and then its own pipe, never the memory of egress.

use std::io;
use std::os::unix::net::UnixStream as StdStream;

use protocol::frame::{self, LinkError};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// The two halves of a link that came from the supervisor.
pub(crate) fn halves(stream: StdStream) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    stream.set_nonblocking(true)?;
    Ok(UnixStream::from_std(stream)?.into_split())
}

/// Reads one frame.
pub(crate) async fn read<T: DeserializeOwned>(
    mut from: impl AsyncRead + Unpin,
) -> Result<T, LinkError> {
    let mut header = [0; 4];
    if from.read(&mut header[..1]).await? == 0 {
        return Err(LinkError::Closed);
    }
    from.read_exact(&mut header[1..]).await?;
    // Memory grows with what arrives, not with what was announced.
    let len = frame::announced(header)?;
    let mut body = Vec::with_capacity(len.min(64 * 1024));
    from.take(len as u64).read_to_end(&mut body).await?;
    if body.len() < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    frame::decode(&body)
}

/// Writes one frame.
pub(crate) async fn write<T: Serialize>(
    mut to: impl AsyncWrite + Unpin,
    value: &T,
) -> Result<(), LinkError> {
    to.write_all(&frame::encode(value)?).await?;
    Ok(())
}

/// Reads frames until the link ends. The name is for the log.
pub(crate) async fn read_all<T: DeserializeOwned>(
    whose: String,
    mut reader: OwnedReadHalf,
    asked: mpsc::Sender<T>,
) {
    loop {
        match read(&mut reader).await {
            Ok(request) => {
                if asked.send(request).await.is_err() {
                    return;
                }
            }
            Err(LinkError::Closed) => return,
            Err(error) => {
                return protocol::log!(
                    "bulkhead-egress: the link of {whose} ended: {}",
                    brief(&error)
                );
            }
        }
    }
}

/// Writes frames as long as somebody reads them.
pub(crate) async fn write_all<T: Serialize>(
    mut writer: OwnedWriteHalf,
    mut answers: mpsc::Receiver<T>,
) {
    while let Some(reply) = answers.recv().await {
        // The peer is gone; its other half says so too.
        if write(&mut writer, &reply).await.is_err() {
            return;
        }
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
