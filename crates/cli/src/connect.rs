//! The sockets of a running Bulkhead, and the proofs that open them.

use std::io;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use config::{Home, OPERATOR, TERMINAL, read_key};
use protocol::channel::{ApprovalAnswer, ChannelEvent, ChannelRequest};
use protocol::frame::{Link, LinkError};
use protocol::ids::{ChannelId, Digest, Signature};
use protocol::operator::{OperatorReply, OperatorRequest};
use protocol::passkey::Proof;
use protocol::supervisor::{SupervisorReply, SupervisorRequest};

use crate::fault::Fault;

/// How long a program may take for an answer to a question of the operator. Longer than the
/// gateway itself waits for the record.
const LIMIT: Duration = Duration::from_secs(20);

/// How long stopping everything may take.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How long the supervisor may take to end when everything else has.
const END_LIMIT: Duration = Duration::from_secs(5);

/// How often it is looked for meanwhile.
const GLANCE: Duration = Duration::from_millis(2);

/// Connects to a socket of the run folder.
pub(crate) fn socket(home: &Home, name: &'static str) -> Result<UnixStream, Fault> {
    home.connect(name).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Fault::NotUp,
        _ => Fault::io(format!("connect to {name} in {:?}", home.run()))(error),
    })
}

/// The link to the supervisor. Whoever can open its socket owns this installation.
pub(crate) struct Supervisor {
    link: Link<SupervisorRequest, SupervisorReply>,
    home: Home,
}

impl Supervisor {
    /// Connects; [`Fault::NotUp`] if none runs.
    pub(crate) fn connect(home: &Home) -> Result<Self, Fault> {
        let link = Link::new(socket(home, "supervisor.sock")?);
        link.set_timeout(Some(LIMIT))
            .map_err(Fault::link("the supervisor"))?;
        let home = home.clone();
        Ok(Self { link, home })
    }

    /// Asks one thing.
    pub(crate) fn ask(&self, request: &SupervisorRequest) -> Result<SupervisorReply, Fault> {
        let failed = |error| Fault::link("the supervisor")(error);
        self.link.send(request).map_err(failed)?;
        self.link.receive().map_err(failed)
    }

    /// Stops everything, and waits until it has and can be started again.
    pub(crate) fn stop(&self) -> Result<(), Fault> {
        self.link
            .set_timeout(Some(STOP_LIMIT))
            .map_err(Fault::link("the supervisor"))?;
        match self.ask(&SupervisorRequest::Down)? {
            SupervisorReply::Stopped => self.wait_until_gone(),
            SupervisorReply::Status { .. }
            | SupervisorReply::Frozen { .. }
            | SupervisorReply::Challenge { .. }
            | SupervisorReply::Resumed
            | SupervisorReply::Refused { .. } => Err(Fault::Unexpected("the supervisor")),
        }
    }

    /// It still has to end itself; until then it would answer whoever starts it again.
    fn wait_until_gone(&self) -> Result<(), Fault> {
        let deadline = Instant::now() + END_LIMIT;
        while self.home.connect("supervisor.sock").is_ok() {
            if Instant::now() >= deadline {
                return Err(Fault::Refused(
                    "all programs are stopped, but the supervisor does not end".to_owned(),
                ));
            }
            thread::sleep(GLANCE);
        }
        Ok(())
    }
}

/// The link to the gateway for the owner's commands.
pub(crate) struct Operator(Link<OperatorRequest, OperatorReply>);

impl Operator {
    /// Connects and proves to hold the operator's key.
    pub(crate) fn connect(home: &Home) -> Result<Self, Fault> {
        let stream = proven(home, OPERATOR)?.into_stream();
        Ok(Self(Link::new(stream)))
    }

    /// Asks one thing; a refusal is a fault.
    pub(crate) fn ask(&self, request: &OperatorRequest) -> Result<OperatorReply, Fault> {
        let failed = |error| Fault::link("the gateway")(error);
        self.0.send(request).map_err(failed)?;
        match self.0.receive().map_err(failed)? {
            OperatorReply::Refused { reason } => Err(Fault::Refused(reason)),
            reply => Ok(reply),
        }
    }

    /// Asks for something that has no other answer than that it is done.
    pub(crate) fn tell(&self, request: &OperatorRequest) -> Result<(), Fault> {
        match self.ask(request)? {
            OperatorReply::Done => Ok(()),
            _ => Err(Fault::Unexpected("the gateway")),
        }
    }
}

/// Connects to the gateway as the terminal: a channel like the others. Without a time limit,
/// since answers take as long as the model does.
pub(crate) fn terminal(home: &Home) -> Result<Link<ChannelRequest, ChannelEvent>, Fault> {
    let link = proven(home, TERMINAL)?;
    link.set_timeout(None).map_err(Fault::link("the gateway"))?;
    Ok(link)
}

/// The operator key's yes to the approval with this digest.
pub(crate) fn approve(home: &Home, digest: Digest) -> Result<Signature, Fault> {
    let operator = ChannelId::parse(OPERATOR).map_err(|_| Fault::Unexpected("this program"))?;
    Ok(read_key(home, &operator)?.approve(digest))
}

/// What comes with an answer that was typed in a terminal: a yes is signed, a no need not be.
pub(crate) fn proof(home: &Home, answer: ApprovalAnswer, digest: Digest) -> Result<Proof, Fault> {
    match answer {
        ApprovalAnswer::Approve => Ok(Proof::Operator {
            signature: approve(home, digest)?,
        }),
        ApprovalAnswer::Deny => Ok(Proof::Link),
    }
}

/// Answers the gateway's challenge as `name`.
fn proven(home: &Home, name: &'static str) -> Result<Link<ChannelRequest, ChannelEvent>, Fault> {
    let failed = |error| Fault::link("the gateway")(error);
    let link = Link::<ChannelRequest, ChannelEvent>::new(socket(home, "operator.sock")?);
    link.set_timeout(Some(LIMIT)).map_err(failed)?;
    let channel = ChannelId::parse(name).map_err(|_| Fault::Unexpected("the gateway"))?;
    let key = read_key(home, &channel)?;
    let ChannelEvent::Challenge { nonce } = link.receive().map_err(failed)? else {
        return Err(Fault::Unexpected("the gateway"));
    };
    let signature = key.prove(&channel, nonce);
    link.send(&ChannelRequest::Prove { channel, signature })
        .map_err(failed)?;
    match link.receive() {
        Ok(ChannelEvent::Welcome) => Ok(link),
        Ok(_) => Err(Fault::Unexpected("the gateway")),
        Err(LinkError::Closed) => Err(Fault::Refused(format!(
            "the gateway did not accept the key {:?}; it knows the keys that were there when it \
             started. `bulkhead down` and `bulkhead up` make it read them again",
            home.keys().join(format!("{name}.key"))
        ))),
        Err(error) => Err(failed(error)),
    }
}
