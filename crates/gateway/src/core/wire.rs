//! What reaches the gateway, and the threads that read it. Each link has one thread; all of
//! them end in one queue, and the gateway's state is touched by nobody but its one loop.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel};
use std::thread;
use std::time::Duration;

use config::{OPERATOR, TERMINAL};
use protocol::agent::{AgentCommand, AgentRequest};
use protocol::channel::{ChannelEvent, ChannelRequest};
use protocol::control::{Control, GatewayConfig, ProgramEnd};
use protocol::egress::{FetchReply, FetchRequest};
use protocol::frame::{Link, LinkError};
use protocol::identity::proves;
use protocol::ids::{ChannelId, Nonce, PublicKey, SessionId, random};
use protocol::operator::{OperatorReply, OperatorRequest};
use protocol::runner::{RunReply, RunRequest};
use protocol::workspace::{HistoryReply, HistoryRequest};
use scan::Finding;
use serde::{Serialize, de::DeserializeOwned};

use super::leaks::Shared;

/// How long a peer may take to prove who it is.
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a command of the owner may take to be answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The most connections of `bulkhead` at once.
const MAX_CONNECTIONS: usize = 64;

/// The stack of a reading thread; JSON is at most 128 levels deep.
const STACK: usize = 256 * 1024;

/// One start of a link; a link that was handed over again has another number.
pub(super) type LinkId = u64;

/// A link over which a channel's events go out.
pub(super) type ChannelLink = Link<ChannelEvent, ChannelRequest>;

/// A link to an agent.
pub(super) type AgentLink = Link<AgentCommand, AgentRequest>;

/// The link to the program that runs tools.
pub(super) type RunnerLink = Link<RunRequest, RunReply>;

/// The link to egress, for what tools ask of hosts.
pub(super) type DoorLink = Link<FetchRequest, FetchReply>;

/// The link to the program that keeps the workspace.
pub(super) type WorkspaceLink = Link<HistoryRequest, HistoryReply>;

/// Something that reached the gateway.
pub(super) enum Event {
    /// The supervisor said something.
    Control(Control<GatewayConfig>, Option<OwnedFd>),
    /// The supervisor is gone.
    ControlLost,
    /// A channel's program proved who it is.
    ChannelUp(LinkId, ChannelId, ChannelLink),
    /// A channel's program said something.
    Channel(LinkId, ChannelRequest),
    /// A channel's link is gone.
    ChannelGone(LinkId),
    /// An agent said something; with what of the vault is in the arguments of a call.
    Agent(SessionId, LinkId, AgentRequest, Vec<Finding>),
    /// An agent's link is gone; not closed in order if it sent what is no frame.
    AgentGone(SessionId, LinkId, LinkError),
    /// The runner said something; with what was taken out of it.
    Runner(LinkId, RunReply, Vec<Finding>),
    /// The runner's link is gone.
    RunnerGone(LinkId),
    /// Egress said something; with what was taken out of it.
    Door(LinkId, FetchReply, Vec<Finding>),
    /// The link to egress is gone.
    DoorGone(LinkId),
    /// The vault's link is gone.
    MarksGone(LinkId),
    /// The program that keeps the workspace said something.
    Workspace(LinkId, HistoryReply),
    /// Its link is gone.
    WorkspaceGone(LinkId),
    /// The owner wants something; answered through the sender.
    Operator(OperatorRequest, Sender<OperatorReply>),
}

/// Reads the control link.
pub(super) fn read_control(
    control: ProgramEnd<GatewayConfig>,
    events: SyncSender<Event>,
) -> std::io::Result<()> {
    spawn("control", move || {
        loop {
            let event = match control.receive() {
                Ok((frame, fd)) => Event::Control(frame, fd),
                Err(_) => Event::ControlLost,
            };
            let over = matches!(event, Event::ControlLost);
            if events.send(event).is_err() || over {
                return;
            }
        }
    })
}

