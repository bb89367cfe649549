//! Layers over the workspace: where boxes write, and what becomes of it.
//!
//! They are made, kept and thrown away by the program `bulkhead-workspace`; this is the side that
//! asks for them.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::control::{Control, HistoryLimits, Peer, Report, SupervisorEnd, WorkspaceConfig};
use protocol::frame::{Link, LinkError};
use protocol::ids::CallRef;
use protocol::runner::{Changes, Fate};
use protocol::workspace::{
    Base, GitFolders, HistoryReply, HistoryRequest, LayerFolders, LayerId, LayerKind, LayerReply,
    LayerRequest,
};

use crate::native::spec::Failure;
use crate::run::Refused;

/// A layer that nobody decided about yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name.
    pub id: LayerId,
    /// Where it is.
    pub folders: LayerFolders,
    /// A file that begins with the number of the newest entry of the history.
    pub sequence: PathBuf,
}

/// Whoever makes layers and decides about them.
pub trait Layers: Debug + Send + Sync {
    /// Makes an empty one.
    fn begin(&self, kind: LayerKind) -> Result<Layer, Refused>;
    /// Makes its changes those of the workspace. Its box is gone.
    fn keep(
        &self,
        layer: LayerId,
        base: Base,
        origin: Option<CallRef>,
        git: GitFolders,
    ) -> Result<Changes, Refused>;
    /// Tells its changes and throws them away. Its box is gone.
    fn discard(&self, layer: LayerId) -> Result<Changes, Refused>;
    /// Throws it away unseen.
    fn forget(&self, layer: LayerId);
    /// The same. Its box is gone and wrote nothing to it, so it may be that of another.
    fn give_back(&self, layer: LayerId) {
        self.forget(layer);
    }
}

/// A layer that is forgotten unless somebody decides about it.
#[derive(Debug)]
pub(crate) struct HeldLayer {
    layer: Option<Layer>,
    layers: Arc<dyn Layers>,
}

impl HeldLayer {
    /// Makes an empty one.
    pub(crate) fn begin(layers: &Arc<dyn Layers>, kind: LayerKind) -> Result<Self, Refused> {
        Ok(Self {
            layer: Some(layers.begin(kind)?),
            layers: Arc::clone(layers),
        })
    }

    /// Whether nothing at all was written to it, as far as that is quickly told: not of a copy.
    pub(crate) fn is_untouched(&self) -> bool {
        match self.folders() {
            Ok(LayerFolders::Overlay { upper, .. }) => {
                fs::read_dir(upper).is_ok_and(|mut entries| entries.next().is_none())
            }
            Ok(LayerFolders::Copy { .. }) | Err(_) => false,
        }
    }

    /// Where it is.
    pub(crate) fn folders(&self) -> Result<&LayerFolders, Failure> {
        match &self.layer {
            Some(layer) => Ok(&layer.folders),
            None => Err(Failure::because("the layer was given away")),
        }
    }

    /// The file that begins with the number of the newest entry.
    pub(crate) fn sequence(&self) -> Result<&Path, Failure> {
        match &self.layer {
            Some(layer) => Ok(&layer.sequence),
            None => Err(Failure::because("the layer was given away")),
        }
    }

    /// For another box. Nothing was written to it and nobody can any more.
    pub(crate) fn give_back(mut self) {
        if let Some(layer) = self.layer.take() {
            self.layers.give_back(layer.id);
        }
    }

    /// For whoever decides about it.
    pub(crate) fn decide(mut self) -> Option<Layer> {
        self.layer.take()
    }
}

impl Drop for HeldLayer {
    fn drop(&mut self) {
        if let Some(layer) = self.layer.take() {
            self.layers.forget(layer.id);
        }
    }
}

/// The end of the link that asks.
pub type LayerLink = Link<LayerRequest, LayerReply>;

/// The end of the link that shows and undoes what was kept.
pub type HistoryLink = Link<HistoryRequest, HistoryReply>;

/// Layers from the program that keeps the workspace.
#[derive(Debug, Default)]
pub struct Linked(Mutex<Asking>);

#[derive(Debug, Default)]
struct Asking {
    link: Option<LayerLink>,
    /// Replies that nobody waits for, and that come before all others.
    owed: usize,
}

/// The most replies that nobody waits for; more would fill the socket one day.
const MOST_OWED: usize = 64;

impl Asking {
    fn send(&self, request: &LayerRequest) -> Result<(), LinkError> {
        let link = self.link.as_ref().ok_or(LinkError::Closed)?;
        link.send(request)
    }

