//! The control link: how a program is started, gets its links, and is stopped.
//!
//! The supervisor starts every program with this link as its standard input and with no
//! other descriptor but standard error. All further links are sockets made by the supervisor
//! and handed over here (`SCM_RIGHTS`, unix(7)), each with the name of who is at its other
//! end. So a program has exactly the links that it was given, nobody connects to anybody
//! by a path, and who is at the other end is not a claim. When a peer dies, its link reads
//! as closed; when it is started again, a new link with the same [`Peer`] comes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::agent::ModelSpec;
use crate::call::WorkspacePath;
use crate::engine::EngineConfig;
use crate::frame::{self, LinkError};
use crate::freeze::{By, Frozen, PanicWord};
use crate::ids::{ChannelId, PublicKey, SecretName, SessionId};
use crate::outbound::EgressRule;
use crate::rules::{OwnerRules, RulesNews};
use crate::runner::{Backend, Limits};
use crate::time::Millis;

/// Who is at the other end of a link.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// The gateway.
    Gateway,
    /// The ledger.
    Ledger,
    /// The vault.
    Vault,
    /// Egress.
    Egress,
    /// The program that runs tools in boxes.
    Sandbox,
    /// The program that keeps the workspace.
    Workspace,
    /// A channel's program.
    Channel(ChannelId),
    /// The agent of a session.
    Agent(SessionId),
}

/// From the supervisor to a program. `C` is what that program is told at its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Control<C> {
    /// First, and once.
    Start {
        /// The program's slice of the configuration.
        config: C,
    },
    /// A link; the frame carries its socket.
    Link {
        /// Who is at the other end.
        peer: Peer,
    },
    /// The socket on which this program listens; the frame carries it.
    Listener,
    /// The agent that was asked for could not be started. Only to the gateway.
    NoAgent {
        /// Whose.
        session: SessionId,
        /// Why.
        reason: String,
    },
    /// The configuration was changed. Only to the gateway, to egress and to who keeps the workspace.
    Rules {
        /// What became of the rules.
        news: RulesNews,
    },
    /// Everything is frozen: end what runs, begin nothing. Only to the gateway; each time that
    /// somebody wants it, and after each of its starts while it lasts.
    Frozen {
        /// The freeze.
        frozen: Frozen,
    },
    /// The operator key ended the freeze: record that, then go on. Only to the gateway. Answered by
    /// [`Report::Resumed`] or [`Report::NotResumed`].
    Resume {
        /// Which freeze.
        since: Millis,
        /// The key whose signature was verified.
        key: PublicKey,
        /// Whoever wants it waits no longer than this; later it is not done.
        until: Millis,
    },
    /// Finish what cannot wait, and end.
    Stop,
}

/// From a program to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Report {
    /// Confined, and everything that has to be open is open.
    Ready,
    /// Cannot run, and starting it again will not help; it ends after this.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
    /// Start an agent for this session. Only from the gateway. Its link follows.
    StartAgent {
        /// Whose.
        session: SessionId,
    },
    /// Kill the agent of this session. Only from the gateway. Its link closes.
    StopAgent {
        /// Whose.
        session: SessionId,
    },
    /// Somebody who may wants everything frozen. Only from the gateway.
    Panic {
        /// Who.
        by: By,
    },
    /// The row of this freeze is written. Only from the gateway.
    FreezeRecorded {
        /// Which freeze.
        since: Millis,
    },
    /// The end of this freeze is in the record, and the gateway goes on. Only from the gateway.
    Resumed {
        /// Which freeze.
        since: Millis,
    },
    /// It is not, and everything stays frozen. Only from the gateway.
    NotResumed {
        /// Why, and what to do.
        reason: String,
    },
    /// The link to this peer is out of step, because an answer did not come in time: make a
    /// new one. Both ends get theirs as a [`Control::Link`].
    Relink {
        /// Who is at the other end.
        peer: Peer,
    },
}

/// What the ledger, the vault and an agent are told: nothing. Their files are in their arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// What the gateway is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// The channels and the keys they prove themselves with; `terminal` and `operator` too.
    pub channels: Vec<(ChannelId, PublicKey)>,
    /// The model.
    pub model: ModelSpec,
    /// Where the workspace is on the host; for texts and for absolute paths in calls.
    pub workspace: PathBuf,
    /// Seconds after which an approval that nobody answered counts as no.
    pub approval_seconds: u32,
    /// The most model calls in one turn.
    pub max_rounds: u32,
    /// Seconds after which an agent without work is stopped.
    pub agent_idle_seconds: u32,
    /// Bounds of each run.
    pub limits: Limits,
    /// Which kind of box.
    pub backend: Backend,
    /// Where the web page is, `http://localhost:4880`; none if there is no page.
    pub web_origin: Option<String>,
    /// What the owner adds to the rules that are shipped.
    pub rules: OwnerRules,
    /// The message that freezes everything; none if the owner chose none.
    pub panic_word: Option<PanicWord>,
}

