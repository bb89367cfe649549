//! `bulkhead-sandbox` as a service: requests of the gateway in, outcomes out.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use protocol::control::{Control, Peer, ProgramEnd, Report, SandboxConfig};
use protocol::frame::{Link, LinkError};
use protocol::ids::CallRef;
use protocol::runner::{Backend, Leaves, Limits, Network, RunOutcome, RunReply, RunRequest};
use protocol::workspace::GitFolders;

use crate::boxes::{Boxes, Config};
use crate::confine::{Program, confine};
use crate::engine::Engines;
use crate::files::files_of;
use crate::layers::{Layers, Linked};
use crate::pool::Pool;
use crate::run::{Job, Killer, Refused, Then};
use crate::way::{Egress, Outside};

/// The program itself: `/proc/self/exe` is it also after its file was replaced.
const SELF: &str = "/proc/self/exe";
/// The most boxes at once; more are refused.
const MAX_RUNS: usize = 64;
/// The most bytes kept of each output. As JSON a byte takes up to six, and both outputs have to
/// fit into one frame.
const MAX_OUTPUT: u32 = 256 * 1024;

/// The main function of `bulkhead-sandbox`.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            protocol::log!("bulkhead-sandbox: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), String> {
    let control = ProgramEnd::<SandboxConfig>::from_stdin()
        .map_err(|e| format!("standard input is no control link: {e}"))?;
    let confined = files_of(Program::Sandbox, std::env::args_os().skip(1))
        .map_err(|error| error.to_string())
        .and_then(|files| confine(Program::Sandbox, &files).map_err(|error| error.to_string()));
    if let Err(reason) = confined {
        // The supervisor may be gone; the error is told on standard error in any case.
        let _ = control.send(&Report::Failed {
            reason: reason.clone(),
        });
        return Err(reason);
    }
    let config = control.start().map_err(|e| e.to_string())?;
    let layers = Arc::new(Linked::default());
    let runner = match Runner::start(&config, layers.clone()) {
        Ok(runner) => Arc::new(runner),
        Err(reason) => {
            // As above.
            let _ = control.send(&Report::Failed {
                reason: reason.clone(),
            });
            return Err(reason);
        }
    };
    control.send(&Report::Ready).map_err(|e| e.to_string())?;
    let egress = Arc::new(Egress::default());
    let mut gateway: Option<Gateway> = None;
    loop {
        match control.receive() {
            Ok((
                Control::Link {
                    peer: Peer::Gateway,
                },
                Some(socket),
            )) => {
                // Its runs end with the old link, and it has forgotten them.
                drop(gateway.replace(Gateway::serve(socket, Arc::clone(&runner), egress.clone())));
            }
            Ok((
                Control::Link {
                    peer: Peer::Workspace,
                },
                Some(socket),
            )) => {
                layers.link(Link::new(UnixStream::from(socket)));
                // Layers end with the program that made them.
                runner.flush();
            }
            Ok((Control::Link { peer: Peer::Egress }, Some(socket))) => egress.link(socket),
            Ok((Control::Stop, _)) | Err(LinkError::Closed) => return Ok(()),
            Ok((
                other @ (Control::Link { .. }
                | Control::Start { .. }
                | Control::Listener
                | Control::NoAgent { .. }
                | Control::Rules { .. }
                | Control::Frozen { .. }
                | Control::Resume { .. }),
                _,
            )) => {
                return Err(format!(
                    "the supervisor sent {} which is not for this program",
                    other.name()
                ));
            }
            Err(error) => return Err(format!("the control link: {error}")),
        }
    }
}

/// What runs calls, by the kind of box that is configured. There is no way from one to another.
enum Runner {
    Native(Pool),
    Container(Engines),
}