/// Reads the link of a channel's program that the supervisor started as `channel`, once it
/// has proved that it is.
pub(super) fn read_channel(
    id: LinkId,
    stream: UnixStream,
    channel: ChannelId,
    key: PublicKey,
    events: SyncSender<Event>,
) -> std::io::Result<()> {
    spawn("channel", move || {
        let link = ChannelLink::new(stream);
        match challenge(&link, &[(channel, key)]) {
            Ok(channel) => follow_channel(id, link, channel, &events),
            Err(error) => {
                protocol::log!(
                    "bulkhead-gateway: a channel's program did not prove who it is: {error}"
                )
            }
        }
    })
}

/// Reads the link of an agent.
pub(super) fn read_agent(
    id: LinkId,
    session: SessionId,
    link: AgentLink,
    looked_for: Shared,
    events: SyncSender<Event>,
) -> std::io::Result<()> {
    let gone = session.clone();
    read(
        "agent",
        link,
        events,
        move |request| {
            let found = looked_for.in_call(&request);
            Event::Agent(session.clone(), id, request, found)
        },
        move |error| Event::AgentGone(gone, id, error),
    )
}

/// Reads the link of the runner.
pub(super) fn read_runner(
    id: LinkId,
    link: RunnerLink,
    looked_for: Shared,
    events: SyncSender<Event>,
) -> std::io::Result<()> {
    read(
        "runner",
        link,
        events,
        move |reply| {
            let (reply, found) = looked_for.out_of_run(reply);
            Event::Runner(id, reply, found)
        },
        move |_| Event::RunnerGone(id),
    )
}

/// Reads the link of egress.
pub(super) fn read_door(
    id: LinkId,
    link: DoorLink,
    looked_for: Shared,
    events: SyncSender<Event>,
) -> std::io::Result<()> {
    read(
        "door",
        link,
        events,
        move |reply| {
            let (reply, found) = looked_for.out_of_answer(reply);
            Event::Door(id, reply, found)
        },
        move |_| Event::DoorGone(id),
    )
}

/// Reads the link of the program that keeps the workspace.
pub(super) fn read_workspace(
    id: LinkId,
    link: WorkspaceLink,
    looked_for: Shared,
    events: SyncSender<Event>,
) -> std::io::Result<()> {
    read(
        "workspace",
        link,
        events,
        move |reply| Event::Workspace(id, looked_for.out_of_history(reply)),
        move |_| Event::WorkspaceGone(id),
    )
}

fn read<S, R>(
    name: &str,
    link: Link<S, R>,
    events: SyncSender<Event>,
    mut said: impl FnMut(R) -> Event + Send + 'static,
    gone: impl FnOnce(LinkError) -> Event + Send + 'static,
) -> std::io::Result<()>
where
    S: Serialize + 'static,
    R: DeserializeOwned + 'static,
{
    spawn(name, move || {
        let error = loop {
            match link.receive() {
                Ok(frame) => {
                    if events.send(said(frame)).is_err() {
                        return;
                    }
                }
                Err(error) => break error,
            }
        };
        link.close();
        // If nobody listens any more, the gateway is ending.
        let _ = events.send(gone(error));
    })
}

/// Takes connections of `bulkhead`: the owner's commands, and terminals.
pub(super) fn accept(
    listener: UnixListener,
    keys: Vec<(ChannelId, PublicKey)>,
    first_id: LinkId,
    events: SyncSender<Event>,
) -> std::io::Result<()> {
    let keys: Vec<_> = keys
        .into_iter()
        .filter(|(name, _)| matches!(name.as_str(), OPERATOR | TERMINAL))
        .collect();
    let (keys, open) = (Arc::new(keys), Arc::new(()));
    spawn("accept", move || {
        for (stream, id) in listener.incoming().zip(first_id..) {
            let Ok(stream) = stream else { continue };
            if Arc::strong_count(&open) > MAX_CONNECTIONS {
                continue;
            }
            let (keys, events, guard) = (keys.clone(), events.clone(), open.clone());
            // Without a thread the connection closes, which `bulkhead` reports.
            let _ = spawn("operator", move || {
                let _guard = guard;
                serve(id, stream, &keys, &events);
            });
        }
    })
}