/// What egress is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressConfig {
    /// Where the model is.
    pub model: ModelRoute,
    /// What else may be reached.
    pub tunnels: Vec<TunnelRule>,
    /// The owner's egress rules.
    pub rules: Vec<EgressRule>,
    /// Certificates that are trusted beside Mozilla's, in PEM: a company's own authority.
    pub extra_roots: Vec<String>,
}

/// Where the model is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRoute {
    /// The model's name, for the record.
    pub name: String,
    /// `http` or `https`.
    pub scheme: Scheme,
    /// A loopback address, or the host that the configuration names as remote.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path of the chat endpoint, beginning with `/`.
    pub path: String,
    /// Whether the host may be another machine, and with which secret as bearer token.
    pub reach: Reach,
    /// Seconds without a byte after which the model counts as too slow.
    pub idle_seconds: u32,
}

/// Where a model may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reach", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reach {
    /// On this machine; egress refuses an address that is not loopback.
    Loopback,
    /// Elsewhere, as `[model.remote]` says.
    Remote {
        /// The secret to attach, if any.
        secret: Option<SecretName>,
    },
}

/// How to speak to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// In the clear.
    Http,
    /// TLS with Mozilla's roots.
    Https,
}

/// A host that a channel may reach, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelRule {
    /// Which channel.
    pub channel: ChannelId,
    /// The host's name, or a loopback address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What the runner is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxConfig {
    /// Where the workspace is on the host.
    pub workspace: PathBuf,
    /// The program that holds the built-in tools.
    pub tool_program: PathBuf,
    /// The program that has container engines make boxes.
    pub engine_program: PathBuf,
    /// Which kind of box, and for that program, with what.
    pub engine: EngineConfig,
    /// Where cgroups for boxes can be made.
    pub groups: BoxGroups,
    /// How many boxes are kept ready for the next calls, of each kind.
    pub spare_boxes: u32,
    /// The bounds of those.
    pub limits: Limits,
}

/// Where cgroups for boxes can be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "groups", rename_all = "snake_case", deny_unknown_fields)]
pub enum BoxGroups {
    /// Below the group of whoever makes boxes, if it may.
    #[default]
    Own,
    /// In this folder of version 2, where `memory` and `pids` are on.
    V2 {
        /// The folder.
        folder: PathBuf,
    },
    /// In these folders of version 1.
    V1 {
        /// Of the controller `memory`.
        memory: PathBuf,
        /// Of the controller `pids`.
        pids: PathBuf,
    },
}

/// What to do where nothing holds the memory of a box as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryPolicy {
    /// Run; each process is held by the kernel, and their sum is looked at.
    #[default]
    BestEffort,
    /// Refuse to run.
    Enforced,
}

/// What the program that keeps the workspace is told. Its two folders are in its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceConfig {
    /// How much of the past is kept.
    pub keep: HistoryLimits,
    /// What no step of a box may change.
    pub read_only: Vec<WorkspacePath>,
}

/// How much of the past is kept. The newest entry always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryLimits {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Days.
    pub days: u32,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            bytes: 2 * 1024 * 1024 * 1024,
            days: 30,
        }
    }
}

/// What a channel's program is told. Its identity key is a file named in its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "platform", rename_all = "snake_case", deny_unknown_fields)]
pub enum ChannelConfig {
    /// The web page. A [`Control::Listener`] follows.
    Web {
        /// Which channel this is.
        channel: ChannelId,
        /// The port; for the Host and Origin checks.
        port: u16,
    },
    /// Telegram.
    Telegram {
        /// Which channel this is.
        channel: ChannelId,
        /// How to speak to the Bot API server.
        scheme: Scheme,
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// The bot's token in the vault.
        token: SecretName,
    },
}

/// One end of a control link, or of another link on which sockets are handed over: what it
/// sends and what it receives.
#[derive(Debug)]
pub struct ControlEnd<Send, Receive> {
    stream: UnixStream,
    types: std::marker::PhantomData<fn(Send) -> Receive>,
}

/// The most descriptors that go with one frame.
pub const MAX_DESCRIPTORS: usize = 5;

const SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

/// The program's end of its control link.
pub type ProgramEnd<C> = ControlEnd<Report, Control<C>>;

/// The supervisor's end.
pub type SupervisorEnd<C> = ControlEnd<Control<C>, Report>;

