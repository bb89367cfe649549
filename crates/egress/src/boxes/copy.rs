//! Bytes from one connection to another, both ways, without a copy in this program: splice(2).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use protocol::time::Millis;
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::budget::{Direction, Meter, Over};
use crate::tunnel::{LastByte, silence};

/// Bytes that go through a pipe at once, the most that an unprivileged user's pipe has (pipe(7)); where the kernel
/// gives it fewer, fewer.
const PIPE: usize = 1024 * 1024;
/// Pipes that are kept for the next piece. A tunnel that carries nothing has none.
const KEPT: usize = 16;

/// Why a tunnel ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// Both sides said so.
    #[error("both sides ended it")]
    Both,
    /// One broke.
    #[error("a connection broke")]
    Broken(#[from] io::Error),
    /// A limit.
    #[error("its rule allows {0}")]
    Over(#[from] Over),
    /// Nothing came.
    #[error("nothing came for {} s", .0.as_secs())]
    Idle(Duration),
}

/// Pipes that wait for use; all of them are empty.
#[derive(Default)]
pub(crate) struct Pipes(Mutex<Vec<Pipe>>);

struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipes {
    fn take(&self) -> io::Result<Pipe> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.map_or_else(Pipe::new, Ok)
    }

    /// For the next; it is empty.
    fn give_back(&self, pipe: Pipe) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(pipe);
        }
    }
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A smaller one carries the same in more pieces; the kernel bounds what a user has of them.
        let _ = fcntl_setpipe_size(&writer, PIPE);
        Ok(Self { reader, writer })
    }
}

/// Carries bytes between the box and a server until both have ended, one breaks, a limit is reached, or nothing
/// came for as long as `idle`. The end of one direction is passed on and leaves the other open.
pub(crate) async fn carry(
    client: &TcpStream,
    server: &TcpStream,
    meter: &Meter,
    (pipes, idle): (&Pipes, Duration),
) -> End {
    let last = LastByte::default();
    let both = async {
        tokio::try_join!(
            pump((client, server), (meter, Direction::Up), (pipes, &last)),
            pump((server, client), (meter, Direction::Down), (pipes, &last)),
        )
    };
    tokio::select! {
        ended = both => ended.err().unwrap_or(End::Both),
        () = silence(&last, idle) => End::Idle(idle),
    }
}

async fn pump(
    (from, to): (&TcpStream, &TcpStream),
    (meter, way): (&Meter, Direction),
    (pipes, last): (&Pipes, &LastByte),
) -> Result<(), End> {
    loop {
        from.readable().await?;
        let pipe = pipes.take()?;
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let read = from.try_io(Interest::READABLE, || {
            Ok(splice(from, None, &pipe.writer, None, PIPE, flags)?)
        });
        let mut left = match read {
            Ok(0) => {
                // The other side may have closed it already.
                let _ = shutdown(to, Shutdown::Write);
                return Ok(());
            }
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                pipes.give_back(pipe);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        last.now();
        meter.count(way, left as u64, Millis::now())?;
        while left > 0 {
            let written = to.try_io(Interest::WRITABLE, || {
                Ok(splice(&pipe.reader, None, to, None, left, flags)?)
            });
            match written {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(bytes) => left -= bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                Err(error) => return Err(error.into()),
            }
        }
        last.now();
        pipes.give_back(pipe);
    }
}
