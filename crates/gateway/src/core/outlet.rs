//! The sending side of a link: a bounded queue and a thread, so that a peer that does not
//! read holds up nobody but itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use protocol::frame::Link;
use serde::{Serialize, de::DeserializeOwned};

/// Frames that may wait. A peer that has not read so many is cut off.
const MAX_WAITING: usize = 1024;

/// Frames that may wait when one comes that can be left out.
const MAX_WAITING_FOR_MORE: usize = MAX_WAITING / 4;

/// The sending side of a link.
pub(super) struct Outlet<Send> {
    queue: SyncSender<Send>,
    waiting: Arc<AtomicUsize>,
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
        let (queue, frames) = sync_channel(MAX_WAITING);
        let waiting = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&waiting);
        let closer = link.try_clone()?;
        let writer = move || {
            for frame in frames {
                counted.fetch_sub(1, Ordering::Relaxed);
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
            waiting,
            cut: Box::new(move || closer.close()),
        })
    }

    /// Puts a frame into the queue; never waits.
    pub(super) fn send(&self, frame: Send) -> Result<(), CutOff> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue.try_send(frame).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => {
                (self.cut)();
                CutOff
            }
        })
    }

    /// The same for a frame that the peer can do without: left out while many wait, so that
    /// whoever makes them in masses cannot have the peer cut off.
    pub(super) fn offer(&self, frame: Send) -> Result<(), CutOff> {
        match self.waiting.load(Ordering::Relaxed) < MAX_WAITING_FOR_MORE {
            true => self.send(frame),
            false => Ok(()),
        }
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

    #[test]
    fn frames_that_can_be_left_out_cut_nobody_off() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let outlet = Outlet::new(Link::<String, u32>::new(ours)).unwrap();
        for _ in 0..10 * MAX_WAITING {
            outlet.offer("x".repeat(10_000)).unwrap();
        }
        outlet.send("last".to_owned()).unwrap();
        let peer = Link::<u32, String>::new(theirs);
        peer.set_timeout(Some(std::time::Duration::from_secs(10)))
            .unwrap();
        while peer.receive().unwrap() != "last" {}
        outlet.offer("again".to_owned()).unwrap();
        assert_eq!(peer.receive().unwrap(), "again");
    }
}