impl Runner {
    /// Boxes die with the thread that calls this.
    fn start(config: &SandboxConfig, layers: Arc<dyn Layers>) -> Result<Self, String> {
        match config.engine.backend {
            Backend::Native => {}
            Backend::Docker | Backend::Podman | Backend::Gvisor => {
                return Ok(Self::Container(Engines {
                    program: config.engine_program.clone(),
                    config: config.engine.clone(),
                    workspace: config.workspace.clone(),
                    layers,
                }));
            }
        }
        let all = Config {
            program: SELF.into(),
            tool_program: config.tool_program.clone(),
            workspace: config.workspace.clone(),
            memory: config.engine.memory,
            groups: config.groups.clone(),
        };
        let boxes = Boxes::start(all, layers).map_err(|refused| refused.to_string())?;
        Pool::start(boxes, config.limits.clone(), config.spare_boxes as usize)
            .map(Self::Native)
            .map_err(|e| format!("no thread can be started: {e}"))
    }

    fn run(
        &self,
        job: Job,
        outside: &Outside,
        begun: impl FnOnce(Killer),
    ) -> Result<RunOutcome, Refused> {
        match (self, outside) {
            (Self::Native(pool), _) => pool.run_online(job, outside, begun),
            (Self::Container(engines), Outside::Nothing) => engines.run_killable(job, begun),
            // The socket that leads out cannot be handed over through an engine.
            (Self::Container(engines), Outside::Through { .. }) => Err(Refused {
                reason: format!(
                    "a box of {} has no way to egress, and this command has rules that let it reach something",
                    engines.config.backend.name()
                ),
                fix: "use the native backend under [box] in bulkhead.toml, or remove the rules of its programs under [[egress]]"
                    .to_owned(),
            }),
        }
    }

    fn flush(&self) {
        match self {
            Self::Native(pool) => pool.flush(),
            Self::Container(_) => {}
        }
    }

    fn is_broken(&self) -> bool {
        match self {
            Self::Native(pool) => pool.boxes().is_broken(),
            Self::Container(_) => false,
        }
    }
}

/// The link to the gateway and the runs that came over it. Dropping it kills them and waits.
struct Gateway {
    link: Arc<Link<RunReply, RunRequest>>,
    reader: Option<JoinHandle<()>>,
}

impl Gateway {
    fn serve(socket: OwnedFd, runner: Arc<Runner>, egress: Arc<Egress>) -> Self {
        let link = Arc::new(Link::new(UnixStream::from(socket)));
        let reader = std::thread::spawn({
            let link = Arc::clone(&link);
            move || Runs::new(link, runner, egress).serve()
        });
        Self {
            link,
            reader: Some(reader),
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.link.close();
        if let Some(reader) = self.reader.take() {
            // A panic there has been printed, and the runs are gone with their threads.
            let _ = reader.join();
        }
    }
}

/// The runs that are on.
struct Runs {
    link: Arc<Link<RunReply, RunRequest>>,
    runner: Arc<Runner>,
    egress: Arc<Egress>,
    on: Arc<Mutex<HashMap<CallRef, State>>>,
    threads: Vec<JoinHandle<()>>,
}

/// What is known of a run.
enum State {
    /// Its thread has not made a box yet.
    Starting,
    /// Killed before there was a box.
    Unwanted,
    /// It has one.
    Running(Killer),
}

impl Runs {
    fn new(
        link: Arc<Link<RunReply, RunRequest>>,
        runner: Arc<Runner>,
        egress: Arc<Egress>,
    ) -> Self {
        Self {
            link,
            runner,
            egress,
            on: Arc::default(),
            threads: Vec::new(),
        }
    }

    /// Until the gateway is gone; then kills what is on and waits for it.
    fn serve(mut self) {
        loop {
            match self.link.receive() {
                Ok(RunRequest::Run {
                    call,
                    action,
                    limits,
                    leaves,
                    network,
                }) => {
                    let then = match leaves {
                        Leaves::Changes => Then::Keep {
                            origin: Some(call.clone()),
                            git: GitFolders::Open,
                        },
                        Leaves::Files => Then::Keep {
                            origin: Some(call.clone()),
                            git: GitFolders::Closed,
                        },
                        Leaves::Nothing => Then::Discard,
                    };
                    let outside = match network {
                        Network::None => Outside::Nothing,
                        Network::Rules { rules } => Outside::Through {
                            door: self.egress.clone(),
                            run: call.clone(),
                            rules,
                        },
                    };
                    let limits = Limits {
                        output_bytes: limits.output_bytes.min(MAX_OUTPUT),
                        ..limits
                    };
                    let job = Job {
                        action,
                        limits,
                        then,
                    };
                    self.run(call, job, outside);
                }
                Ok(RunRequest::Kill { call }) => self.kill(&call),
                Err(LinkError::Closed) => break,
                Err(error) => {
                    protocol::log!("bulkhead-sandbox: the link to the gateway: {error}");
                    break;
                }
            }
        }
        let calls: Vec<_> = locked(&self.on).keys().cloned().collect();
        calls.iter().for_each(|call| self.kill(call));
        for thread in self.threads {
            let _ = thread.join();
        }
    }

