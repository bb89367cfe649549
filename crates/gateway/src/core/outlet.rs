//! The sending side of a link: a bounded queue and a thread, so that a peer that does not
//! read holds up nobody but itself.

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use protocol::frame::Link;
use serde::{Serialize, de::DeserializeOwned};

/// Frames that may wait. A peer that has not read so many is cut off.
const MAX_WAITING: usize = 1024;

/// The sending side of a link.
pub(super) struct Outlet<Send> {
    queue: SyncSender<Send>,
    cut: Box<dyn Fn() + std::marker::Send>,
}

/// The peer does not read, or is gone; its link is closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CutOff;

impl<Send: Serialize + std::marker::Send + 'static> Outlet<Send> {
    /// Sends over this link from a thread of its own.
    pub(super) fn new<Receive>(
        link: Link<Send, Receive>,
    ) -> Result<Self, protocol::frame::LinkError>
    where
        Receive: DeserializeOwned + 'static,
    {
        let (queue, waiting) = sync_channel(MAX_WAITING);
        let closer = link.try_clone()?;
        let writer = move || {
            for frame in waiting {
                if link.send(&frame).is_err() {
                    // The reading side sees it too, and reports the peer gone.
                    link.close();
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("outlet".to_owned())
            .stack_size(64 * 1024)
            .spawn(writer)?;
        Ok(Self {
            queue,
            cut: Box::new(move || closer.close()),
        })
    }

    /// Puts a frame into the queue; never waits.
    pub(super) fn send(&self, frame: Send) -> Result<(), CutOff> {
        self.queue.try_send(frame).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => {
                (self.cut)();
                CutOff
            }
        })
    }

    /// Ends the link.
    pub(super) fn close(&self) {
        (self.cut)();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_peer_that_does_not_read_is_cut_off_and_holds_nobody_up() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let outlet = Outlet::new(Link::<String, u32>::new(ours)).unwrap();
        let frame = "x".repeat(10_000);
        let sent = (0..MAX_WAITING + 1000)
            .take_while(|_| outlet.send(frame.clone()).is_ok())
            .count();
        assert!(sent < MAX_WAITING + 1000, "the queue is bounded");
        let peer = Link::<u32, String>::new(theirs);
        while peer.receive().is_ok() {}
    }
}
