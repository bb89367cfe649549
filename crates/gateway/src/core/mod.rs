//! The gateway: one loop that owns all state, and threads that only read links.

mod approvals;
mod browsers;
mod calls;
mod changes;
mod check;
mod grants;
mod inbound;
mod labels;
mod leaks;
mod limits;
mod operator;
mod outlet;
mod panic;
mod passkeys;
mod past;
mod record;
mod recovery;
mod rules;
mod runner;
mod session;
mod state;
mod surfaces;
mod texts;
mod turns;
mod undo;
mod wire;
mod workspace;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use protocol::agent::ToolSpec;
use protocol::control::{Control, GatewayConfig, Peer, ProgramEnd, Report};
use protocol::event::Event as Fact;
use protocol::frame::{Link, LinkError};
use protocol::ids::{ChannelId, NoRandom};
use protocol::record::system_session;
use sandbox::{ConfineError, Program, confine, files_of};

use approvals::Pending;
use limits::Rates;
use record::{Record, RecordLost};
use runner::{By, Runner};
use session::Sessions;
use state::{State, StateError};
use surfaces::Surfaces;
use wire::{Event, LinkId};
use workspace::Workspace;

/// How often the loop looks at its clocks when nothing comes in.
const TICK: Duration = Duration::from_millis(500);

/// How long no other link to the ledger is asked for; less than after what the record is tried again.
const RELINK_AGAIN: Duration = Duration::from_millis(1500);

/// Events that may wait. A peer that speaks faster than it is heard has to wait itself, and
/// the others get their turn.
const MAX_EVENTS: usize = 16;

/// Link numbers below this are for links that the supervisor hands over.
const FIRST_CONNECTION: LinkId = 1 << 32;

/// Why the gateway ends.
#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error("usage: bulkhead-gateway --dir DIR, or bulkhead-gateway --check-rules")]
    Usage,
    #[error(transparent)]
    Confine(#[from] ConfineError),
    #[error("the link to the supervisor: {0}")]
    Link(#[from] LinkError),
    #[error("the system refused: {0}")]
    System(#[from] std::io::Error),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    #[error("the rules: {0}")]
    Rules(#[from] policy::BadRules),
}

/// Confines itself, opens its database, and serves until the supervisor says stop.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if matches!(arguments.as_slice(), [only] if only == "--check-rules") {
        return check::main();
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            protocol::log!("bulkhead-gateway: {error}");
            ExitCode::from(if matches!(error, Fatal::Usage) { 2 } else { 1 })
        }
    }
}

fn run(arguments: Vec<OsString>) -> Result<(), Fatal> {
    let folder = match arguments.as_slice() {
        [flag, folder] if flag == "--dir" => PathBuf::from(folder),
        _ => return Err(Fatal::Usage),
    };
    let files =
        files_of(Program::Gateway, std::env::args_os().skip(1)).map_err(|_| Fatal::Usage)?;
    confine(Program::Gateway, &files)?;
    let control = ProgramEnd::<GatewayConfig>::from_stdin()?;
    let config = control.start()?;
    let state = State::open(&folder.join("state.db"))?;
    let (sender, events) = sync_channel(MAX_EVENTS);
    let rules = rules::Governing::new(&config.rules)?;
    wire::read_control(control.try_clone()?, sender.clone())?;
    Gateway::new(config, control, state, rules, sender).serve(&events)
}

/// All that the gateway knows.
struct Gateway {
    config: GatewayConfig,
    catalogue: Vec<ToolSpec>,
    control: ProgramEnd<GatewayConfig>,
    events: SyncSender<Event>,
    state: State,
    record: Record,
    recovery: recovery::Recovery,
    surfaces: Surfaces,
    sessions: Sessions,
    runner: Runner,
    leaks: leaks::Leaks,
    workspace: Workspace,
    pending: Vec<Pending>,
    rates: Rates,
    rules: rules::Governing,
    /// While everything is frozen.
    frozen: Option<panic::Freeze>,
    /// Browsers that wait for a freeze, with the numbers of their requests.
    freezing: Vec<(LinkId, u64)>,
    /// When a new link to the ledger was last asked for.
    ledger_asked: Option<Instant>,
    /// Peers whose link is gone; they get a new one unless they are gone themselves.
    unlinked: Vec<Peer>,
    last_link: LinkId,
}