    fn receive(&self) -> Result<LayerReply, LinkError> {
        let link = self.link.as_ref().ok_or(LinkError::Closed)?;
        link.receive()
    }

    /// Takes the replies that nobody waits for.
    fn settle(&mut self) -> Result<(), LinkError> {
        while self.owed > 0 {
            self.receive()?;
            self.owed -= 1;
        }
        Ok(())
    }

    /// What comes later would be the answer to another question.
    fn give_up(&mut self) {
        *self = Self::default();
    }
}

impl Linked {
    /// Uses this link from now on.
    pub fn link(&self, link: LayerLink) {
        let mut asking = self.locked();
        asking.give_up();
        asking.link = Some(link);
    }

    fn locked(&self) -> MutexGuard<'_, Asking> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, request: &LayerRequest) -> Result<LayerReply, Refused> {
        let mut asking = self.locked();
        let asked = asking
            .send(request)
            .and_then(|()| asking.settle())
            .and_then(|()| asking.receive());
        match asked {
            Ok(LayerReply::Refused { reason, fix }) => Err(Refused { reason, fix }),
            Ok(reply) => Ok(reply),
            Err(error) => {
                asking.give_up();
                Err(Refused {
                    reason: format!("the program that keeps the workspace does not answer: {error}"),
                    fix: "it is started again by itself; try again in a moment, and see `bulkhead status`"
                        .to_owned(),
                })
            }
        }
    }

    /// Nothing depends on when it is done, and removing folders takes the disk's time. If the program is gone,
    /// its next start removes what nobody holds.
    fn tell(&self, request: &LayerRequest) {
        let mut asking = self.locked();
        let asked = asking.send(request);
        asking.owed += 1;
        if asked.is_err() || (asking.owed >= MOST_OWED && asking.settle().is_err()) {
            asking.give_up();
        }
    }

    /// Waits until all that was asked for is done.
    fn settle(&self) {
        let mut asking = self.locked();
        if asking.settle().is_err() {
            asking.give_up();
        }
    }

    fn changes(&self, request: &LayerRequest) -> Result<Changes, Refused> {
        match self.ask(request)? {
            LayerReply::Changes { changes } => Ok(changes),
            LayerReply::Begun { .. } | LayerReply::Forgotten | LayerReply::Refused { .. } => {
                Err(self.out_of_step())
            }
        }
    }

    fn out_of_step(&self) -> Refused {
        self.locked().give_up();
        Refused {
            reason: "the program that keeps the workspace answered something else".to_owned(),
            fix: "install the programs of one version together".to_owned(),
        }
    }
}

impl Layers for Linked {
    fn begin(&self, kind: LayerKind) -> Result<Layer, Refused> {
        match self.ask(&LayerRequest::Begin { kind })? {
            LayerReply::Begun {
                layer,
                folders,
                sequence,
            } => Ok(Layer {
                id: layer,
                folders,
                sequence,
            }),
            LayerReply::Changes { .. } | LayerReply::Forgotten | LayerReply::Refused { .. } => {
                Err(self.out_of_step())
            }
        }
    }

    fn keep(
        &self,
        layer: LayerId,
        base: Base,
        origin: Option<CallRef>,
        git: GitFolders,
    ) -> Result<Changes, Refused> {
        self.changes(&LayerRequest::Keep {
            layer,
            base,
            origin,
            git,
        })
    }

    fn discard(&self, layer: LayerId) -> Result<Changes, Refused> {
        self.changes(&LayerRequest::Discard { layer })
    }

    fn forget(&self, layer: LayerId) {
        self.tell(&LayerRequest::Forget { layer });
    }

    fn give_back(&self, layer: LayerId) {
        self.tell(&LayerRequest::GiveBack { layer });
    }
}

/// A program that keeps a workspace for one command line, without a supervisor. It ends with this.
#[derive(Debug)]
pub struct Keeper {
    child: Child,
    control: SupervisorEnd<WorkspaceConfig>,
    layers: Arc<Linked>,
}

