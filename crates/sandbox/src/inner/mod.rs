//! The first process of a container: reads what to run from the engine's link, runs it in a box, tells
//! what came of it, and ends, and everything in the container with it.
//!
//! In a container of Docker or Podman it builds the same box as on the host, of namespaces and mounts
//! within the container's: the profile is the same because the code is. gVisor's kernel has no mounts
//! for this, so there the container's own are the box', see [`fence`].

mod around;
mod fence;

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use protocol::call::Action;
use protocol::control::{BoxGroups, MemoryPolicy};
use protocol::engine::{InnerReply, InnerRequest, SILENCE, Walls};
use protocol::frame::{self, LinkError};
use protocol::ids::{CallRef, Nonce};
use protocol::runner::{Changes, Limits, RunOutcome};
use protocol::workspace::{Base, GitFolders, LayerFolders, LayerId, LayerKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::boxes::{Boxes, Config};
use crate::confine::{Files, Program, confine};
use crate::layers::{Layer, Layers};
use crate::native::mounts::TOOL;
use crate::run::{Job, Refused, Then};

use fence::Owner;
pub use fence::main as command;

/// The program itself.
const SELF: &str = "/proc/self/exe";

/// The main function of `bulkhead-sandbox inner`.
pub fn main() -> ExitCode {
    crate::sys::close_from(3);
    let told = here()
        .and_then(|()| Link::from_stdin())
        .and_then(Engine::order);
    let (spec, walls, engine) = match told {
        Ok(order) => order,
        // The engine is gone, or is none; whatever it reads there is why.
        Err(error) => {
            protocol::log!("bulkhead-sandbox inner: {error}");
            return ExitCode::FAILURE;
        }
    };
    let nonce = engine.nonce;
    let reply = match run(spec, walls, engine) {
        Ok(outcome) => InnerReply::Finished { nonce, outcome },
        Err(Refused { reason, fix }) => InnerReply::Refused { nonce, reason, fix },
    };
    match tell(&reply) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            protocol::log!("bulkhead-sandbox inner: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The engine decides on this whether anything may run here.
fn here() -> Result<(), LinkError> {
    let around = around::read()?;
    tell(&InnerReply::Here { around })
}

/// Standard output waits for a newline, and a frame has none.
fn tell(reply: &InnerReply) -> Result<(), LinkError> {
    let mut output = std::io::stdout().lock();
    frame::write(&mut output, reply)?;
    Ok(output.flush()?)
}

fn run(spec: Order, walls: Walls, engine: Engine) -> Result<RunOutcome, Refused> {
    match walls {
        Walls::Own => own(spec, engine),
        Walls::Container { uid, gid } => fence::run(&spec, Owner { uid, gid }, engine),
    }
}

/// In a box of namespaces and mounts.
fn own(spec: Order, engine: Engine) -> Result<RunOutcome, Refused> {
    confine(Program::Inner, &Files::default()).map_err(|error| Refused {
        reason: error.to_string(),
        fix: "look at `bulkhead doctor`".to_owned(),
    })?;
    let config = Config {
        program: SELF.into(),
        tool_program: TOOL.into(),
        workspace: spec.workspace,
        // What holds it is the container's cgroup, which the engine reads.
        memory: MemoryPolicy::BestEffort,
        groups: BoxGroups::Own,
    };
    let job = Job {
        action: spec.action,
        limits: spec.limits,
        then: Then::Discard,
    };
    let boxes = Boxes::start(config, Arc::new(Given(spec.layer)))?;
    let mut watched = Ok(());
    let outcome = boxes.run_killable(job, |killer| {
        let kill = killer.clone();
        watched = engine.watch(move || kill.kill());
        if watched.is_err() {
            killer.kill();
        }
    });
    watched.and(outcome)
}

/// What is to run.
struct Order {
    action: Action,
    limits: Limits,
    /// In the container, like the layer.
    workspace: PathBuf,
    layer: LayerFolders,
}

/// The one layer that the container was given. Whoever gave it decides about it.
#[derive(Debug)]
struct Given(LayerFolders);

impl Layers for Given {
    fn begin(&self, kind: LayerKind) -> Result<Layer, Refused> {
        match (&self.0, kind) {
            (LayerFolders::Overlay { .. }, LayerKind::Copy) => Err(Refused {
                reason: "no layer can be laid over the workspace in this container".to_owned(),
                fix: "look at what keeps containers from mounting (AppArmor, SELinux), or use the native backend"
                    .to_owned(),
            }),
            (folders, _) => Ok(Layer {
                id: LayerId(1),
                folders: folders.clone(),
                // Begins with eight zeros, as long as it is read.
                sequence: "/dev/zero".into(),
            }),
        }
    }

    fn keep(
        &self,
        layer: LayerId,
        _: Base,
        _: Option<CallRef>,
        _: GitFolders,
    ) -> Result<Changes, Refused> {
        self.discard(layer)
    }

    fn discard(&self, _: LayerId) -> Result<Changes, Refused> {
        Ok(Changes::default())
    }

    fn forget(&self, _: LayerId) {}
}

/// The link to the engine: standard input, without a buffer of its own, so that it can be waited for.
struct Link(File);

/// The link of a run.
struct Engine {
    link: Link,
    nonce: Nonce,
}

impl Engine {
    /// The first frame.
    fn order(mut link: Link) -> Result<(Order, Walls, Self), LinkError> {
        let out_of_order = |got| LinkError::OutOfOrder {
            expected: "Run",
            got,
        };
        match link.next()? {
            InnerRequest::Run {
                nonce,
                action,
                limits,
                walls,
                workspace,
                layer,
            } => {
                let spec = Order {
                    action,
                    limits,
                    workspace,
                    layer,
                };
                Ok((spec, walls, Self { link, nonce }))
            }
            InnerRequest::Alive { .. } => Err(out_of_order("Alive")),
            InnerRequest::Kill { .. } => Err(out_of_order("Kill")),
        }
    }

    /// Reads on while the box runs. Without an engine that wants it, this process ends, and being the
    /// first of its namespace, everything else with it.
    fn watch(mut self, kill: impl Fn() + Send + 'static) -> Result<(), Refused> {
        let thread = std::thread::Builder::new().name("engine".to_owned());
        let watching = move || loop {
            match self.link.next() {
                Ok(InnerRequest::Alive { nonce }) if nonce == self.nonce => {}
                Ok(InnerRequest::Kill { nonce }) if nonce == self.nonce => kill(),
                Ok(
                    InnerRequest::Run { .. }
                    | InnerRequest::Alive { .. }
                    | InnerRequest::Kill { .. },
                )
                | Err(_) => std::process::exit(1),
            }
        };
        match thread.spawn(watching) {
            Ok(_) => Ok(()),
            Err(error) => Err(Refused {
                reason: format!("no thread that watches the engine: {error}"),
                fix: "give the box more `pids` under [box] in bulkhead.toml".to_owned(),
            }),
        }
    }
}

impl Link {
    fn from_stdin() -> Result<Self, LinkError> {
        Ok(Self(std::io::stdin().as_fd().try_clone_to_owned()?.into()))
    }

    /// Waits for a frame, and not for ever.
    fn next(&mut self) -> Result<InnerRequest, LinkError> {
        let most = Timespec {
            tv_sec: SILENCE.as_secs().cast_signed(),
            tv_nsec: 0,
        };
        let mut events = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut events, Some(&most)).map_err(std::io::Error::from)? {
            0 => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
            _ => frame::read(&mut self.0),
        }
    }
}