    fn run(&mut self, call: CallRef, job: Job, outside: Outside) {
        self.threads.retain(|thread| !thread.is_finished());
        let refuse = |reason: &str, fix: &str| {
            let refused = Refused {
                reason: reason.to_owned(),
                fix: fix.to_owned(),
            };
            reply(&self.link, &call, Err(refused));
        };
        let mut on = locked(&self.on);
        if on.len() >= MAX_RUNS {
            return refuse("too many boxes run already", "wait until some of them end");
        }
        if on.contains_key(&call) {
            return refuse(
                "this call runs already",
                "an outcome comes for it; do not ask twice",
            );
        }
        on.insert(call.clone(), State::Starting);
        drop(on);
        let runner = Arc::clone(&self.runner);
        let (link, on, name) = (Arc::clone(&self.link), Arc::clone(&self.on), call.clone());
        let thread = std::thread::Builder::new()
            .name("run".to_owned())
            .spawn(move || {
                let outcome = runner.run(job, &outside, |killer| began(&on, &name, killer));
                locked(&on).remove(&name);
                reply(&link, &name, outcome);
                if runner.is_broken() {
                    // All boxes died with it. The supervisor starts this program again.
                    protocol::log!("bulkhead-sandbox: the process that makes boxes is gone");
                    std::process::exit(1);
                }
            });
        match thread {
            Ok(thread) => self.threads.push(thread),
            Err(error) => {
                locked(&self.on).remove(&call);
                let fix = "the machine is out of threads or memory".to_owned();
                reply(
                    &self.link,
                    &call,
                    Err(Refused {
                        reason: format!("no thread for the run: {error}"),
                        fix,
                    }),
                );
            }
        }
    }

    fn kill(&self, call: &CallRef) {
        match locked(&self.on).get_mut(call) {
            Some(State::Running(killer)) => killer.kill(),
            Some(state @ State::Starting) => *state = State::Unwanted,
            // Killed twice, or over already; its outcome is on its way.
            Some(State::Unwanted) | None => {}
        }
    }
}

fn began(on: &Mutex<HashMap<CallRef, State>>, call: &CallRef, killer: Killer) {
    let mut on = locked(on);
    if matches!(on.get(call), Some(State::Unwanted)) {
        killer.kill();
    }
    on.insert(call.clone(), State::Running(killer));
}

fn reply(link: &Link<RunReply, RunRequest>, call: &CallRef, outcome: Result<RunOutcome, Refused>) {
    let call = call.clone();
    let frame = match outcome {
        Ok(outcome) => RunReply::Finished { call, outcome },
        Err(Refused { reason, fix }) => RunReply::Refused { call, reason, fix },
    };
    let sent = match (link.send(&frame), frame) {
        (Err(LinkError::TooLong(_)), RunReply::Finished { call, outcome }) => {
            let outcome = outcome.shortened();
            link.send(&RunReply::Finished { call, outcome })
        }
        (sent, _) => sent,
    };
    match sent {
        // A gateway that is gone has forgotten the call, or reports it as of unknown outcome.
        Ok(()) | Err(LinkError::Closed | LinkError::Io(_)) => {}
        Err(error) => protocol::log!("bulkhead-sandbox: an outcome could not be told: {error}"),
    }
}

/// The map is whole after each statement, so that a panic elsewhere leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
