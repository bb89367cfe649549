//! A Bulkhead of its own in a temporary folder, for the demo and the benches: the real
//! programs, started as `up --detach` does, and a conversation with them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use config::{Config, Home};
use protocol::channel::{ApprovalAnswer, ApprovalCard, CallCard, ChannelEvent, ChannelRequest};
use protocol::frame::Link;
use protocol::ids::{ConversationId, MessageId, SenderId, SessionId, hex, random};

use crate::commands::{Context, up};
use crate::connect::{self, Supervisor};
use crate::fault::Fault;
use crate::{interrupt, programs};

/// How long a turn may be silent. The servers behind it answer at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest line with which a server tells its address, in bytes.
const MAX_ADDRESS: u64 = 256;

/// What becomes of the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// It goes with everything in it.
    Remove,
    /// It stays for somebody who wants to look at it.
    Keep,
}

/// A folder of its own and what runs in it. Stopped, and removed, when it is dropped.
pub(crate) struct Scratch {
    root: PathBuf,
    context: Context,
    afterwards: Afterwards,
}

impl Scratch {
    /// Makes a folder below `parent`, for the owner alone. From now on Ctrl-C stops what runs
    /// in it, and so ends whoever waits for it. Call it before any thread is started.
    pub(crate) fn new(parent: &Path, what: &str, afterwards: Afterwards) -> Result<Self, Fault> {
        let root = parent.join(format!("bulkhead-{what}-{}", hex(&random::<4>()?)));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&root)
            .map_err(Fault::io(format!("make the folder {root:?}")))?;
        let folder = root.join("home");
        let home = Home::at(&folder)?;
        let stopped = home.clone();
        let scratch = Self {
            root,
            context: Context {
                home,
                chosen: Some(folder),
            },
            afterwards,
        };
        interrupt::listen(move |_| stop(&stopped))?;
        Ok(scratch)
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The home in it.
    pub(crate) fn home(&self) -> &Home {
        &self.context.home
    }

    /// Writes this configuration, and makes what a first start needs.
    pub(crate) fn configure(&self, text: &str) -> Result<Config, Fault> {
        let home = self.home();
        home.create()?;
        let path = home.config_file();
        fs::write(&path, text).map_err(Fault::io(format!("write {path:?}")))?;
        let config = Config::load(home)?;
        up::prepare(home, &config)?;
        Ok(config)
    }

    /// Starts all programs and comes back when they are ready.
    pub(crate) fn up(&self) -> Result<(), Fault> {
        up::start(&self.context)
    }

    /// The same with the programs that lie beside this `bulkhead`.
    pub(crate) fn up_from(&self, bulkhead: &Path) -> Result<(), Fault> {
        up::start_from(bulkhead, &self.context)
    }

    /// Stops all programs in order.
    pub(crate) fn down(&self) -> Result<(), Fault> {
        Supervisor::connect(self.home())?.stop()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        stop(self.home());
        if self.afterwards == Afterwards::Remove
            && let Err(error) = remove_all(&self.root)
        {
            eprintln!("bulkhead: {:?} could not be removed: {error}", self.root);
        }
    }
}

/// Removes a folder with everything in it. What overlayfs leaves of a box that was cut off is closed also to its
/// owner, so folders are opened first.
pub(crate) fn remove_all(folder: &Path) -> std::io::Result<()> {
    open_all(folder)?;
    fs::remove_dir_all(folder)
}

fn open_all(folder: &Path) -> std::io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_all(&entry.path())?;
        }
    }
    Ok(())
}

fn stop(home: &Home) {
    if let Ok(supervisor) = Supervisor::connect(home) {
        // What does not end by itself is killed by the supervisor; more cannot be done here.
        let _ = supervisor.stop();
    }
}

/// A server on loopback that stands for a real one. It ends when this is dropped, or with
/// this process.
pub(crate) struct StandIn {
    child: Child,
    url: String,
}

impl StandIn {
    /// Starts the program, which prints its address and serves until its input closes.
    pub(crate) fn start(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<Self, Fault> {
        let mut child = Command::new(programs::path(program)?)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Fault::io(format!("start {program}")))?;
        let mut url = String::new();
        if let Some(said) = child.stdout.take() {
            BufReader::new(said.take(MAX_ADDRESS))
                .read_line(&mut url)
                .map_err(Fault::io(format!("read the address of {program}")))?;
        }
        let url = url.trim().to_owned();
        let server = Self { child, url };
        match server.port() {
            0 => Err(Fault::Refused(format!(
                "{program} did not start; its own words are above"
            ))),
            _ => Ok(server),
        }
    }

