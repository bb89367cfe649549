//! Frames over what the runtime reads and writes.

use std::io;

use protocol::frame::{self, LinkError};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Reads one frame. It cannot be given up half-way and taken up again.
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
    to.flush().await?;
    Ok(())
}
