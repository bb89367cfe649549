//! The program around the state machine: three links, one thread that reads each, and one
//! loop that does what the state machine says.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use protocol::agent::{AgentCommand, AgentRequest};
use protocol::control::{Control, NoConfig, Peer, ProgramEnd, Report};
use protocol::egress::{ModelReply, ModelRequest};
use protocol::frame::{Link, LinkError};
use sandbox::{ConfineError, Files, Program, confine};

use crate::turn::{Agent, Input, OutOfOrder, Output};

/// How often a state that waits for the model is told the time.
const TICK: Duration = Duration::from_secs(5);

/// How long a request waits for a link to egress, which is being started or started again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Frames that were read and not yet handled; beyond that, the peer waits.
const QUEUE: usize = 64;

/// Runs `bulkhead-agent`: its control link is its standard input.
pub fn run() -> ExitCode {
    if std::env::args_os().len() > 1 {
        protocol::log!("bulkhead-agent: takes no arguments; it is started by bulkhead-supervisor");
        return ExitCode::from(2);
    }
    match confined() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            protocol::log!("bulkhead-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why the program cannot go on.
#[derive(Debug, thiserror::Error)]
enum AgentError {
    #[error("the control link: {0}")]
    Control(LinkError),
    #[error("the link to the gateway: {0}")]
    Gateway(LinkError),
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
    #[error(transparent)]
    Confine(#[from] ConfineError),
    #[error("no thread to read a link: {0}; raise the limit of processes for this user")]
    Thread(std::io::Error),
    #[error("the supervisor sent {0}, which an agent does not take")]
    Unwanted(&'static str),
}

fn confined() -> Result<(), AgentError> {
    let control = ProgramEnd::<NoConfig>::from_stdin().map_err(AgentError::Control)?;
    if let Err(error) = confine(Program::Agent, &Files::default()) {
        // If the supervisor is gone too, standard error has it.
        let _ = control.send(&Report::Failed {
            reason: error.to_string(),
        });
        return Err(error.into());
    }
    let NoConfig {} = control.start().map_err(AgentError::Control)?;
    control.send(&Report::Ready).map_err(AgentError::Control)?;
    Rim::new(control)?.run()
}

/// What comes in, from whichever link. `link` numbers the links, so that what an old one
/// still brings is told from the new one's.
enum Incoming {
    Control(Control<NoConfig>, Option<OwnedFd>),
    ControlLost(LinkError),
    Command(AgentCommand),
    GatewayLost(LinkError),
    Reply { link: u64, reply: ModelReply },
    EgressLost { link: u64 },
}

/// Why the loop woke up.
enum Woken {
    Incoming(Incoming),
    Tick,
    NoEgress,
}

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

/// The links and the state machine between them.
struct Rim {
    agent: Agent,
    gateway: Option<Link<AgentRequest, AgentCommand>>,
    egress: Option<Link<ModelRequest, ModelReply>>,
    /// The number of the newest link to egress.
    egress_link: u64,
    /// A request that waits for a link to egress, and until when.
    held: Option<(ModelRequest, Instant)>,
    sender: SyncSender<Incoming>,
    incoming: Receiver<Incoming>,
    started: Instant,
}

impl Rim {
    fn new(control: ProgramEnd<NoConfig>) -> Result<Self, AgentError> {
        let (sender, incoming) = sync_channel(QUEUE);
        let to = sender.clone();
        spawn("control", move || {
            loop {
                let (message, last) = match control.receive() {
                    Ok((frame, fd)) => (Incoming::Control(frame, fd), false),
                    Err(error) => (Incoming::ControlLost(error), true),
                };
                if to.send(message).is_err() || last {
                    return;
                }
            }
        })?;
        Ok(Self {
            agent: Agent::default(),
            gateway: None,
            egress: None,
            egress_link: 0,
            held: None,
            sender,
            incoming,
            started: Instant::now(),
        })
    }

    fn run(mut self) -> Result<(), AgentError> {
        while let Some(woken) = self.wait() {
            let next = match woken {
                Woken::Incoming(incoming) => self.handle(incoming)?,
                Woken::Tick => self.step(Input::Tick(self.started.elapsed()))?,
                Woken::NoEgress => {
                    self.held = None;
                    self.step(Input::ModelLost)?
                }
            };
            if next == Next::End {
                break;
            }
        }
        Ok(())
    }

    /// The next thing that happens.
    fn wait(&self) -> Option<Woken> {
        let (limit, otherwise) = match (&self.held, self.agent.wants_ticks()) {
            (Some((_, until)), _) => (
                until.saturating_duration_since(Instant::now()),
                Woken::NoEgress,
            ),
            (None, true) => (TICK, Woken::Tick),
            (None, false) => return self.incoming.recv().ok().map(Woken::Incoming),
        };
        match self.incoming.recv_timeout(limit) {
            Ok(incoming) => Some(Woken::Incoming(incoming)),
            Err(RecvTimeoutError::Timeout) => Some(otherwise),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn handle(&mut self, incoming: Incoming) -> Result<Next, AgentError> {
        match incoming {
            Incoming::Control(Control::Stop, _) => Ok(Next::End),
            Incoming::Control(Control::Link { peer }, Some(fd)) => {
                self.link(peer, UnixStream::from(fd))
            }
            Incoming::Control(Control::Link { .. }, None) => {
                Err(AgentError::Unwanted("a link without its socket"))
            }
            Incoming::Control(
                frame @ (Control::Start { .. }
                | Control::Listener
                | Control::NoAgent { .. }
                | Control::Rules { .. }
                | Control::Frozen { .. }
                | Control::Resume { .. }),
                _,
            ) => Err(AgentError::Unwanted(frame.name())),
            // The supervisor is gone, and everything with it.
            Incoming::ControlLost(LinkError::Closed) => Ok(Next::End),
            Incoming::ControlLost(error) => Err(AgentError::Control(error)),
            Incoming::Command(command) => self.step(Input::Command(command)),
            // A new gateway starts a new agent for the session.
            Incoming::GatewayLost(LinkError::Closed) => Ok(Next::End),
            Incoming::GatewayLost(error) => Err(AgentError::Gateway(error)),
            Incoming::Reply { link, reply } if link == self.egress_link => {
                self.step(Input::Reply(reply))
            }
            Incoming::EgressLost { link } if link == self.egress_link => {
                self.egress = None;
                self.lost()
            }
            // Of a link that was replaced.
            Incoming::Reply { .. } | Incoming::EgressLost { .. } => Ok(Next::GoOn),
        }
    }

    fn link(&mut self, peer: Peer, stream: UnixStream) -> Result<Next, AgentError> {
        match peer {
            // What was said belongs to the gateway that is gone.
            Peer::Gateway if self.gateway.is_some() => Ok(Next::End),
            Peer::Gateway => {
                let link = Link::new(stream);
                let read = link.try_clone().map_err(AgentError::Gateway)?;
                self.gateway = Some(link);
                self.read(read, Incoming::Command, Incoming::GatewayLost)?;
                Ok(Next::GoOn)
            }
            Peer::Egress => self.link_egress(stream),
            Peer::Ledger
            | Peer::Vault
            | Peer::Sandbox
            | Peer::Workspace
            | Peer::Channel(_)
            | Peer::Agent(_) => Err(AgentError::Unwanted(
                "a link to a program that agents do not speak with",
            )),
        }
    }

    fn link_egress(&mut self, stream: UnixStream) -> Result<Next, AgentError> {
        let link = Link::new(stream);
        self.egress_link += 1;
        let number = self.egress_link;
        let replaced = self.egress.take().is_some();
        if let Ok(read) = link.try_clone() {
            self.egress = Some(link);
            let each = move |reply| Incoming::Reply {
                link: number,
                reply,
            };
            self.read(read, each, move |_| Incoming::EgressLost { link: number })?;
        }
        match self.held.take() {
            Some((request, _)) => self.send_model(request),
            None if replaced => return self.lost(),
            None => {}
        }
        Ok(Next::GoOn)
    }

    /// A request that was sent went to an egress that is gone; one that is held did not.
    fn lost(&mut self) -> Result<Next, AgentError> {
        if self.held.is_some() {
            Ok(Next::GoOn)
        } else {
            self.step(Input::ModelLost)
        }
    }

    /// Sends to egress; a question waits if there is no link.
    fn send_model(&mut self, request: ModelRequest) {
        self.held = None;
        let sent = self
            .egress
            .as_ref()
            .is_some_and(|egress| egress.send(&request).is_ok());
        if !sent {
            self.egress = None;
            match request {
                ModelRequest::Chat { .. } => self.held = Some((request, Instant::now() + PATIENCE)),
                // Dropped with the link.
                ModelRequest::Cancel { .. } => {}
            }
        }
    }

    /// Reads a link in a thread of its own until it ends.
    fn read<S, R>(
        &self,
        link: Link<S, R>,
        each: impl Fn(R) -> Incoming + Send + 'static,
        lost: impl Fn(LinkError) -> Incoming + Send + 'static,
    ) -> Result<(), AgentError>
    where
        S: serde::Serialize + 'static,
        R: serde::de::DeserializeOwned + 'static,
    {
        let to = self.sender.clone();
        spawn("link", move || {
            loop {
                let (message, last) = match link.receive() {
                    Ok(frame) => (each(frame), false),
                    Err(error) => (lost(error), true),
                };
                if to.send(message).is_err() || last {
                    return;
                }
            }
        })
    }

    /// One step of the state machine, and what follows from it.
    fn step(&mut self, input: Input) -> Result<Next, AgentError> {
        let mut out = Vec::new();
        self.agent = std::mem::take(&mut self.agent).handle(input, &mut out)?;
        for output in out {
            match output {
                Output::Model(request) => self.send_model(request),
                Output::Gateway(request) => {
                    let Some(gateway) = &self.gateway else {
                        return Ok(Next::End);
                    };
                    match gateway.send(&request) {
                        Ok(()) => {}
                        Err(LinkError::Io(_)) => return Ok(Next::End),
                        Err(error) => return Err(AgentError::Gateway(error)),
                    }
                }
            }
        }
        Ok(Next::GoOn)
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), AgentError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
        .map_err(AgentError::Thread)
}