impl Keeper {
    /// Starts `program`, which is `bulkhead-workspace`. What was left open in this history is finished first.
    pub fn start(
        program: &Path,
        workspace: &Path,
        history: &Path,
        keep: HistoryLimits,
    ) -> Result<Self, Refused> {
        let pair = || UnixStream::pair().map_err(|e| fault("no socket can be made", &e));
        let ((ours, theirs), (asking, answering)) = (pair()?, pair()?);
        let child = Command::new(program)
            .arg("--workspace")
            .arg(workspace)
            .arg("--history")
            .arg(history)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| fault(&format!("{} cannot be started", program.display()), &e))?;
        let keeper = Self {
            child,
            control: SupervisorEnd::new(ours),
            layers: Arc::default(),
        };
        // Here the owner runs a command of their own.
        let config = WorkspaceConfig {
            keep,
            read_only: Vec::new(),
        };
        let told = keeper
            .control
            .send(&Control::Start { config })
            .and_then(|()| keeper.control.receive());
        match told {
            Ok((Report::Ready, _)) => {}
            Ok((Report::Failed { reason }, _)) => {
                return Err(fault("the workspace cannot be kept", &reason));
            }
            Ok((other, _)) => {
                return Err(fault("the workspace cannot be kept", &format!("{other:?}")));
            }
            Err(error) => return Err(fault("the workspace cannot be kept", &error)),
        }
        keeper.hand_over(Peer::Sandbox, answering)?;
        keeper.layers.link(Link::new(asking));
        Ok(keeper)
    }

    /// Where layers come from.
    pub fn layers(&self) -> Arc<Linked> {
        Arc::clone(&self.layers)
    }

    /// A link to its history, to show and undo what was kept.
    ///
    /// # Errors
    ///
    /// No socket, or the program is gone.
    pub fn history(&self) -> Result<HistoryLink, Refused> {
        let (asking, answering) =
            UnixStream::pair().map_err(|e| fault("no socket can be made", &e))?;
        self.hand_over(Peer::Gateway, answering)?;
        Ok(Link::new(asking))
    }

    fn hand_over(&self, peer: Peer, answering: UnixStream) -> Result<(), Refused> {
        let told = self
            .control
            .send_with(&Control::Link { peer }, answering.into());
        told.map_err(|e| fault("the workspace cannot be kept", &e))
    }
}

fn fault(what: &str, error: &dyn std::fmt::Display) -> Refused {
    Refused {
        reason: format!("{what}: {error}"),
        fix: "install the programs of one version together, and see `bulkhead doctor`".to_owned(),
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Whoever removes the history afterwards finds no layer in it.
        self.layers.settle();
        // What it has under way is whole either way, and it ends when it has done it.
        let _ = self.control.send(&Control::Stop);
        let _ = self.child.wait();
    }
}

/// Layers that are always thrown away: for runs that are only to be looked at. The folder is the
/// caller's, and nobody else writes to it.
#[derive(Debug)]
pub struct Discarding {
    folder: PathBuf,
    count: AtomicU64,
}

impl Discarding {
    /// Makes layers in this folder.
    pub fn within(folder: &Path) -> io::Result<Self> {
        fs::write(folder.join("sequence"), [0; 8])?;
        Ok(Self {
            folder: folder.to_owned(),
            count: AtomicU64::new(0),
        })
    }

    fn of(&self, LayerId(number): LayerId) -> PathBuf {
        self.folder.join(number.to_string())
    }
}

impl Layers for Discarding {
    fn begin(&self, kind: LayerKind) -> Result<Layer, Refused> {
        let id = LayerId(self.count.fetch_add(1, Ordering::Relaxed) + 1);
        let part = |name: &str| {
            let path = self.of(id).join(name);
            fs::create_dir_all(&path).map_err(|error| Refused {
                reason: format!("no layer can be made: {}: {error}", path.display()),
                fix: "make room, or set TMPDIR".to_owned(),
            })?;
            Ok(path)
        };
        let folders = match kind {
            LayerKind::Overlay => LayerFolders::Overlay {
                upper: part("upper")?,
                work: part("work")?,
            },
            LayerKind::Copy => LayerFolders::Copy {
                folder: part("copy")?,
            },
        };
        let sequence = self.folder.join("sequence");
        Ok(Layer {
            id,
            folders,
            sequence,
        })
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

    fn discard(&self, layer: LayerId) -> Result<Changes, Refused> {
        self.forget(layer);
        Ok(Changes {
            fate: Fate::Discarded,
            ..Changes::default()
        })
    }

    fn forget(&self, layer: LayerId) {
        // Overlayfs leaves folders that their owner may not enter either, one in the other.
        let mut closed = self.of(layer).join("work");
        for name in ["work", "incompat", "volatile"] {
            closed.push(name);
            let _ = fs::set_permissions(&closed, fs::Permissions::from_mode(0o700));
        }
        // What cannot be removed goes with the folder.
        let _ = fs::remove_dir_all(self.of(layer));
    }
}