/// What the database did not take is not done; ending would take from everybody what still
/// works.
fn outlive_full_disk<T>(result: Result<T, Fatal>, go_on: T) -> Result<T, Fatal> {
    match result {
        Err(Fatal::State(error)) => {
            protocol::log!("bulkhead-gateway: {error}");
            Ok(go_on)
        }
        other => other,
    }
}

/// Whether the loop goes on.
enum Next {
    Serve,
    End,
}

impl Gateway {
    fn new(
        config: GatewayConfig,
        control: ProgramEnd<GatewayConfig>,
        state: State,
        rules: rules::Governing,
        events: SyncSender<Event>,
    ) -> Self {
        Self {
            config,
            catalogue: tools::catalogue(),
            control,
            events,
            state,
            record: Record::default(),
            recovery: recovery::Recovery::default(),
            surfaces: Surfaces::default(),
            sessions: Sessions::default(),
            runner: Runner::default(),
            leaks: leaks::Leaks::default(),
            workspace: Workspace::default(),
            pending: Vec::new(),
            rates: Rates::default(),
            rules,
            frozen: None,
            freezing: Vec::new(),
            ledger_asked: None,
            unlinked: Vec::new(),
            last_link: 0,
        }
    }

    fn serve(mut self, events: &Receiver<Event>) -> Result<(), Fatal> {
        self.control.send(&Report::Ready)?;
        let mut last_tick = Instant::now();
        loop {
            match events.recv_timeout(TICK) {
                Ok(event) => {
                    let next = self.take(event);
                    if let Next::End = outlive_full_disk(next, Next::Serve)? {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if last_tick.elapsed() >= TICK {
                last_tick = Instant::now();
                outlive_full_disk(self.tick(), ())?;
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<Next, Fatal> {
        match event {
            Event::Control(frame, fd) => return self.control_frame(frame, fd),
            // Without its supervisor nothing would start its peers again.
            Event::ControlLost => return Ok(Next::End),
            Event::ChannelUp(link, channel, stream) => self.channel_up(link, channel, stream)?,
            Event::Channel(link, request) => self.channel_request(link, request)?,
            Event::ChannelGone(link) => self.channel_gone(link),
            Event::Agent(session, link, request, found) => {
                self.agent_request(&session, link, request, found)?;
            }
            Event::AgentGone(session, link, error) => self.agent_gone(&session, link, &error)?,
            Event::Runner(link, reply, found) => self.runner_reply(link, reply, &found)?,
            Event::RunnerGone(link) => self.executor_gone(By::Boxes, link)?,
            Event::Door(link, reply, found) => self.door_reply(link, reply, &found)?,
            Event::DoorGone(link) => self.executor_gone(By::Door, link)?,
            Event::MarksGone(link) => self.marks_gone(link),
            Event::Workspace(link, reply) => self.workspace_reply(link, reply)?,
            Event::WorkspaceGone(link) => self.workspace_gone(link)?,
            Event::Operator(request, answer) => self.operator_request(request, answer)?,
        }
        Ok(Next::Serve)
    }

    fn control_frame(
        &mut self,
        frame: Control<GatewayConfig>,
        fd: Option<OwnedFd>,
    ) -> Result<Next, Fatal> {
        match (frame, fd) {
            (Control::Link { peer }, Some(fd)) => self.linked(peer, UnixStream::from(fd))?,
            (Control::Listener, Some(fd)) => {
                let (keys, events) = (self.config.channels.clone(), self.events.clone());
                wire::accept(UnixListener::from(fd), keys, FIRST_CONNECTION, events)?;
            }
            (Control::NoAgent { session, reason }, _) => self.no_agent(&session, &reason)?,
            (Control::Rules { news }, _) => self.rules_news(news)?,
            (Control::Frozen { frozen }, _) => self.freeze(frozen)?,
            (Control::Resume { since, key, until }, _) => self.end_freeze(since, key, until)?,
            (Control::Stop, _) => return Ok(Next::End),
            (frame @ (Control::Start { .. } | Control::Link { .. } | Control::Listener), _) => {
                return Err(LinkError::OutOfOrder {
                    expected: "a link with its socket",
                    got: frame.name(),
                }
                .into());
            }
        }
        Ok(Next::Serve)
    }

    fn linked(&mut self, peer: Peer, stream: UnixStream) -> Result<(), Fatal> {
        self.last_link += 1;
        let (id, events) = (self.last_link, self.events.clone());
        match peer {
            Peer::Ledger => {
                self.record.linked(stream);
                self.recover()?;
            }
            Peer::Sandbox => {
                let link = Link::new(stream);
                let ended = self.runner.linked(id, link.try_clone()?)?;
                wire::read_runner(id, link, self.looked_for(), events)?;
                self.unknown(ended)?;
            }
            Peer::Egress => {
                let link = Link::new(stream);
                let ended = self.runner.door_linked(id, link.try_clone()?)?;
                wire::read_door(id, link, self.looked_for(), events)?;
                self.unknown(ended)?;
            }
            Peer::Workspace => {
                let link = Link::new(stream);
                let ended = self.workspace.linked(id, link.try_clone()?)?;
                wire::read_workspace(id, link, self.looked_for(), events)?;
                self.no_replies(ended)?;
            }
            Peer::Agent(session) => {
                let link = Link::new(stream);
                let reading = link.try_clone()?;
                self.agent_linked(&session, id, link)?;
                wire::read_agent(id, session, reading, self.looked_for(), events)?;
            }
            Peer::Channel(channel) => match self
                .config
                .channels
                .iter()
                .find(|(name, _)| *name == channel)
            {
                Some((_, key)) => wire::read_channel(id, stream, channel, *key, events)?,
                None => protocol::log!(
                    "bulkhead-gateway: no key is known for channel {channel}; its link is closed"
                ),
            },
            Peer::Vault => {
                self.vault_linked(id);
                leaks::read_vault(id, stream, self.looked_for(), events)?;
            }
            Peer::Gateway => {
                protocol::log!(
                    "bulkhead-gateway: a link to {peer:?} has no use here and is closed"
                );
            }
        }
        Ok(())
    }

    fn channel_up(
        &mut self,
        link: LinkId,
        channel: ChannelId,
        stream: wire::ChannelLink,
    ) -> Result<(), Fatal> {
        self.surfaces
            .up(link, channel.clone(), outlet::Outlet::new(stream)?);
        self.surfaces
            .answer(link, protocol::channel::ChannelEvent::Welcome);
        self.note_channel(&channel, |channel| Fact::ChannelUp { channel });
        self.surfaces.deliver_again(&self.state, link)?;
        self.show_pending_to(&channel);
        Ok(())
    }

    fn channel_gone(&mut self, link: LinkId) {
        if let Some(channel) = self.surfaces.down(link) {
            self.note_channel(&channel, |channel| Fact::ChannelDown { channel });
            self.unlinked.push(Peer::Channel(channel));
        }
    }

    /// Records that a channel's program came or went. A terminal that is opened is no news.
    fn note_channel(&mut self, channel: &ChannelId, fact: impl Fn(ChannelId) -> Fact) {
        if channel.as_str() != config::TERMINAL {
            self.note(fact(channel.clone()));
        }
    }

    /// Records something on which nothing depends. That the record is lost shows in the status.
    fn note(&mut self, fact: Fact) {
        if let Err(error) = self.record.write(&system_session(), vec![fact]) {
            protocol::log!("bulkhead-gateway: {error}");
        }
    }

    fn tick(&mut self) -> Result<(), Fatal> {
        self.expire_approvals()?;
        self.stop_stuck_and_idle_agents()?;
        self.workspace.expire(Instant::now());
        for peer in self.unlinked.drain(..) {
            self.control.send(&Report::Relink { peer })?;
        }
        self.recover_if_due()
    }

    /// The record did not take something: everything that runs is stopped, the people who
    /// wait are told, and it is taken up again when the record is back.
    fn record_lost(&mut self, error: &RecordLost) -> Result<(), Fatal> {
        protocol::log!("bulkhead-gateway: {error}");
        self.recovery.later();
        self.abandon_everything()?;
        self.ask_for_ledger()
    }

    /// Asks for a new link to the ledger if the one there was has been given up: an answer
    /// that is late would be taken for that of another request.
    ///
    /// Not again and again: the ledger has one link to this program, so that of two new ones the first
    /// is closed when it comes here. The other one follows; asking for a third would close that too.
    /// Where none comes, [`recovery`] asks again.
    fn ask_for_ledger(&mut self) -> Result<(), Fatal> {
        let asked = self
            .ledger_asked
            .is_some_and(|at| at.elapsed() < RELINK_AGAIN);
        if !self.record.is_linked() && !asked {
            self.ledger_asked = Some(Instant::now());
            self.control.send(&Report::Relink { peer: Peer::Ledger })?;
        }
        Ok(())
    }
}
