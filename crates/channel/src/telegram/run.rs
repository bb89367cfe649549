//! The program: starts its parts, and passes on what comes.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use protocol::control::{ChannelConfig, Peer, Report};
use protocol::frame::LinkError;
use sandbox::Program;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::backoff::Backoff;
use super::bot::{Bot, Line};
use super::bridge::{Bridge, JOBS_PER_EVENT};
use super::disk::{self, Disk};
use super::http::Server;
use super::peers::{Egress, Vault};
use super::poll::{Fetched, Inbox, Poller};
use super::sender::{Job, Sender, Told};
use crate::link::{self, LinkState};
use crate::program::{self, ControlEvent, ControlEvents, StartError, Started};

/// Jobs that may wait to be sent.
const JOBS: usize = 256;

/// Updates that may wait to be handled.
const UPDATES: usize = 64;

/// How long the parts may take to end.
const END_LIMIT: Duration = Duration::from_secs(4);

/// Runs the program: `--key FILE` and `--dir DIR` are its arguments, its control link is
/// standard input.
pub fn run() -> ExitCode {
    match started() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            protocol::log!("bulkhead-channel-telegram: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn started() -> Result<(), String> {
    let [key, folder] = program::path_options(std::env::args_os().skip(1), ["--key", "--dir"])
        .map_err(|error| error.to_string())?;
    let kept = disk::Files::open(&folder)
        .map_err(|error| format!("cannot open what it keeps in {folder:?}: {error}"))?;
    let started =
        program::start(Program::ChannelTelegram, &key).map_err(|error| error.to_string())?;
    let disk = Disk::read(kept);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| StartError::System(error).to_string())?;
    let result = runtime.block_on(serve(started, disk));
    // A question to egress or the vault may be under way on a thread; nobody needs the answer.
    runtime.shutdown_background();
    result
}

async fn serve(started: Started, disk: Disk) -> Result<(), String> {
    let Started {
        key,
        config,
        mut control,
    } = started;
    let result = match Parts::assemble(config, key.0, disk) {
        Ok(parts) => parts.work(&mut control).await,
        Err(reason) => Err(End::Failed(reason)),
    };
    match result {
        Ok(()) => Ok(()),
        Err(End::Supervisor(error)) => Err(format!("the link to the supervisor: {error}")),
        Err(End::Failed(reason)) => {
            // If the report does not get through, the exit status still does.
            let _ = control.report(&Report::Failed {
                reason: reason.clone(),
            });
            Err(reason)
        }
    }
}

/// Why the program ends without being told to.
enum End {
    /// The supervisor is gone.
    Supervisor(LinkError),
    /// It cannot go on, and a restart will not help.
    Failed(String),
}

impl From<LinkError> for End {
    fn from(error: LinkError) -> Self {
        Self::Supervisor(error)
    }
}

/// Everything that runs.
struct Parts {
    egress: Arc<Egress>,
    vault: Arc<Vault>,
    gateway: link::Gateway,
    events: mpsc::Receiver<protocol::channel::ChannelEvent>,
    fetched: mpsc::Receiver<Fetched>,
    told: mpsc::UnboundedReceiver<Told>,
    relink: mpsc::UnboundedReceiver<Peer>,
    jobs: mpsc::Sender<Job>,
    bridge: Bridge,
    stop: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 2],
}