impl<Send: Serialize, Receive: DeserializeOwned> ControlEnd<Send, Receive> {
    /// Speaks frames with descriptors over this socket.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            types: std::marker::PhantomData,
        }
    }

    /// The link that is this program's standard input.
    pub fn from_stdin() -> Result<Self, LinkError> {
        let owned: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self::new(UnixStream::from(owned)))
    }

    /// A second handle on the same socket.
    pub fn try_clone(&self) -> Result<Self, LinkError> {
        Ok(Self::new(self.stream.try_clone()?))
    }

    /// Sends a frame.
    pub fn send(&self, value: &Send) -> Result<(), LinkError> {
        frame::write(&self.stream, value)
    }

    /// Sends a frame with a descriptor, which the peer gets a copy of.
    pub fn send_with(&self, value: &Send, fd: OwnedFd) -> Result<(), LinkError> {
        self.send_with_all(value, &[fd.as_fd()])
    }

    /// Sends a frame with descriptors, at most [`MAX_DESCRIPTORS`], which the peer gets copies of.
    pub fn send_with_all(&self, value: &Send, fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let bytes = frame::encode(value)?;
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        }
        let sent = sendmsg(
            &self.stream,
            &[IoSlice::new(&bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
        .map_err(io::Error::from)?;
        // The descriptor went with the first byte; the rest is plain.
        io::Write::write_all(&mut &self.stream, &bytes[sent..])?;
        Ok(())
    }

    /// Waits for a frame, and the descriptor that came with it, if one did.
    pub fn receive(&self) -> Result<(Receive, Option<OwnedFd>), LinkError> {
        let (frame, mut fds) = self.receive_all()?;
        Ok((frame, fds.pop()))
    }

    /// Waits for a frame, and the descriptors that came with it, in the order they were sent.
    pub fn receive_all(&self) -> Result<(Receive, Vec<OwnedFd>), LinkError> {
        let mut fds = Vec::new();
        let mut header = [0; 4];
        self.fill(&mut header, &mut fds)?;
        let mut body = vec![0; frame::announced(header)?];
        match self.fill(&mut body, &mut fds) {
            Err(LinkError::Closed) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Err(error) => Err(error),
            Ok(()) => Ok((frame::decode(&body)?, fds)),
        }
    }

    fn fill(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<(), LinkError> {
        let mut have = 0;
        while have < buffer.len() {
            let mut space = [MaybeUninit::uninit(); SPACE];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut buffer[have..])];
            let got = match recvmsg(
                &self.stream,
                &mut parts,
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Ok(got) => got.bytes,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(io::Error::from(error).into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(came) = message {
                    fds.extend(came);
                    // Whoever sends more than belongs to a frame gets them closed.
                    fds.truncate(MAX_DESCRIPTORS);
                }
            }
            if got == 0 && have == 0 {
                return Err(LinkError::Closed);
            }
            if got == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            have += got;
        }
        Ok(())
    }
}

impl<C: DeserializeOwned> ProgramEnd<C> {
    /// Waits for [`Control::Start`], which has to be the first frame.
    pub fn start(&self) -> Result<C, LinkError> {
        match self.receive()?.0 {
            Control::Start { config } => Ok(config),
            other => Err(LinkError::OutOfOrder {
                expected: "start",
                got: other.name(),
            }),
        }
    }
}

impl<C> Control<C> {
    /// The kind of frame, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Link { .. } => "link",
            Self::Listener => "listener",
            Self::NoAgent { .. } => "no_agent",
            Self::Rules { .. } => "rules",
            Self::Frozen { .. } => "frozen",
            Self::Resume { .. } => "resume",
            Self::Stop => "stop",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_handed_over_and_works() {
        let (a, b) = UnixStream::pair().unwrap();
        let supervisor = SupervisorEnd::<NoConfig>::new(a);
        let program = ProgramEnd::<NoConfig>::new(b);
        supervisor
            .send(&Control::Start {
                config: NoConfig {},
            })
            .unwrap();
        let (left, right) = UnixStream::pair().unwrap();
        supervisor
            .send_with(&Control::Link { peer: Peer::Ledger }, right.into())
            .unwrap();
        supervisor.send(&Control::Stop).unwrap();

        assert_eq!(program.start().unwrap(), NoConfig {});
        let (frame, fd) = program.receive().unwrap();
        assert_eq!(frame, Control::Link { peer: Peer::Ledger });
        let handed = UnixStream::from(fd.unwrap());
        frame::write(&left, &42_u32).unwrap();
        assert_eq!(frame::read::<u32>(&handed).unwrap(), 42);
        let (frame, fd) = program.receive().unwrap();
        assert!(matches!(frame, Control::Stop) && fd.is_none());
    }

    #[test]
    fn a_start_that_is_not_first_is_out_of_order() {
        let (a, b) = UnixStream::pair().unwrap();
        SupervisorEnd::<NoConfig>::new(a)
            .send(&Control::Stop)
            .unwrap();
        let program = ProgramEnd::<NoConfig>::new(b);
        assert!(matches!(
            program.start(),
            Err(LinkError::OutOfOrder {
                expected: "start",
                got: "stop"
            })
        ));
    }
}
