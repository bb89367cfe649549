//! The link of the program that runs boxes: for each box that may reach something, the socket that listens on
//! its loopback, and the rules.
//!
//! SECURITY: the runner passes on what the gateway permitted; it sees no byte of what the boxes send. What comes
//! out of a box comes by its socket alone.

use std::collections::HashMap;
use std::net::TcpListener as StdListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use protocol::box_link::{BoxReply, BoxRequest};
use protocol::ids::CallRef;
use protocol::outbound::EgressRule;
use rustix::net::SocketType;
use rustix::net::sockopt::{socket_acceptconn, socket_type};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::boxes::forward::{self, BoxDoor, Run};
use crate::handed::{Handed, Queues};

/// Connections of one box at a time.
const MAX_OF_A_BOX: usize = 256;
/// Boxes that have a way out at a time; the runner has fewer.
const MAX_BOXES: usize = 128;
/// How long the connections of a box that is gone may take to write their rows.
const PATIENCE: Duration = Duration::from_secs(10);

/// What may wait; the runner asks one thing at a time.
const QUEUES: Queues = Queues {
    requests: 8,
    replies: 8,
};

/// Serves the link until either side ends it; what is open over it ends with it.
pub(crate) async fn serve(door: Arc<BoxDoor>, stream: StdStream) {
    let mut link = match Handed::start("boxes".to_owned(), stream, QUEUES) {
        Ok(link) => link,
        Err(error) => return protocol::log!("bulkhead-egress: the link of boxes: {error}"),
    };
    let mut boxes = Boxes {
        door,
        open: HashMap::new(),
        tasks: JoinSet::new(),
    };
    while let Some((request, socket)) = link.requests.recv().await {
        while boxes.tasks.try_join_next().is_some() {}
        let reply = match request {
            BoxRequest::Open { run, rules } => match boxes.open(&run, rules, socket) {
                Ok(authority) => BoxReply::Opened { run, authority },
                Err(reason) => BoxReply::Refused {
                    run,
                    reason,
                    fix: "look at the [[egress]] rules of its programs in bulkhead.toml".to_owned(),
                },
            },
            BoxRequest::Close { run } => {
                boxes.close(&run);
                continue;
            }
        };
        // It waits for this one and has asked for no other.
        if link.replies.try_send((reply, None)).is_err() {
            break;
        }
    }
    boxes.close_all().await;
}

/// The boxes that have a way out. Dropped, all of them end.
struct Boxes {
    door: Arc<BoxDoor>,
    open: HashMap<CallRef, Arc<Run>>,
    tasks: JoinSet<()>,
}

impl Boxes {
    fn open(
        &mut self,
        call: &CallRef,
        rules: Vec<EgressRule>,
        socket: Option<OwnedFd>,
    ) -> Result<String, String> {
        if self.open.len() >= MAX_BOXES || self.open.contains_key(call) {
            return Err("this call has a way out already, or too many have".to_owned());
        }
        let listener = listener(socket)?;
        let run = Arc::new(Run::new(Arc::clone(&self.door), call.clone(), rules)?);
        let authority = run.authority().to_owned();
        self.tasks.spawn(accept(Arc::clone(&run), listener));
        self.open.insert(call.clone(), run);
        Ok(authority)
    }

    fn close(&mut self, call: &CallRef) {
        if let Some(run) = self.open.remove(call) {
            run.end();
        }
    }

    async fn close_all(mut self) {
        self.open.values().for_each(|run| run.end());
        let over = async { while self.tasks.join_next().await.is_some() {} };
        // What takes longer is cut off.
        let _ = timeout(PATIENCE, over).await;
    }
}

/// The socket, if it is what it should be: one that listens on a loopback.
fn listener(socket: Option<OwnedFd>) -> Result<TcpListener, String> {
    let socket = socket.ok_or("no socket came with it")?;
    let words = |error: std::io::Error| format!("its socket: {error}");
    let listens = socket_acceptconn(socket.as_fd()).map_err(|errno| words(errno.into()))?;
    let kind = socket_type(socket.as_fd()).map_err(|errno| words(errno.into()))?;
    let listener = StdListener::from(socket);
    let address = listener.local_addr().map_err(words)?;
    if !listens || kind != SocketType::STREAM || !address.ip().is_loopback() {
        return Err("its socket does not listen on a loopback".to_owned());
    }
    listener.set_nonblocking(true).map_err(words)?;
    TcpListener::from_std(listener).map_err(words)
}

/// Takes the connections of a box until it is gone.
async fn accept(run: Arc<Run>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = run.ended() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_OF_A_BOX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(forward::serve(Arc::clone(&run), stream));
                }
                // The program hung up, or there are no descriptors left for a moment.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
        }
    }
    drop(listener);
    let over = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(PATIENCE, over).await;
}
