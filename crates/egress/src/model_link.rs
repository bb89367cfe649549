//! An agent's link. SECURITY: the agent is assumed to be hijacked; all it can choose is the
//! body of a request, one at a time.

use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::egress::{EgressFault, ModelReply, ModelRequest};
use protocol::ids::SessionId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::chat::{Ask, ModelDoor};
use crate::wire;

/// Frames that may wait for the agent; then the model's server has to wait.
const REPLIES: usize = 16;

/// Requests that may wait while one is looked at.
const REQUESTS: usize = 4;

/// Requests that an agent may make at once; each puts two rows into the record.
const BURST: f64 = 300.0;

/// Requests a second after that. No model answers faster for long.
const PER_SECOND: f64 = 5.0;

type Chat = Pin<Box<dyn Future<Output = Option<ModelReply>> + Send>>;

/// The request that is on its way.
struct Running {
    id: u64,
    chat: Chat,
}

/// How fast an agent asks: one that asks without end is slowed down, and fills neither the
/// record nor the model's time.
struct Pace {
    left: f64,
    at: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            at: now,
        }
    }

    /// Counts a request; how long it has to wait.
    fn wait(&mut self, now: Instant) -> Duration {
        let filled = now.duration_since(self.at).as_secs_f64() * PER_SECOND;
        self.left = (self.left + filled).min(BURST) - 1.0;
        self.at = now;
        Duration::from_secs_f64((-self.left).max(0.0) / PER_SECOND)
    }
}

/// Serves the link until either side ends it.
pub(crate) async fn serve(door: Arc<ModelDoor>, session: SessionId, stream: StdStream) {
    let (reader, writer) = match wire::halves(stream) {
        Ok(halves) => halves,
        Err(error) => return protocol::log!("bulkhead-egress: the link of {session}: {error}"),
    };
    let (asked, mut requests) = mpsc::channel(REQUESTS);
    let (replies, answers) = mpsc::channel(REPLIES);
    // Both end with this function.
    let mut halves = JoinSet::new();
    halves.spawn(wire::read_all(session.to_string(), reader, asked));
    halves.spawn(wire::write_all(writer, answers));

    let mut running: Option<Running> = None;
    let mut pace = Pace::new(Instant::now());
    loop {
        tokio::select! {
            request = requests.recv() => {
                let Some(request) = request else { return };
                if obey(&door, &session, request, &mut running, &mut pace, &replies).is_err() {
                    return protocol::log!("bulkhead-egress: {session} asks and does not read");
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
    pace: &mut Pace,
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
            let wait = pace.wait(Instant::now());
            let chat = Box::pin(async move {
                sleep(wait).await;
                door.chat(ask, &replies).await
            });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_asks_without_end_is_slowed_down_and_a_quick_one_is_not() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let at_once = (0..1000).take_while(|_| pace.wait(now).is_zero()).count();
        assert_eq!(at_once, 300);
        assert!(pace.wait(now) > Duration::from_millis(200));
        assert!(pace.wait(now + Duration::from_secs(60)).is_zero());
    }
}