fn serve(
    id: LinkId,
    stream: UnixStream,
    keys: &[(ChannelId, PublicKey)],
    events: &SyncSender<Event>,
) {
    let Ok(second) = stream.try_clone() else {
        return;
    };
    let link = ChannelLink::new(stream);
    match challenge(&link, keys) {
        Ok(name) if name.as_str() == TERMINAL => follow_channel(id, link, name, events),
        Ok(_) => {
            if link.send(&ChannelEvent::Welcome).is_ok() {
                serve_operator(&Link::new(second), events);
            }
        }
        Err(_) => link.close(),
    }
}

fn serve_operator(link: &Link<OperatorReply, OperatorRequest>, events: &SyncSender<Event>) {
    while let Ok(request) = link.receive() {
        let (answer, answered) = channel();
        if events.send(Event::Operator(request, answer)).is_err() {
            return;
        }
        let reply =
            answered
                .recv_timeout(ANSWER_TIMEOUT)
                .unwrap_or_else(|_| OperatorReply::Refused {
                    reason: "the gateway did not answer in time; see `bulkhead status`".to_owned(),
                });
        if link.send(&reply).is_err() {
            return;
        }
    }
}

fn follow_channel(id: LinkId, link: ChannelLink, channel: ChannelId, events: &SyncSender<Event>) {
    let Ok(second) = link.try_clone() else { return };
    if events.send(Event::ChannelUp(id, channel, second)).is_err() {
        return;
    }
    while let Ok(request) = link.receive() {
        if events.send(Event::Channel(id, request)).is_err() {
            return;
        }
    }
    link.close();
    // If nobody listens any more, the gateway is ending.
    let _ = events.send(Event::ChannelGone(id));
}

/// Asks the peer to prove that it is one of these, and says which.
fn challenge(link: &ChannelLink, keys: &[(ChannelId, PublicKey)]) -> Result<ChannelId, LinkError> {
    let refused = |got| LinkError::OutOfOrder {
        expected: "a proof with the channel's own key",
        got,
    };
    let nonce = Nonce(random().map_err(|error| std::io::Error::other(error.to_string()))?);
    link.set_timeout(Some(PROOF_TIMEOUT))?;
    link.send(&ChannelEvent::Challenge { nonce })?;
    let ChannelRequest::Prove { channel, signature } = link.receive()? else {
        return Err(refused("another request"));
    };
    let known = keys.iter().find(|(name, _)| *name == channel);
    match known {
        Some((_, key)) if proves(key, &channel, nonce, &signature) => {
            link.set_timeout(None)?;
            Ok(channel)
        }
        Some(_) => Err(refused("a proof that does not hold")),
        None => Err(refused("the name of another channel")),
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(work)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use protocol::identity::IdentityKey;

    use super::*;

    fn prove_as(claimed: &str, wanted: &str, own_key: bool) -> Result<ChannelId, LinkError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (key, _) = IdentityKey::generate().unwrap();
        let (other, _) = IdentityKey::generate().unwrap();
        let claimed = ChannelId::parse(claimed).unwrap();
        let known = [(ChannelId::parse(wanted).unwrap(), key.public())];
        let signer = if own_key { key } else { other };
        let peer = thread::spawn(move || {
            let link = Link::<ChannelRequest, ChannelEvent>::new(theirs);
            let ChannelEvent::Challenge { nonce } = link.receive().unwrap() else {
                panic!("no challenge")
            };
            let signature = signer.prove(&claimed, nonce);
            link.send(&ChannelRequest::Prove {
                channel: claimed,
                signature,
            })
            .unwrap();
        });
        let result = challenge(&ChannelLink::new(ours), &known);
        peer.join().unwrap();
        result
    }

    #[test]
    fn only_the_channel_itself_proves_that_it_is() {
        assert!(prove_as("telegram", "telegram", true).is_ok());
        assert!(prove_as("telegram", "telegram", false).is_err());
        assert!(prove_as("web", "telegram", true).is_err());
    }

    #[test]
    fn anything_before_the_proof_ends_the_link() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let link = Link::<ChannelRequest, ChannelEvent>::new(theirs);
        link.send(&ChannelRequest::Delivered { delivery: 1 })
            .unwrap();
        assert!(challenge(&ChannelLink::new(ours), &[]).is_err());
    }
}
