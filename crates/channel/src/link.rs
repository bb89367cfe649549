//! The link to the gateway, as every channel uses it.
//!
//! [`connect`] starts a task that owns the link for as long as the program runs. The gateway may
//! be restarted under it: the supervisor then hands over a new socket, the task proves itself
//! again, and sends again what was not accepted. While there is no link, messages are kept and
//! everything else is refused at once.

use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::channel::{ChannelEvent, ChannelRequest};
use protocol::frame::{self, LinkError};
use protocol::identity::IdentityKey;
use protocol::ids::ChannelId;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc, watch};

use crate::pending::{Pending, TooMany};

/// Requests and events that wait, each way.
const QUEUE: usize = 256;

/// How long the gateway may take until it says welcome.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How long the gateway may take to read a frame.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Whether requests get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There is no link, or this program has not proven itself yet.
    Down,
    /// The gateway did not keep a time limit, and this side ended the link. The supervisor has to
    /// be asked for a new one (`Report::Relink`).
    Stuck,
    /// Proven.
    Up,
}

/// Why a request was not sent, nor kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no link to the gateway now.
    #[error("the gateway is not there")]
    Down,
    /// The gateway does not keep up, or too many messages wait for it.
    #[error("too much waits for the gateway")]
    Busy,
}

impl From<TooMany> for SendError {
    fn from(_: TooMany) -> Self {
        Self::Busy
    }
}

/// A handle on the link; clones share it.
#[derive(Clone, Debug)]
pub struct Gateway {
    requests: mpsc::Sender<ChannelRequest>,
    links: mpsc::UnboundedSender<StdStream>,
    waiting: Arc<Waiting>,
    state: watch::Receiver<LinkState>,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: Mutex<Pending>,
    added: Notify,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the task that owns the link, without a link at first; needs a tokio runtime.
///
/// All events but those of the handshake come out of the receiver. `NotAccepted` with
/// `Retry::Later` is for information: the message is sent again without further ado. While
/// nobody takes the events, the link is not read. The task ends when the receiver is dropped.
pub fn connect(key: IdentityKey, channel: ChannelId) -> (Gateway, mpsc::Receiver<ChannelEvent>) {
    let (requests, requested) = mpsc::channel(QUEUE);
    let (links, handed) = mpsc::unbounded_channel();
    let (events, received) = mpsc::channel(QUEUE);
    let (changes, state) = watch::channel(LinkState::Down);
    let waiting = Arc::<Waiting>::default();
    let driver = Driver {
        key,
        channel,
        requested,
        handed,
        events,
        changes,
        waiting: Arc::clone(&waiting),
        link: None,
    };
    tokio::spawn(driver.run());
    (
        Gateway {
            requests,
            links,
            waiting,
            state,
        },
        received,
    )
}

impl Gateway {
    /// Uses this socket from now on; the supervisor says that the gateway is at its other end.
    pub fn attach(&self, socket: StdStream) {
        // The task ends only when nobody wants events any more.
        let _ = self.links.send(socket);
    }

    /// Sends a request without waiting. [`ChannelRequest::Inbound`] is kept until it is accepted or
    /// refused for good, also while there is no link. Everything else is lost with the link:
    /// whoever sent it notices by the missing answer.
    pub fn send(&self, request: ChannelRequest) -> Result<(), SendError> {
        if matches!(request, ChannelRequest::Inbound { .. }) {
            self.waiting.lock().insert(request, Instant::now())?;
            self.waiting.added.notify_one();
            return Ok(());
        }
        if self.state() != LinkState::Up {
            return Err(SendError::Down);
        }
        self.requests
            .try_send(request)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => SendError::Busy,
                mpsc::error::TrySendError::Closed(_) => SendError::Down,
            })
    }

    /// Whether requests get through now.
    pub fn state(&self) -> LinkState {
        *self.state.borrow()
    }

    /// Shows the state and its changes.
    pub fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }
}

/// The task's state.
struct Driver {
    key: IdentityKey,
    channel: ChannelId,
    requested: mpsc::Receiver<ChannelRequest>,
    handed: mpsc::UnboundedReceiver<StdStream>,
    events: mpsc::Sender<ChannelEvent>,
    changes: watch::Sender<LinkState>,
    waiting: Arc<Waiting>,
    link: Option<Open>,
}

