//! Native boxes: made when they are needed, or a little earlier.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::control::{BoxGroups, MemoryPolicy};
use protocol::runner::Limits;
use protocol::workspace::LayerKind;

use crate::cgroup::{Cgroup, Cgroups, Held};
use crate::check;
use crate::layers::{HeldLayer, Layers};
use crate::native::builder::{Builder, Made};
use crate::native::facts;
use crate::native::mounts::OVERLAY;
use crate::native::namespaces;
use crate::native::spec::{BoxSpec, Count, Facts, Failure, Kind, Report, ToBox};
use crate::run::Refused;
use crate::way::{OpenDoor, Outside};

/// The list of system calls of a command, compiled: an array of `struct sock_filter`, as other programs
/// take it, to be compared with a box on equal terms.
///
/// # Errors
///
/// A list that the kernel's machine has no room for, in words.
pub fn command_filter() -> Result<Vec<u8>, String> {
    let calls = crate::profiles::of_box(Kind::Exec);
    crate::seccomp::Program::compile(&calls).map(|program| program.bytes())
}

/// What all boxes of a service have in common.
#[derive(Clone, Debug)]
pub struct Config {
    /// The program `bulkhead-sandbox`.
    pub program: PathBuf,
    /// The program that holds the built-in tools, on the host.
    pub tool_program: PathBuf,
    /// The workspace on the host.
    pub workspace: PathBuf,
    /// What to do where nothing holds the memory of a box as a whole.
    pub memory: MemoryPolicy,
    /// Where their cgroups can be made.
    pub groups: BoxGroups,
}

/// Makes boxes. They die with the thread that started this.
#[derive(Debug)]
pub struct Boxes {
    config: Config,
    builder: Mutex<Builder>,
    layers: Arc<dyn Layers>,
    cgroups: Cgroups,
    outside: Vec<(String, u64)>,
    count: Count,
    /// Whether no layer can be laid over this workspace, so that boxes get copies.
    copies: AtomicBool,
    made: AtomicU64,
}

impl Boxes {
    /// Starts what makes boxes.
    pub fn start(config: Config, layers: Arc<dyn Layers>) -> Result<Self, Refused> {
        let failed = |failure: Failure| check::refusal(&failure);
        let cgroups = Cgroups::find(&config.groups);
        match (&cgroups, config.memory) {
            (Cgroups::Nowhere { reason }, MemoryPolicy::Enforced) => {
                return Err(Refused {
                    reason: format!(
                        "nothing holds the memory of a box as a whole ({reason}), and the configuration demands it"
                    ),
                    fix: check::CGROUP_FIX.to_owned(),
                });
            }
            (Cgroups::Nowhere { .. }, MemoryPolicy::BestEffort)
            | (Cgroups::V1 { .. } | Cgroups::V2(_), _) => {}
        }
        let count = count(&cgroups)?;
        Ok(Self {
            builder: Mutex::new(Builder::start(&config.program).map_err(failed)?),
            outside: facts::namespaces()
                .map_err(Failure::at("reading /proc/self/ns"))
                .map_err(failed)?,
            config,
            layers,
            cgroups,
            count,
            copies: AtomicBool::new(false),
            made: AtomicU64::new(0),
        })
    }

    /// The workspace on the host.
    pub(crate) fn workspace(&self) -> &Path {
        &self.config.workspace
    }

    /// What is asked about layers.
    pub(crate) fn layers(&self) -> &Arc<dyn Layers> {
        &self.layers
    }

    /// Whether no more boxes can be had, since the process that makes them is gone.
    pub fn is_broken(&self) -> bool {
        self.builder
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_gone()
    }

