//! The gateway's link: what tools ask for, several at once.
//!
//! One task reads, one writes, and each request is a task of its own, so that a slow server
//! holds up nobody. What is on its way is bounded, and all of it ends with the link.

use std::collections::HashMap;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use protocol::egress::{FetchFault, FetchReply, FetchRequest, HttpOrder};
use protocol::ids::CallRef;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::tools::fetch::FetchDoor;
use crate::wire;

/// Requests that are made at the same time.
const AT_ONCE: usize = 16;

/// Requests that are made or wait for it; further ones are refused.
const IN_ALL: usize = 64;

/// Frames that may wait to be looked at, and to be written.
const QUEUE: usize = 16;

/// What is on its way.
struct Running {
    door: Arc<FetchDoor>,
    turns: Arc<Semaphore>,
    replies: mpsc::Sender<FetchReply>,
    tasks: JoinSet<()>,
    calls: HashMap<CallRef, AbortHandle>,
    by_task: HashMap<Id, CallRef>,
}

/// Serves the link until either side ends it.
pub(crate) async fn serve(door: Arc<FetchDoor>, stream: StdStream) {
    let (reader, writer) = match wire::halves(stream) {
        Ok(halves) => halves,
        Err(error) => return protocol::log!("bulkhead-egress: the gateway's link: {error}"),
    };
    let (asked, mut requests) = mpsc::channel(QUEUE);
    let (replies, answers) = mpsc::channel(QUEUE);
    // Both end with this function.
    let mut halves = JoinSet::new();
    halves.spawn(wire::read_all("the gateway".to_owned(), reader, asked));
    halves.spawn(wire::write_all(writer, answers));
    door.leaks.tell(replies.clone());
    let mut running = Running {
        door,
        turns: Arc::new(Semaphore::new(AT_ONCE)),
        replies,
        tasks: JoinSet::new(),
        calls: HashMap::new(),
        by_task: HashMap::new(),
    };
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(FetchRequest::Fetch { call, order }) => running.start(call, order).await,
                Some(FetchRequest::Cancel { call }) => running.cancel(&call).await,
                None => return,
            },
            Some(ended) = running.tasks.join_next_with_id() => running.forget(ended),
        }
    }
}

impl Running {
    async fn start(&mut self, call: CallRef, order: HttpOrder) {
        // Whoever has the reply to a call may ask again at once.
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.forget(ended);
        }
        if self.calls.len() >= IN_ALL || self.calls.contains_key(&call) {
            return self.refuse(call, FetchFault::Busy).await;
        }
        let (door, turns) = (Arc::clone(&self.door), Arc::clone(&self.turns));
        let (replies, of) = (self.replies.clone(), call.clone());
        let task = self.tasks.spawn(async move {
            // Nobody closes the semaphore.
            let _turn = turns.acquire().await;
            let reply = match door.fetch(&of, order).await {
                Ok(outcome) => FetchReply::Fetched { call: of, outcome },
                Err(fault) => FetchReply::Refused { call: of, fault },
            };
            // The gateway may be gone; then the link ends too.
            let _ = replies.send(reply).await;
        });
        self.by_task.insert(task.id(), call.clone());
        self.calls.insert(call, task);
    }

    async fn cancel(&mut self, call: &CallRef) {
        let Some(task) = self.calls.remove(call) else {
            // It is over already.
            return;
        };
        // Its reply may be on its way already; then this is not another one.
        if !task.is_finished() {
            task.abort();
            self.by_task.remove(&task.id());
            self.refuse(call.clone(), FetchFault::Cancelled).await;
        }
    }

    async fn refuse(&self, call: CallRef, fault: FetchFault) {
        let _ = self.replies.send(FetchReply::Refused { call, fault }).await;
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => error.id(),
        };
        if let Some(call) = self.by_task.remove(&id) {
            self.calls.remove(&call);
        }
    }
}