/// A link and how far its handshake is.
struct Open {
    reader: FrameReader,
    frames: mpsc::Sender<Vec<u8>>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The challenge is awaited, until then.
    Challenge(Instant),
    /// The proof is sent, and the welcome awaited, until then.
    Welcome(Instant),
    /// Proven.
    Up,
}

/// What the driver has to do next.
enum Step {
    Attach(StdStream),
    Request(ChannelRequest),
    Frame(Result<ChannelEvent, LinkError>),
    SendDue,
    TooSlow,
    End,
}

impl Driver {
    async fn run(mut self) {
        loop {
            let done = match self.next_step().await {
                Step::Attach(socket) => self.attach(socket),
                Step::Request(request) => self.write(&request),
                Step::Frame(frame) => match frame {
                    Ok(event) => self.event(event).await,
                    Err(error) => Err(error),
                },
                Step::SendDue => self.send_due(),
                Step::TooSlow => Err(timed_out()),
                Step::End => return,
            };
            if let Err(error) = done {
                protocol::log!("channel {}: the gateway is gone: {error}", self.channel);
                self.drop_link(state_after(&error));
            }
        }
    }

    async fn next_step(&mut self) -> Step {
        let phase = self.link.as_ref().map(|link| link.phase);
        let up = phase == Some(Phase::Up);
        let due = if up {
            self.waiting.lock().next_due()
        } else {
            None
        };
        tokio::select! {
            () = self.events.closed() => Step::End,
            // The receivers close only with the last handle; the events may still be wanted then.
            Some(socket) = self.handed.recv() => Step::Attach(socket),
            Some(request) = self.requested.recv() => Step::Request(request),
            frame = next_frame(&mut self.link) => Step::Frame(frame),
            () = self.waiting.added.notified(), if up => Step::SendDue,
            () = until(due) => Step::SendDue,
            () = until(phase.and_then(Phase::limit)) => Step::TooSlow,
        }
    }

    fn attach(&mut self, socket: StdStream) -> Result<(), LinkError> {
        self.drop_link(LinkState::Down);
        socket.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(socket)?.into_split();
        let (frames, queue) = mpsc::channel(QUEUE);
        tokio::spawn(write_frames(write, queue));
        let phase = Phase::Challenge(Instant::now() + HANDSHAKE_LIMIT);
        self.link = Some(Open {
            reader: FrameReader::new(read),
            frames,
            phase,
        });
        Ok(())
    }

    fn drop_link(&mut self, state: LinkState) {
        self.link = None;
        self.show(state);
    }

    fn show(&self, state: LinkState) {
        self.changes
            .send_if_modified(|shown| std::mem::replace(shown, state) != state);
    }

    async fn event(&mut self, event: ChannelEvent) -> Result<(), LinkError> {
        let Some(phase) = self.link.as_ref().map(|link| link.phase) else {
            return Ok(());
        };
        match (phase, event) {
            (Phase::Challenge(limit), ChannelEvent::Challenge { nonce }) => {
                let signature = self.key.prove(&self.channel, nonce);
                self.enter(Phase::Welcome(limit));
                self.write(&ChannelRequest::Prove {
                    channel: self.channel.clone(),
                    signature,
                })
            }
            (Phase::Welcome(_), ChannelEvent::Welcome) => {
                self.enter(Phase::Up);
                self.show(LinkState::Up);
                self.waiting.lock().link_replaced(Instant::now());
                self.send_due()
            }
            (Phase::Up, ChannelEvent::Challenge { .. } | ChannelEvent::Welcome) => {
                Err(LinkError::OutOfOrder {
                    expected: "an event",
                    got: "a handshake",
                })
            }
            (Phase::Up, event) => {
                self.note(&event);
                // Nobody wants events any more: the next step is the end.
                let _ = self.events.send(event).await;
                Ok(())
            }
            (Phase::Challenge(_), _) => Err(LinkError::OutOfOrder {
                expected: "challenge",
                got: "another event",
            }),
            (Phase::Welcome(_), _) => Err(LinkError::OutOfOrder {
                expected: "welcome",
                got: "another event",
            }),
        }
    }

