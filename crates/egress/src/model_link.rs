//! An agent's link. SECURITY: the agent is assumed to be hijacked; all it can choose is the
//! body of a request, one at a time.

use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::sync::Arc;

use protocol::egress::{EgressFault, ModelReply, ModelRequest};
use protocol::frame::LinkError;
use protocol::ids::SessionId;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::chat::{Ask, ModelDoor};
use crate::wire;

/// Frames that may wait for the agent; then the model's server has to wait.
const REPLIES: usize = 16;

/// Requests that may wait while one is looked at.
const REQUESTS: usize = 4;

type Chat = Pin<Box<dyn Future<Output = Option<ModelReply>> + Send>>;

/// The request that is on its way.
struct Running {
    id: u64,
    chat: Chat,
}

/// Serves the link until either side ends it.
pub(crate) async fn serve(door: Arc<ModelDoor>, session: SessionId, stream: StdStream) {
    let (reader, writer) = match wire::halves(stream) {
        Ok(halves) => halves,
        Err(error) => return eprintln!("bulkhead-egress: the link of {session}: {error}"),
    };
    let (asked, mut requests) = mpsc::channel(REQUESTS);
    let (replies, answers) = mpsc::channel(REPLIES);
    // Both end with this function.
    let mut halves = JoinSet::new();
    halves.spawn(read(session.clone(), reader, asked));
    halves.spawn(write(writer, answers));

    let mut running: Option<Running> = None;
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some(request) = request else { return };
                if obey(&door, &session, request, &mut running, &replies).is_err() {
                    return eprintln!("bulkhead-egress: {session} asks and does not read");
                }
            }
            last = end(&mut running) => {
                running = None;
                let Some(last) = last else { return };
                if replies.send(last).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The agent does not read its replies.
struct Deaf;

fn obey(
    door: &Arc<ModelDoor>,
    session: &SessionId,
    request: ModelRequest,
    running: &mut Option<Running>,
    replies: &mpsc::Sender<ModelReply>,
) -> Result<(), Deaf> {
    match request {
        ModelRequest::Chat { id, .. } if running.is_some() => {
            let reason = "the request before it is not over; cancel it first".to_owned();
            let fault = EgressFault::NotAllowed { reason };
            // Waiting here would leave a Cancel unread.
            replies
                .try_send(ModelReply::Failed { id, fault })
                .map_err(|_| Deaf)
        }
        ModelRequest::Chat { id, turn, body } => {
            let (door, replies) = (Arc::clone(door), replies.clone());
            let ask = Ask {
                session: session.clone(),
                id,
                turn,
                body,
            };
            let chat = Box::pin(async move { door.chat(ask, &replies).await });
            *running = Some(Running { id, chat });
            Ok(())
        }
        ModelRequest::Cancel { id } => {
            // Any other is over already.
            if running.as_ref().is_some_and(|running| running.id == id) {
                *running = None;
            }
            Ok(())
        }
    }
}

async fn end(running: &mut Option<Running>) -> Option<ModelReply> {
    match running {
        Some(running) => running.chat.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn read(session: SessionId, mut reader: OwnedReadHalf, asked: mpsc::Sender<ModelRequest>) {
    loop {
        match wire::read(&mut reader).await {
            Ok(request) => {
                if asked.send(request).await.is_err() {
                    return;
                }
            }
            Err(LinkError::Closed) => return,
            Err(error) => {
                return eprintln!(
                    "bulkhead-egress: the link of {session} ended: {}",
                    wire::brief(&error)
                );
            }
        }
    }
}

async fn write(mut writer: OwnedWriteHalf, mut answers: mpsc::Receiver<ModelReply>) {
    while let Some(reply) = answers.recv().await {
        // The agent is gone; its other half says so too.
        if wire::write(&mut writer, &reply).await.is_err() {
            return;
        }
    }
}
