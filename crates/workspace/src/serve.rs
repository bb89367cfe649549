//! Links to the workspace, one thread each, and one at a time that has it.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use protocol::call::WorkspacePath;
use protocol::control::Peer;
use protocol::frame::{Link, LinkError};
use protocol::workspace::{HistoryReply, HistoryRequest, LayerId, LayerReply, LayerRequest};
use serde::{Serialize, de::DeserializeOwned};

use crate::stop::Stop;
use crate::store::Store;

/// A peer that does not take its answer for so long loses its link.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The store, for whoever's turn it is.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Store>>);

/// Nobody else has anything to ask here.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// This peer has no business here.
    #[error("{0:?} has nothing to ask of the workspace")]
    Stranger(Peer),
    /// No thread, or a broken socket.
    #[error("cannot serve a link: {0}")]
    Io(#[from] std::io::Error),
}

impl Shared {
    /// Shares an open store.
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Mutex::new(store)))
    }

    /// From now on no step of a box changes what is at these paths.
    pub fn set_read_only(&self, paths: &[WorkspacePath]) {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        store.set_read_only(paths);
    }

    /// Serves a link in a thread of its own until the peer closes it or breaks the protocol.
    ///
    /// # Errors
    ///
    /// A peer that may not ask anything, or no thread.
    pub fn serve(&self, peer: Peer, stream: UnixStream) -> Result<(), ServeError> {
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let shared = self.clone();
        match peer {
            Peer::Sandbox => spawn(move || {
                let mut open = BTreeSet::new();
                answer(stream, |request| shared.layer(request, &mut open));
                // Its boxes died with it, and nobody decides about their layers any more.
                shared.forget(open);
            })?,
            Peer::Gateway => spawn(move || answer(stream, |request| shared.history(request)))?,
            Peer::Ledger
            | Peer::Vault
            | Peer::Egress
            | Peer::Workspace
            | Peer::Channel(_)
            | Peer::Agent(_) => return Err(ServeError::Stranger(peer)),
        }
        Ok(())
    }

    /// Waits until nothing is under way; nothing can begin afterwards.
    pub fn stop(self) {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        store.drop_spare();
        // The process ends while this is held.
        std::mem::forget(store);
    }

    /// `open` are the layers that were made over this link and that nobody decided about.
    fn layer(&self, request: LayerRequest, open: &mut BTreeSet<LayerId>) -> LayerReply {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = match request {
            LayerRequest::Begin { kind } => store.begin(kind),
            LayerRequest::Keep {
                layer,
                base,
                origin,
                git,
            } => {
                open.remove(&layer);
                store
                    .keep(layer, base, origin, git)
                    .map(|changes| LayerReply::Changes { changes })
            }
            LayerRequest::Discard { layer } => {
                open.remove(&layer);
                store
                    .discard(layer)
                    .map(|changes| LayerReply::Changes { changes })
            }
            LayerRequest::Forget { layer } => {
                open.remove(&layer);
                store.forget(layer).map(|()| LayerReply::Forgotten)
            }
            LayerRequest::GiveBack { layer } => {
                open.remove(&layer);
                store.give_back(layer).map(|()| LayerReply::Forgotten)
            }
        };
        if let Ok(LayerReply::Begun { layer, .. }) = &reply {
            open.insert(*layer);
        }
        reply.unwrap_or_else(|stop| match stop {
            Stop::Refused { reason, fix } => LayerReply::Refused { reason, fix },
            Stop::Conflict { .. } => LayerReply::Refused {
                reason: stop.to_string(),
                fix: "run it again".to_owned(),
            },
        })
    }

    fn forget(&self, layers: BTreeSet<LayerId>) {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            if let Err(stop) = store.forget(layer) {
                protocol::log!("bulkhead-workspace: a layer stays until the next start: {stop}");
            }
        }
    }

    fn history(&self, request: HistoryRequest) -> HistoryReply {
        let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        store.history(request)
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name("link".to_owned()).spawn(work)?;
    Ok(())
}

/// Answers one request after the other.
fn answer<Request, Reply>(stream: UnixStream, mut reply: impl FnMut(Request) -> Reply)
where
    Request: DeserializeOwned,
    Reply: Serialize,
{
    let link = Link::<Reply, Request>::new(stream);
    let ended = loop {
        let request = match link.receive() {
            Ok(request) => request,
            Err(error) => break error,
        };
        if let Err(error) = link.send(&reply(request)) {
            break error;
        }
    };
    match ended {
        LinkError::Closed => {}
        error => protocol::log!("bulkhead-workspace: dropped a link: {error}"),
    }
    link.close();
}