    fn note(&self, event: &ChannelEvent) {
        if let ChannelEvent::Accepted { message, .. } = event {
            self.waiting.lock().accepted(message);
        } else if let ChannelEvent::NotAccepted { message, retry, .. } = event {
            self.waiting
                .lock()
                .not_accepted(message, *retry, Instant::now());
        }
    }

    fn enter(&mut self, phase: Phase) {
        if let Some(link) = &mut self.link {
            link.phase = phase;
        }
    }

    fn send_due(&mut self) -> Result<(), LinkError> {
        let due = self.waiting.lock().take_due(Instant::now());
        due.iter().try_for_each(|request| self.write(request))
    }

    /// Queues a frame; without a link it is lost, as [`Gateway::send`] says.
    fn write(&self, request: &ChannelRequest) -> Result<(), LinkError> {
        let Some(link) = &self.link else {
            return Ok(());
        };
        let bytes = frame::encode(request)?;
        link.frames.try_send(bytes).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => timed_out(),
            mpsc::error::TrySendError::Closed(_) => LinkError::Closed,
        })
    }
}

impl Phase {
    fn limit(self) -> Option<Instant> {
        match self {
            Self::Challenge(limit) | Self::Welcome(limit) => Some(limit),
            Self::Up => None,
        }
    }
}

/// A peer that closed the link comes again by itself; one that is stuck does not.
fn state_after(error: &LinkError) -> LinkState {
    match error {
        LinkError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => LinkState::Stuck,
        LinkError::Closed
        | LinkError::Io(_)
        | LinkError::TooLong(_)
        | LinkError::Malformed(_)
        | LinkError::OutOfOrder { .. } => LinkState::Down,
    }
}

fn timed_out() -> LinkError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

async fn next_frame(link: &mut Option<Open>) -> Result<ChannelEvent, LinkError> {
    match link {
        Some(link) => link.reader.next().await,
        None => std::future::pending().await,
    }
}