    /// Builds one, up to the moment when it is told what to run.
    pub(crate) fn build(
        &self,
        kind: Kind,
        limits: &Limits,
        outside: &Outside,
    ) -> Result<Ready, Refused> {
        let layer_kind = match self.copies.load(Ordering::Relaxed) {
            true => LayerKind::Copy,
            false => LayerKind::Overlay,
        };
        let stamp = Stamp::of(&self.config.workspace)
            .map_err(Failure::at(format!(
                "opening the workspace {}",
                self.config.workspace.display()
            )))
            .map_err(|failure| check::refusal(&failure))?;
        match self.build_over(layer_kind, kind, limits, stamp, outside) {
            Err(NoBox::Failed(failure))
                if failure.doing == OVERLAY && layer_kind == LayerKind::Overlay =>
            {
                protocol::log!(
                    "bulkhead-sandbox: {}: {}; boxes get copies of the workspace",
                    failure.doing,
                    failure.error
                );
                self.copies.store(true, Ordering::Relaxed);
                self.build(kind, limits, outside)
            }
            Err(NoBox::Failed(failure)) => Err(check::refusal(&failure)),
            Err(NoBox::Refused(refused)) => Err(refused),
            Ok(ready) => Ok(ready),
        }
    }

    fn build_over(
        &self,
        layer_kind: LayerKind,
        kind: Kind,
        limits: &Limits,
        stamp: Stamp,
        outside: &Outside,
    ) -> Result<Ready, NoBox> {
        let pipe = || io::pipe().map_err(Failure::at("making a pipe"));
        let ((input, stdin), (stdout, output), (stderr, error)) = (pipe()?, pipe()?, pipe()?);
        // Namespaces, the layer and the cgroup are made at the same time.
        let builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = builder.ask()?;
        let layer = HeldLayer::begin(&self.layers, layer_kind).map_err(NoBox::Refused)?;
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let cgroup = self
            .cgroups
            .make(number, limits)
            .map_err(Failure::at("making a cgroup"))?;
        let made = asked.made()?;
        drop(builder);
        let body = Body { made, cgroup };
        let doors = body.take_in()?;
        let spec = Box::new(BoxSpec {
            kind,
            limits: limits.clone(),
            workspace: self.config.workspace.clone(),
            layer: layer.folders()?.clone(),
            tool_program: self.config.tool_program.clone(),
            count: self.count,
            outside: self.outside.clone(),
        });
        let mut fds = vec![input.as_fd(), output.as_fd(), error.as_fd()];
        fds.extend(doors.iter().map(OwnedFd::as_fd));
        let sent = body.made.link.send_with_all(&ToBox::Build { spec }, &fds);
        drop((input, output, error, doors));
        sent.map_err(Failure::because)?;
        let way = match kind {
            Kind::Exec | Kind::Tool => None,
            Kind::Online => Some(body.open_way(outside)?),
        };
        let facts = body.facts()?;
        let held = body.held()?;
        Ok(Ready {
            kind,
            limits: limits.clone(),
            stamp,
            facts,
            held,
            stdin,
            stdout,
            stderr,
            layer,
            body,
            way,
        })
    }
}

/// What holds the number of processes.
fn count(cgroups: &Cgroups) -> Result<Count, Refused> {
    match cgroups {
        Cgroups::V1 { .. } | Cgroups::V2(_) => Ok(Count::Cgroup),
        Cgroups::Nowhere { .. } if !namespaces::is_root_of_the_host() => Ok(Count::ProcessLimit),
        Cgroups::Nowhere { .. } if namespaces::ids_are_the_namespace_own() => Ok(Count::Ids),
        Cgroups::Nowhere { reason } => Err(Refused {
            reason: format!("{} ({reason})", namespaces::NOT_COUNTED),
            fix: "run Bulkhead as an ordinary user, or as a systemd service with Delegate=yes"
                .to_owned(),
        }),
    }
}

/// Why a box could not be built.
enum NoBox {
    /// A step of it.
    Failed(Failure),
    /// There is no layer for it.
    Refused(Refused),
}

impl From<Failure> for NoBox {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What must not have changed between the building of a box and its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    workspace: (u64, u64),
    /// When the list of libraries was written, of which a box has a copy.
    libraries: Option<(i64, i64)>,
}

impl Stamp {
    pub(crate) fn of(workspace: &Path) -> io::Result<Self> {
        let folder = std::fs::metadata(workspace)?;
        let list = std::fs::metadata("/etc/ld.so.cache").ok();
        Ok(Self {
            workspace: (folder.dev(), folder.ino()),
            libraries: list.map(|data| (data.mtime(), data.mtime_nsec())),
        })
    }
}

