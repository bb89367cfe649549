//! A link on which sockets are handed over. The runtime does not read descriptors, so such a link
//! is read and written by two threads of its own.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc as threads;
use std::thread;

use protocol::control::ControlEnd;
use protocol::frame::LinkError;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use crate::wire::brief;

/// What is said on it, with the socket that goes along, if one does.
pub(crate) type With<T> = (T, Option<OwnedFd>);

/// How many frames may wait.
#[derive(Clone, Copy)]
pub(crate) struct Queues {
    /// To be looked at; then the peer has to wait.
    pub(crate) requests: usize,
    /// To be read by the peer.
    pub(crate) replies: usize,
}

/// The link. It ends when this is dropped.
pub(crate) struct Handed<Request, Reply> {
    /// What comes in; none when the link is over.
    pub(crate) requests: mpsc::Receiver<With<Request>>,
    /// What goes out.
    pub(crate) replies: threads::SyncSender<With<Reply>>,
    _closer: Closer,
}

/// Ends both threads when dropped.
struct Closer(UnixStream);

impl Drop for Closer {
    fn drop(&mut self) {
        // The peer may have closed it first.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl<Request, Reply> Handed<Request, Reply>
where
    Request: DeserializeOwned + Send + 'static,
    Reply: Serialize + Send + 'static,
{
    /// Takes the link of this peer over; its name is for the log.
    pub(crate) fn start(
        whose: String,
        stream: UnixStream,
        queues: Queues,
    ) -> Result<Self, LinkError> {
        let closer = Closer(stream.try_clone()?);
        let reading = ControlEnd::<Reply, Request>::new(stream);
        let writing = reading.try_clone()?;
        let (asked, requests) = mpsc::channel(queues.requests);
        let (replies, answers) = threads::sync_channel(queues.replies);
        thread::Builder::new()
            .name("asked".to_owned())
            .spawn(move || read(&whose, &reading, &asked))?;
        thread::Builder::new()
            .name("answers".to_owned())
            .spawn(move || write(&writing, answers))?;
        Ok(Self {
            requests,
            replies,
            _closer: closer,
        })
    }
}

fn read<Request: DeserializeOwned, Reply: Serialize>(
    whose: &str,
    link: &ControlEnd<Reply, Request>,
    asked: &mpsc::Sender<With<Request>>,
) {
    loop {
        match link.receive() {
            Ok(request) => {
                if asked.blocking_send(request).is_err() {
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

fn write<Request: DeserializeOwned, Reply: Serialize>(
    link: &ControlEnd<Reply, Request>,
    answers: threads::Receiver<With<Reply>>,
) {
    for (frame, socket) in answers {
        let sent = match socket {
            Some(socket) => link.send_with(&frame, socket),
            None => link.send(&frame),
        };
        // The peer is gone; the other thread sees it too.
        if sent.is_err() {
            return;
        }
    }
}