/// Writes what is queued. A peer that does not read is shut out; the reader then sees the end.
async fn write_frames(mut to: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        match tokio::time::timeout(WRITE_LIMIT, to.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Reads frames; memory grows with what arrives, not with what is announced.
struct FrameReader {
    from: OwnedReadHalf,
    buffer: Vec<u8>,
}

impl FrameReader {
    /// What is read at once, and what is kept when no frame needs more.
    const CHUNK: usize = 16 * 1024;

    fn new(from: OwnedReadHalf) -> Self {
        Self {
            from,
            buffer: Vec::new(),
        }
    }

    /// Waits for a frame. Safe to cancel: what has arrived stays in the buffer.
    async fn next<T: DeserializeOwned>(&mut self) -> Result<T, LinkError> {
        loop {
            if let Some(value) = self.take()? {
                return Ok(value);
            }
            self.buffer.reserve(Self::CHUNK);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Err(match self.buffer.is_empty() {
                    true => LinkError::Closed,
                    false => std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into(),
                });
            }
        }
    }

    fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LinkError> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let len = frame::announced(*header)?;
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let value = frame::decode(body)?;
        self.buffer.drain(..4 + len);
        if self.buffer.is_empty() {
            self.buffer.shrink_to(Self::CHUNK);
        }
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use protocol::channel::Retry;
    use protocol::frame::Link;
    use protocol::identity::proves;
    use protocol::ids::{ConversationId, MessageId, Nonce, SenderId, SessionId};

    use super::*;

    type GatewayEnd = Link<ChannelEvent, ChannelRequest>;

    fn inbound(id: &str) -> ChannelRequest {
        ChannelRequest::Inbound {
            message: MessageId::parse(id).unwrap(),
            sender: SenderId::parse("s").unwrap(),
            sender_name: "S".to_owned(),
            conversation: ConversationId::parse("c").unwrap(),
            text: "hello".to_owned(),
        }
    }

    fn accepted(id: &str) -> ChannelEvent {
        ChannelEvent::Accepted {
            message: MessageId::parse(id).unwrap(),
            session: SessionId::parse("x").unwrap(),
        }
    }

    fn web() -> ChannelId {
        ChannelId::parse("web").unwrap()
    }

    fn handed(gateway: &Gateway) -> GatewayEnd {
        let (ours, theirs) = StdStream::pair().unwrap();
        gateway.attach(theirs);
        let end = GatewayEnd::new(ours);
        end.set_timeout(Some(Duration::from_secs(5))).unwrap();
        end
    }

    /// The gateway's part of the handshake.
    fn welcome(end: &GatewayEnd, key: &IdentityKey) {
        let nonce = Nonce([9; 16]);
        end.send(&ChannelEvent::Challenge { nonce }).unwrap();
        let ChannelRequest::Prove { channel, signature } = end.receive().unwrap() else {
            panic!("no proof")
        };
        assert_eq!(channel, web());
        assert!(proves(&key.public(), &channel, nonce, &signature));
        end.send(&ChannelEvent::Welcome).unwrap();
    }

    /// Runs the driver on a thread of its own, so that the test can block on the other end.
    fn driven() -> (Gateway, mpsc::Receiver<ChannelEvent>, IdentityKey) {
        let (give, take) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (gateway, events) = connect(IdentityKey::from_seed(&[7; 32]), web());
                give.send((gateway.clone(), events)).unwrap();
                gateway.requests.closed().await;
            });
        });
        let (gateway, events) = take.recv().unwrap();
        (gateway, events, IdentityKey::from_seed(&[7; 32]))
    }

    fn wait_for(gateway: &Gateway, state: LinkState) {
        let end = Instant::now() + Duration::from_secs(5);
        while gateway.state() != state {
            assert!(Instant::now() < end, "the link did not become {state:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn after_the_handshake_requests_and_events_pass() {
        let (gateway, mut events, key) = driven();
        assert_eq!(
            gateway.send(ChannelRequest::Delivered { delivery: 1 }),
            Err(SendError::Down)
        );
        let end = handed(&gateway);
        welcome(&end, &key);
        wait_for(&gateway, LinkState::Up);
        gateway
            .send(ChannelRequest::Delivered { delivery: 2 })
            .unwrap();
        assert_eq!(
            end.receive().unwrap(),
            ChannelRequest::Delivered { delivery: 2 }
        );
        end.send(&ChannelEvent::LoginRefused { id: 3 }).unwrap();
        assert_eq!(
            events.blocking_recv(),
            Some(ChannelEvent::LoginRefused { id: 3 })
        );
    }

    #[test]
    fn what_was_not_accepted_is_sent_again_over_the_next_link() {
        let (gateway, mut events, key) = driven();
        gateway.send(inbound("1")).unwrap();
        gateway.send(inbound("2")).unwrap();
        let end = handed(&gateway);
        welcome(&end, &key);
        assert_eq!(
            (end.receive().unwrap(), end.receive().unwrap()),
            (inbound("1"), inbound("2"))
        );
        end.send(&accepted("1")).unwrap();
        assert_eq!(events.blocking_recv(), Some(accepted("1")));
        drop(end);
        wait_for(&gateway, LinkState::Down);
        let end = handed(&gateway);
        welcome(&end, &key);
        assert_eq!(end.receive().unwrap(), inbound("2"));
    }

    #[test]
    fn later_brings_the_message_again_and_never_does_not() {
        let (gateway, mut events, key) = driven();
        let end = handed(&gateway);
        welcome(&end, &key);
        let message = MessageId::parse("1").unwrap();
        let refusal = |retry| ChannelEvent::NotAccepted {
            message: message.clone(),
            retry,
            text: "no".to_owned(),
        };
        gateway.send(inbound("1")).unwrap();
        for retry in [Retry::Later, Retry::Never] {
            assert_eq!(end.receive().unwrap(), inbound("1"));
            end.send(&refusal(retry)).unwrap();
            assert_eq!(events.blocking_recv(), Some(refusal(retry)));
        }
        assert!(gateway.waiting.lock().is_empty());
    }

    #[test]
    fn an_event_before_the_welcome_ends_the_link() {
        let (gateway, _events, _key) = driven();
        let end = handed(&gateway);
        end.send(&ChannelEvent::Welcome).unwrap();
        assert!(end.receive().is_err());
        assert_eq!(gateway.state(), LinkState::Down);
    }
}