/// A box that waits to be told what to run. Dropped, all of it is gone.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) kind: Kind,
    pub(crate) limits: Limits,
    pub(crate) stamp: Stamp,
    pub(crate) facts: Facts,
    pub(crate) held: Option<Held>,
    pub(crate) stdin: PipeWriter,
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
    /// Before the layer, which nobody may have while a box can write to it.
    pub(crate) body: Body,
    /// What it may reach, while it is there.
    pub(crate) way: Option<OpenDoor>,
    pub(crate) layer: HeldLayer,
}

impl Ready {
    /// Whether nobody can use it any more.
    pub(crate) fn is_stale(&self, stamp: Stamp) -> bool {
        self.stamp != stamp || self.body.is_over()
    }

    /// Whether it can still be used, for this.
    pub(crate) fn fits(&self, kind: Kind, limits: &Limits, stamp: Stamp) -> bool {
        self.kind == kind && self.limits == *limits && !self.is_stale(stamp)
    }
}

/// The processes of a box, and what holds them.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) made: Made,
    pub(crate) cgroup: Option<Cgroup>,
}

impl Body {
    /// Puts the first process into its cgroup, before it has been told anything, or says how it enters.
    fn take_in(&self) -> Result<Vec<OwnedFd>, Failure> {
        match &self.cgroup {
            Some(cgroup) => cgroup
                .take_in(self.made.pid)
                .map_err(Failure::at("putting the box into its cgroup")),
            None => Ok(Vec::new()),
        }
    }

    /// What its cgroup holds, as the kernel says, and that it is in it.
    fn held(&self) -> Result<Option<Held>, Failure> {
        match &self.cgroup {
            Some(cgroup) => cgroup
                .held(self.made.pid)
                .map(Some)
                .map_err(Failure::at("reading the limits of the cgroup")),
            None => Ok(None),
        }
    }

    /// Has somebody take the connections of the box, and tells it.
    fn open_way(&self, outside: &Outside) -> Result<OpenDoor, NoBox> {
        let listener = match self.made.link.receive() {
            Ok((Report::Listening, Some(listener))) => listener,
            Ok((Report::Failed(failure), _)) => return Err(failure.into()),
            Ok((Report::Listening | Report::Ready(_) | Report::Ended(_), _)) => {
                return Err(Failure::because("it did not say where it listens").into());
            }
            Err(error) => return Err(Failure::because(error).into()),
        };
        let (way, authority) = outside.open(listener).map_err(NoBox::Refused)?;
        let told = self.made.link.send(&ToBox::Served { authority });
        told.map_err(Failure::because)?;
        Ok(way)
    }

    fn facts(&self) -> Result<Facts, Failure> {
        match self.made.link.receive() {
            Ok((Report::Ready(facts), _)) => Ok(*facts),
            Ok((Report::Failed(failure), _)) => Err(failure),
            Ok((Report::Ended(_) | Report::Listening, _)) => {
                Err(Failure::because("it ended before it began"))
            }
            Err(error) => Err(Failure::because(format!(
                "the box ended before it was built ({error}); the kernel's log may name a process that was killed"
            ))),
        }
    }

    /// Whether all of it is gone.
    pub(crate) fn is_over(&self) -> bool {
        crate::run::readable_within(&self.made.handle, std::time::Duration::ZERO)
    }

    /// A handle on its first process, whose death is that of all the others.
    pub(crate) fn handle(&self) -> io::Result<OwnedFd> {
        self.made.handle.try_clone()
    }
}

/// How much of a box is left after its end.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remains {
    /// Nobody can write to its layer any more.
    Nothing,
    /// The kernel does not end it.
    Processes,
}

impl Body {
    /// Ends all of it.
    pub(crate) fn end(&self) -> Remains {
        /// How long the kernel may take before nobody waits for it any more.
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
        if self.is_over() {
            return Remains::Nothing;
        }
        crate::run::kill(&self.made.handle);
        match crate::run::readable_within(&self.made.handle, PATIENCE) {
            true => Remains::Nothing,
            false => Remains::Processes,
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // Who has to know has asked before.
        let _ = self.end();
    }
}
