//! Boxes in containers: asked for of the program `bulkhead-engine`, one process for each.
//!
//! That process alone holds the engine's socket, which is as good as being root, and has it for one box.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::engine::{EngineConfig, EngineReply, EngineRequest};
use protocol::frame::{Link, LinkError};
use protocol::runner::{RunEnd, RunOutcome};

use crate::layers::{HeldLayer, Layers};
use crate::run::{Job, Killer, LOOK_EVERY, Refused, Then, base_of, decide, over_disk};
use crate::watch::{Disk, Holders};

/// The end of the link that asks.
pub(crate) type EngineLink = Link<EngineRequest, EngineReply>;

/// Runs boxes in containers.
#[derive(Debug)]
pub struct Engines {
    /// The program `bulkhead-engine`.
    pub program: PathBuf,
    /// Which engine, and what of Bulkhead goes into its containers.
    pub config: EngineConfig,
    /// The workspace on the host.
    pub workspace: PathBuf,
    /// Where its layers come from.
    pub layers: Arc<dyn Layers>,
}

impl Engines {
    /// Whether the engine is there and has what is needed; also removes what an earlier run left.
    pub fn check(&self) -> Result<(), Refused> {
        self.connect().map(drop)
    }

    /// Runs it in a container of its own; `begun` gets what kills it, before it begins.
    pub fn run_killable(
        &self,
        job: Job,
        begun: impl FnOnce(Killer),
    ) -> Result<RunOutcome, Refused> {
        let (engine, kind) = self.connect()?;
        let layer = HeldLayer::begin(&self.layers, kind)?;
        let missing = |failure: crate::native::spec::Failure| crate::check::refusal(&failure);
        let folders = layer.folders().map_err(missing)?.clone();
        let base = base_of(&layer).map_err(missing)?;
        let disk = Disk::of(&folders, job.limits.workspace_bytes, Holders::Elsewhere);
        let note = over_disk(&job.limits);
        let asked = engine.link.send(&EngineRequest::Run {
            action: job.action,
            limits: job.limits,
            workspace: self.workspace.clone(),
            layer: folders,
        });
        asked.map_err(|error| self.silent(&error))?;
        begun(Killer::of_engine(Arc::clone(&engine.link)));
        let (told, filled) = watched(&engine.link, disk);
        let mut outcome = match told {
            Ok(EngineReply::Finished { outcome }) => outcome,
            Ok(EngineReply::Refused { reason, fix }) => return Err(Refused { reason, fix }),
            Ok(EngineReply::Connected { .. }) => return Err(self.silent(&"it connected twice")),
            Err(error) => return Err(self.silent(&error)),
        };
        drop(engine);
        if filled {
            outcome.end = RunEnd::Signalled {
                signal: libc::SIGKILL,
            };
            outcome.stderr.push_str(&note);
        }
        let then = match outcome.end {
            RunEnd::Exited { .. } | RunEnd::Signalled { .. } if !filled => job.then,
            // What was cut off in the middle leaves nothing half done behind.
            _ => Then::Discard,
        };
        Ok(RunOutcome {
            changes: decide(self.layers.as_ref(), layer, then, base),
            ..outcome
        })
    }

    fn connect(&self) -> Result<(Engine, protocol::workspace::LayerKind), Refused> {
        let engine = Engine::start(self).map_err(|error| self.silent(&error))?;
        let config = self.config.clone();
        let told = engine
            .link
            .send(&EngineRequest::Connect { config })
            .and_then(|()| engine.link.receive());
        match told {
            Ok(EngineReply::Connected { layer }) => Ok((engine, layer)),
            Ok(EngineReply::Refused { reason, fix }) => Err(Refused { reason, fix }),
            Ok(EngineReply::Finished { .. }) => {
                Err(self.silent(&"it finished what it had not begun"))
            }
            Err(error) => Err(self.silent(&error)),
        }
    }

    fn silent(&self, error: &dyn std::fmt::Display) -> Refused {
        Refused {
            reason: format!(
                "the program that has {} make boxes ended: {error}",
                self.config.backend.name()
            ),
            fix: "look at what it said on standard error (`bulkhead status` names the log), and at `bulkhead doctor`"
                .to_owned(),
        }
    }
}

/// Waits for the answer, and meanwhile sees to what is written: the kernels of some containers hold no
/// sum of it. Whether it was too much comes with the answer.
fn watched(link: &Arc<EngineLink>, disk: Disk) -> (Result<EngineReply, LinkError>, bool) {
    let (over, filled) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let disk = disk;
            while !over.load(Ordering::SeqCst) {
                std::thread::park_timeout(LOOK_EVERY);
                if disk.is_over() && !filled.swap(true, Ordering::SeqCst) {
                    // If it is gone, its box is too.
                    let _ = link.send(&EngineRequest::Kill);
                }
            }
            disk.is_over_now()
        });
        let told = link.receive();
        over.store(true, Ordering::SeqCst);
        watcher.thread().unpark();
        let full = watcher.join().unwrap_or(true);
        (told, filled.load(Ordering::SeqCst) || full)
    })
}

/// A running `bulkhead-engine`. When it is dropped, its container is killed and removed.
struct Engine {
    child: Child,
    link: Arc<EngineLink>,
}

impl Engine {
    fn start(engines: &Engines) -> Result<Self, LinkError> {
        let (ours, theirs) = UnixStream::pair()?;
        std::fs::create_dir_all(&engines.config.files)?;
        let child = Command::new(&engines.program)
            .arg(&engines.config.files)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", engines.program.display())))?;
        Ok(Self {
            child,
            link: Arc::new(Link::new(ours)),
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.link.close();
        let _ = self.child.wait();
    }
}