    /// Its process, which nothing confines.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The port; 0 if it told none.
    pub(crate) fn port(&self) -> u16 {
        let port = self.url.rsplit(':').next();
        port.and_then(|port| port.parse().ok()).unwrap_or(0)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// Who sits at the terminal.
pub(crate) trait Person {
    /// Answers a question.
    fn answer(&mut self, card: &ApprovalCard) -> ApprovalAnswer;

    /// Sees where a call stands.
    fn see(&mut self, session: &SessionId, card: &CallCard) -> Result<(), Fault>;
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With an answer.
    Reply(String),
    /// With a notice to the person instead.
    Notice(String),
}

/// A conversation as the terminal holds it, without a terminal.
pub(crate) struct Speaker {
    home: Home,
    link: Link<ChannelRequest, ChannelEvent>,
    sender: SenderId,
    conversation: ConversationId,
}

impl Speaker {
    /// Connects.
    pub(crate) fn open(home: &Home) -> Result<Self, Fault> {
        let link = connect::terminal(home)?;
        link.set_timeout(Some(PATIENCE))
            .map_err(Fault::link("the gateway"))?;
        let (sender, conversation) = somebody()?;
        Ok(Self {
            home: home.clone(),
            link,
            sender,
            conversation,
        })
    }

    /// Connects, and goes on as this somebody in this conversation.
    pub(crate) fn open_as(
        home: &Home,
        (sender, conversation): (SenderId, ConversationId),
    ) -> Result<Self, Fault> {
        let speaker = Self::open(home)?;
        Ok(Self {
            sender,
            conversation,
            ..speaker
        })
    }

    /// Who speaks, and in which conversation.
    pub(crate) fn somebody(&self) -> (SenderId, ConversationId) {
        (self.sender.clone(), self.conversation.clone())
    }

    /// Goes on as somebody else in a new conversation: the rate limit counts by sender.
    pub(crate) fn renew(&mut self) -> Result<(), Fault> {
        (self.sender, self.conversation) = somebody()?;
        Ok(())
    }

    /// Says this, and stays until the turn that answers it is over.
    pub(crate) fn turn(&mut self, text: &str, person: &mut dyn Person) -> Result<End, Fault> {
        let message = id(MessageId::parse(hex(&random::<8>()?)))?;
        self.send(&ChannelRequest::Inbound {
            message: message.clone(),
            sender: self.sender.clone(),
            sender_name: "you".to_owned(),
            conversation: self.conversation.clone(),
            text: text.to_owned(),
        })?;
        let mut running = None;
        loop {
            let event = self.link.receive().map_err(Fault::link("the gateway"))?;
            match event {
                ChannelEvent::TurnStarted { session, turn, .. } => running = Some((session, turn)),
                ChannelEvent::NotAccepted {
                    message: refused,
                    text,
                    ..
                } if refused == message => return Err(Fault::Refused(text)),
                ChannelEvent::Approval { card, .. } => {
                    let answer = person.answer(&card);
                    self.send(&ChannelRequest::Answer {
                        approval: card.approval,
                        digest: card.digest,
                        nonce: card.nonce,
                        sender: self.sender.clone(),
                        answer,
                        reason: String::new(),
                        proof: connect::proof(&self.home, answer, card.digest)?,
                    })?;
                }
                ChannelEvent::Call { card, .. } => {
                    if let Some((session, _)) = &running {
                        person.see(session, &card)?;
                    }
                }
                ChannelEvent::AnswerRefused { text, .. } => return Err(Fault::Refused(text)),
                ChannelEvent::Reply { delivery, text, .. } => {
                    self.send(&ChannelRequest::Delivered { delivery })?;
                    return Ok(End::Reply(text));
                }
                ChannelEvent::Notice {
                    delivery,
                    ends_turn,
                    text,
                    ..
                } => {
                    self.send(&ChannelRequest::Delivered { delivery })?;
                    if ends_turn.is_some() && ends_turn == running.as_ref().map(|(_, turn)| *turn) {
                        return Ok(End::Notice(text));
                    }
                }
                ChannelEvent::Accepted { .. }
                | ChannelEvent::NotAccepted { .. }
                | ChannelEvent::Token { .. }
                | ChannelEvent::ApprovalClosed { .. } => {}
                ChannelEvent::Challenge { .. }
                | ChannelEvent::Welcome
                | ChannelEvent::LoggedIn { .. }
                | ChannelEvent::LoginRefused { .. }
                | ChannelEvent::LoggedOut { .. }
                | ChannelEvent::PasskeyEnrolled { .. }
                | ChannelEvent::PasskeyRefused { .. }
                | ChannelEvent::Transcript { .. }
                | ChannelEvent::Grants { .. }
                | ChannelEvent::GrantRevoked { .. }
                | ChannelEvent::GrantNotRevoked { .. }
                | ChannelEvent::Panicked { .. }
                | ChannelEvent::PanicRefused { .. }
                | ChannelEvent::GrantsChanged { .. } => {
                    return Err(Fault::Unexpected("the gateway"));
                }
            }
        }
    }

    fn send(&self, request: &ChannelRequest) -> Result<(), Fault> {
        self.link.send(request).map_err(Fault::link("the gateway"))
    }
}

fn somebody() -> Result<(SenderId, ConversationId), Fault> {
    let name = format!("c-{}", hex(&random::<8>()?));
    Ok((
        id(SenderId::parse(name.clone()))?,
        id(ConversationId::parse(name))?,
    ))
}

fn id<T>(id: Result<T, protocol::ids::BadId>) -> Result<T, Fault> {
    id.map_err(|error| Fault::Usage(error.to_string()))
}
