//! The outputs of a container on its attached stream: pieces of eight bytes of header (which of the two
//! outputs, and how long, big-endian) and their content, as the engines' API documents it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What is kept of the error output, which says why the first process ended.
const MAX_ERRORS: usize = 4096;

/// Passes the standard output on and keeps the beginning of the error output, until the stream ends.
pub(crate) async fn split(
    mut from: impl AsyncRead + Unpin,
    mut out: impl AsyncWrite + Unpin,
) -> io::Result<String> {
    const ERRORS: u8 = 2;
    let mut errors = Vec::new();
    let mut piece = vec![0; 32 * 1024];
    loop {
        let mut header = [0; 8];
        match from.read_exact(&mut header).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        let [which, _, _, _, length @ ..] = header;
        let mut left = u32::from_be_bytes(length) as usize;
        while left > 0 {
            let most = left.min(piece.len());
            let got = from.read(&mut piece[..most]).await?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= got;
            match which {
                ERRORS => errors.extend(
                    piece[..got]
                        .iter()
                        .take(MAX_ERRORS.saturating_sub(errors.len())),
                ),
                _ => out.write_all(&piece[..got]).await?,
            }
        }
    }
    Ok(String::from_utf8_lossy(&errors).into_owned())
}