impl Parts {
    fn assemble(
        config: ChannelConfig,
        key: protocol::identity::IdentityKey,
        disk: Disk,
    ) -> Result<Self, String> {
        let (channel, scheme, host, port, name) = match config {
            ChannelConfig::Telegram {
                channel,
                scheme,
                host,
                port,
                token,
            } => (channel, scheme, host, port, token),
            ChannelConfig::Web { channel, .. } => {
                return Err(StartError::OtherPlatform(channel).to_string());
            }
        };
        let (wanted, relink) = mpsc::unbounded_channel();
        let egress = Arc::new(Egress::new(wanted.clone()));
        let vault = Arc::new(Vault::new(name, wanted));
        let server = Server::new(Arc::clone(&egress), scheme, host, port)
            .map_err(|error| error.to_string())?;
        let bot = Arc::new(Bot::new(channel.clone(), server, Arc::clone(&vault)));
        let (gateway, events) = link::connect(key, channel.clone());
        let inbox = Arc::<Inbox>::default();
        let (stop, stopped) = watch::channel(false);
        let (jobs, to_do) = mpsc::channel(JOBS);
        let (telling, told) = mpsc::unbounded_channel();
        let (fetching, fetched) = mpsc::channel(UPDATES);
        let poller = Poller {
            line: Line::new(Arc::clone(&bot)),
            inbox: Arc::clone(&inbox),
            fetched: fetching,
            gateway: gateway.watch(),
            stop: stopped.clone(),
            backoff: Backoff::default(),
            silence: None,
        };
        let sender = Sender {
            line: Line::new(bot),
            disk,
            jobs: to_do,
            told: telling,
            stop: stopped,
            backoff: Backoff::default(),
        };
        let tasks = [tokio::spawn(poller.run()), tokio::spawn(sender.run())];
        let bridge = Bridge::new(channel, gateway.clone(), inbox, jobs.clone());
        Ok(Self {
            egress,
            vault,
            gateway,
            events,
            fetched,
            told,
            relink,
            jobs,
            bridge,
            stop,
            tasks,
        })
    }

    async fn work(mut self, control: &mut ControlEvents) -> Result<(), End> {
        control.report(&Report::Ready)?;
        let mut link = self.gateway.watch();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = control.next() => match event? {
                    ControlEvent::Gateway(socket) => self.gateway.attach(socket),
                    ControlEvent::Egress(socket) => self.egress.attach(socket).map_err(LinkError::from)?,
                    ControlEvent::Vault(socket) => self.vault.attach(socket),
                    // Telegram does not call; there is nothing to listen for.
                    ControlEvent::Listener(_) => {}
                    ControlEvent::Stop => break,
                },
                Ok(()) = link.changed() => match state_of(&mut link) {
                    LinkState::Up => self.bridge.link_up(),
                    LinkState::Down => self.bridge.link_down(),
                    LinkState::Stuck => {
                        self.bridge.link_down();
                        control.report(&Report::Relink { peer: Peer::Gateway })?;
                    }
                },
                Some(event) = next_with_room(&self.jobs, &mut self.events) => self.bridge.event(event),
                Some(fetched) = next_with_room(&self.jobs, &mut self.fetched) => {
                    self.bridge.fetched(fetched).map_err(End::Failed)?;
                }
                Some(told) = self.told.recv() => self.bridge.told(told).map_err(End::Failed)?,
                Some(peer) = self.relink.recv() => control.report(&Report::Relink { peer })?,
                _ = tick.tick() => self.bridge.tick(),
            }
        }
        self.end().await;
        Ok(())
    }

    /// Lets the parts finish what is under way, and passes on what they tell.
    async fn end(mut self) {
        self.stop.send_replace(true);
        let [poller, sender] = self.tasks;
        let both = async {
            // A panic of a part has been printed already.
            let _ = sender.await;
            let _ = poller.await;
        };
        // What takes longer than this is cut off, and done again after the restart.
        let _ = tokio::time::timeout(END_LIMIT, both).await;
        while let Ok(told) = self.told.try_recv() {
            // It ends anyway.
            let _ = self.bridge.told(told);
        }
        // The link's task writes what it was just given.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The state without the lock on it.
fn state_of(link: &mut watch::Receiver<LinkState>) -> LinkState {
    *link.borrow_and_update()
}

/// The next of these, once there is room for the jobs it leads to. Safe to cancel.
async fn next_with_room<T>(jobs: &mpsc::Sender<Job>, from: &mut mpsc::Receiver<T>) -> Option<T> {
    // The jobs' receiver goes only when the sender cannot go on; it has told why.
    drop(jobs.reserve_many(JOBS_PER_EVENT).await.ok()?);
    from.recv().await
}
