//! The workspace and its history, open.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use protocol::call::WorkspacePath;
use protocol::control::HistoryLimits;
use protocol::ids::{CallRef, NoRandom, random};
use protocol::runner::{Changes, EntryId, Fate};
use protocol::time::Millis;
use protocol::workspace::{Base, GitFolders, LayerFolders, LayerId, LayerKind, LayerReply, Origin};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::apply::{Scene, Slots};
use crate::clean::{Settling, Whiteouts};
use crate::conflict::{self, Known};
use crate::copy::{self, Index};
use crate::findings::{Findings, Watch};
use crate::fsys::{self, Cursor};
use crate::home::{self, Home};
use crate::journal::{self, Body, Done, Header, Part, Way};
use crate::name::Name;
use crate::plan::Planner;
use crate::read_only::ReadOnly;
use crate::steps::{Step, Steps};
use crate::stop::Stop;

/// The version of what is on the disk.
const VERSION: u32 = 1;
/// The most empty layers that are kept for the next boxes.
const SPARE: usize = 8;

/// The workspace and its history. One at a time changes them, also among processes.
pub struct Store {
    pub(crate) workspace: OwnedFd,
    pub(crate) home: Home,
    limits: HistoryLimits,
    read_only: Arc<ReadOnly>,
    layers: HashMap<u64, Layer>,
    /// Layers that nobody wrote to.
    spare: Vec<(u64, Layer)>,
    last_layer: u64,
    /// The entries that can be undone.
    pub(crate) entries: BTreeMap<u64, Header>,
    /// Entries that cannot, but whose slots later ones need.
    pub(crate) retired: Vec<u64>,
    pub(crate) steps: Box<dyn Steps>,
}

struct Layer {
    folder: OwnedFd,
    kind: Content,
    /// Held while the process lives.
    _lock: OwnedFd,
}

/// A layer without content.
pub(crate) struct Made {
    pub(crate) number: u64,
    pub(crate) folder: OwnedFd,
    _lock: OwnedFd,
}

enum Content {
    Overlay,
    Copy(Index),
}

/// A step that is ready to become true.
pub(crate) struct Ready {
    pub(crate) origin: Origin,
    pub(crate) body: Body,
    pub(crate) parts: Vec<Part>,
    pub(crate) changes: u64,
    pub(crate) settled: bool,
}

impl Store {
    /// Opens both folders and finishes, or drops, what a crash left open.
    ///
    /// # Errors
    ///
    /// A folder that cannot be used, and why.
    pub fn open(
        workspace: &Path,
        history: &Path,
        limits: HistoryLimits,
        steps: Box<dyn Steps>,
    ) -> Result<Self, Stop> {
        let inside = |outer: &Path, inner: &Path| inner.starts_with(outer);
        if inside(workspace, history) || inside(history, workspace) {
            return Err(Stop::refuse(
                "the history folder and the workspace are one inside the other",
                "choose a history folder elsewhere, since boxes see all of the workspace",
            ));
        }
        let folder = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(workspace, folder, Mode::empty())
            .map_err(Stop::at(workspace.display()))?;
        let mut store = Self {
            home: Home::open(history, fd.as_fd())?,
            workspace: fd,
            limits,
            read_only: Arc::default(),
            layers: HashMap::new(),
            spare: Vec::new(),
            last_layer: first_layer()?,
            entries: BTreeMap::new(),
            retired: Vec::new(),
            steps,
        };
        store.locked(|store| {
            store.recover()?;
            store.prune()
        })?;
        Ok(store)
    }

    /// Makes an empty layer.
    ///
    /// # Errors
    ///
    /// The disk, or a workspace that cannot be copied.
    pub fn begin(&mut self, kind: LayerKind) -> Result<LayerReply, Stop> {
        let spare = match kind {
            LayerKind::Overlay => self.spare.pop(),
            LayerKind::Copy => None,
        };
        let (number, layer) = match spare {
            Some(spare) => spare,
            None => self.fresh(kind)?,
        };
        let path = self.home.path.join("layers").join(number.to_string());
        let folders = match layer.kind {
            Content::Overlay => LayerFolders::Overlay {
                upper: path.join("upper"),
                work: path.join("work"),
            },
            Content::Copy(_) => LayerFolders::Copy {
                folder: path.join("copy"),
            },
        };
        self.layers.insert(number, layer);
        Ok(LayerReply::Begun {
            layer: LayerId(number),
            folders,
            sequence: self.home.path.join("sequence"),
        })
    }

    fn fresh(&mut self, kind: LayerKind) -> Result<(u64, Layer), Stop> {
        let made = self.locked(|store| {
            store
                .home
                .make_layer(store.last_layer)
                .map_err(Stop::at("cannot make a layer"))
        });
        let (number, folder, lock) = made?;
        self.last_layer = number;
        match self.fill(kind, &folder) {
            Ok(kind) => Ok((
                number,
                Layer {
                    folder,
                    kind,
                    _lock: lock,
                },
            )),
            Err(stop) => {
                self.drop_layer(number);
                Err(stop)
            }
        }
    }

    fn fill(&self, kind: LayerKind, folder: &OwnedFd) -> Result<Content, Stop> {
        let make = |name| {
            home::make_private(folder.as_fd(), &Name::of(name))
                .map_err(Stop::at("cannot make a layer"))
        };
        match kind {
            LayerKind::Overlay => {
                make("upper")?;
                make("work")?;
                Ok(Content::Overlay)
            }
            LayerKind::Copy => {
                make("copy")?;
                let to = fsys::open_folder(folder, &Name::of("copy"))
                    .map_err(Stop::at("cannot make a layer"))?;
                Ok(Content::Copy(copy::copy(&self.workspace, &to)?))
            }
        }
    }

    /// Makes the changes of a layer those of the workspace, or throws them away; tells which.
    ///
    /// # Errors
    ///
    /// No such layer. That nothing could be kept is a fate.
    pub fn keep(
        &mut self,
        layer: LayerId,
        base: Base,
        origin: Option<CallRef>,
        git: GitFolders,
    ) -> Result<Changes, Stop> {
        let taken = self.take(layer)?;
        let origin = match origin {
            Some(call) => Origin::Call { call },
            None => Origin::Run,
        };
        let kept = self.locked(|store| {
            let kept = store.keep_held(layer, &taken, base, origin, git);
            store.drop_layer(layer.0);
            if matches!(&kept, Ok(changes) if matches!(changes.fate, Fate::Kept { .. })) {
                // It is kept; what is too old goes next time, if not now.
                if let Err(stop) = store.prune() {
                    protocol::log!("bulkhead-workspace: cannot prune the history: {stop}");
                }
            }
            kept
        });
        Ok(kept.unwrap_or_else(|stop| Changes {
            fate: stop.into(),
            ..Changes::default()
        }))
    }

    /// From now on no step of a box changes what is at these paths.
    pub fn set_read_only(&mut self, paths: &[WorkspacePath]) {
        self.read_only = Arc::new(ReadOnly::new(paths));
    }

    fn keep_held(
        &mut self,
        layer: LayerId,
        taken: &Layer,
        base: Base,
        origin: Origin,
        git: GitFolders,
    ) -> Result<Changes, Stop> {
        self.refresh()?;
        let entry = self.newest() + 1;
        let known = Known::before(self, base)?;
        let excuse = |path: &[Name], meta: &fsys::Meta| known.explains(path, meta);
        let mut findings =
            Findings::new(Watch::Since(base.since, &excuse)).barring(self.read_only.clone(), git);
        let (body, settling) = self.plan(taken, entry, &mut findings)?;
        let mut paths = conflict::with_newer(self, base.entry, &body)?;
        paths.extend(findings.take_conflicts());
        if !paths.is_empty() {
            paths.sort_unstable();
            paths.dedup();
            return Ok(findings.into_changes(Fate::Conflict { paths }));
        }
        let barred = findings.take_barred();
        if !barred.is_empty() {
            return Ok(findings.into_changes(Fate::ReadOnly { paths: barred }));
        }
        if body.is_empty() {
            return Ok(findings.into_changes(Fate::Unchanged));
        }
        let ready = Ready {
            origin,
            parts: vec![Part {
                step: entry,
                way: Way::Do,
                bytes: findings.old_bytes,
            }],
            changes: findings.count(),
            settled: settling.is_settled(),
            body,
        };
        match self.commit(layer.0, &taken.folder, ready) {
            Ok(entry) => Ok(findings.into_changes(Fate::Kept { entry })),
            Err(stop) => Ok(findings.into_changes(stop.into())),
        }
    }

    /// Tells the changes of a layer and throws them away.
    ///
    /// # Errors
    ///
    /// No such layer.
    pub fn discard(&mut self, layer: LayerId) -> Result<Changes, Stop> {
        let taken = self.take(layer)?;
        let mut findings = Findings::new(Watch::Nothing);
        let planned = self.plan(&taken, u64::MAX, &mut findings);
        self.drop_layer(layer.0);
        let fate = match planned {
            Ok((body, _)) if body.is_empty() => Fate::Unchanged,
            Ok(_) => Fate::Discarded,
            Err(stop) => stop.into(),
        };
        Ok(findings.into_changes(fate))
    }

    /// Throws a layer away unseen.
    ///
    /// # Errors
    ///
    /// No such layer.
    pub fn forget(&mut self, layer: LayerId) -> Result<(), Stop> {
        let _taken = self.take(layer)?;
        self.drop_layer(layer.0);
        Ok(())
    }

    /// Takes a layer back that nobody can write to any more. If nobody did, it is given out again, which
    /// costs the disk less than a fresh one; else it is thrown away unseen.
    ///
    /// # Errors
    ///
    /// No such layer.
    pub fn give_back(&mut self, layer: LayerId) -> Result<(), Stop> {
        let taken = self.take(layer)?;
        let renewed = match taken.kind {
            Content::Overlay if self.spare.len() < SPARE => renew(&taken.folder),
            Content::Overlay | Content::Copy(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        match renewed {
            Ok(()) => self.spare.push((layer.0, taken)),
            // What cannot be made as new is not used again.
            Err(_) => self.drop_layer(layer.0),
        }
        Ok(())
    }

    /// Throws away what is kept for the next box.
    pub fn drop_spare(&mut self) {
        for (number, _) in std::mem::take(&mut self.spare) {
            self.drop_layer(number);
        }
    }

    fn take(&mut self, layer: LayerId) -> Result<Layer, Stop> {
        self.layers.remove(&layer.0).ok_or_else(|| {
            Stop::refuse(
                format!("there is no layer {}", layer.0),
                "begin one first; each can be kept, discarded or forgotten once",
            )
        })
    }

    /// If it was kept it is not there any more. What cannot be removed goes at the next start.
    pub(crate) fn drop_layer(&self, layer: u64) {
        self.steps.before(Step::Remove);
        if let Err(error) = self.home.throw_away(&self.home.layers, layer) {
            protocol::log!("bulkhead-workspace: cannot remove layer {layer}: {error}");
        }
    }

    fn plan(
        &self,
        layer: &Layer,
        step: u64,
        findings: &mut Findings<'_>,
    ) -> Result<(Body, Settling), Stop> {
        let failed = |error: io::Error| Stop::at("a layer")(error);
        let slots = Name::of("slots");
        home::make_private(layer.folder.as_fd(), &slots).map_err(failed)?;
        let (root, kind) = match layer.kind {
            Content::Overlay => ("upper", Whiteouts::Devices),
            Content::Copy(_) => ("copy", Whiteouts::None),
        };
        let root = fsys::open_folder(&layer.folder, &Name::of(root)).map_err(failed)?;
        let workspace = self.workspace.try_clone().map_err(failed)?;
        let mut planner = Planner {
            workspace: Cursor::new(workspace),
            layer: Cursor::new(root),
            slots: Rc::new(fsys::open_folder(&layer.folder, &slots).map_err(failed)?),
            step,
            kind,
            body: Body {
                steps: vec![step],
                ..Body::default()
            },
            findings,
            settling: Settling::default(),
            steps: &*self.steps,
            path: Vec::new(),
            numbers: vec![0],
            touched: std::collections::HashSet::new(),
        };
        match &layer.kind {
            Content::Overlay => planner.overlay()?,
            Content::Copy(index) => planner.copied(index)?,
        }
        Ok((planner.body, planner.settling))
    }

    /// Writes the journal of a step into its layer, makes it true, and does it.
    pub(crate) fn commit(
        &mut self,
        layer: u64,
        folder: &OwnedFd,
        ready: Ready,
    ) -> Result<EntryId, Stop> {
        let entry = self.newest() + 1;
        let header = Header {
            version: VERSION,
            entry: EntryId(entry),
            time: Millis::now(),
            origin: ready.origin,
            changes: ready.changes,
            parts: ready.parts,
        };
        self.steps.before(Step::Journal);
        self.write_journal(folder, &header, &ready.body, ready.settled)
            .map_err(Stop::at("cannot write the journal"))?;
        self.steps.before(Step::Commit);
        self.home
            .commit(layer, entry)
            .map_err(Stop::at("cannot make the step true"))?;
        self.entries.insert(entry, header);
        self.finish(entry, &ready.body)?;
        Ok(EntryId(entry))
    }

    fn write_journal(
        &self,
        folder: &OwnedFd,
        header: &Header,
        body: &Body,
        settled: bool,
    ) -> io::Result<()> {
        let lines = [journal::line(header)?, journal::line(body)?];
        let file = journal::write(folder.as_fd(), &Name::of("journal"), &lines)?;
        if !settled {
            return Ok(rustix::fs::syncfs(folder)?);
        }
        rustix::fs::fsync(file)?;
        if let Ok(slots) = fsys::open_folder(folder, &Name::of("slots")) {
            rustix::fs::fsync(slots)?;
        }
        Ok(rustix::fs::fsync(folder)?)
    }

    /// Does a step that is true, or takes it back where others changed what it needs.
    pub(crate) fn finish(&mut self, entry: u64, body: &Body) -> Result<(), Stop> {
        let name = Name::number(entry);
        let folder = fsys::open_folder(&self.home.entries, &name)
            .map_err(Stop::at("cannot open an entry"))?;
        let going_back =
            fsys::look(&folder, &Name::of("back")).map_err(Stop::at("cannot look at an entry"))?;
        let done = match going_back {
            None => self.scene().apply(body),
            Some(_) => Err(Stop::refuse(
                "the step was being taken back when the program ended",
                "do it again",
            )),
        };
        match done {
            Ok(done) => self.mark(entry, &folder, &done),
            Err(stop) => {
                self.go_back(entry, &folder, body)?;
                Err(stop)
            }
        }
    }

    /// A layer for a step that no box makes.
    pub(crate) fn make_layer(&mut self) -> Result<Made, Stop> {
        let made = self.home.make_layer(self.last_layer);
        let (number, folder, lock) = made.map_err(Stop::at("cannot make a layer"))?;
        self.last_layer = number;
        Ok(Made {
            number,
            folder,
            _lock: lock,
        })
    }

    pub(crate) fn slots(&self) -> Slots<'_> {
        Slots::new(self.home.entries.as_fd())
    }

    fn scene(&self) -> Scene<'_> {
        Scene {
            workspace: self.workspace.as_fd(),
            slots: Slots::new(self.home.entries.as_fd()),
            steps: &*self.steps,
        }
    }

    fn mark(&mut self, entry: u64, folder: &OwnedFd, done: &Done) -> Result<(), Stop> {
        self.steps.before(Step::Clean);
        clean_up(folder).map_err(Stop::at("cannot clean up an entry"))?;
        self.steps.before(Step::Mark);
        let line = journal::line(done).map_err(Stop::at("a mark"))?;
        journal::write(folder.as_fd(), &Name::of("done"), &[line])
            .map_err(Stop::at("cannot mark an entry"))?;
        self.steps.before(Step::Sequence);
        self.home
            .set_sequence(entry)
            .map_err(Stop::at("cannot write the sequence"))
    }

    fn go_back(&mut self, entry: u64, folder: &OwnedFd, body: &Body) -> Result<(), Stop> {
        self.steps.before(Step::Back);
        let failed = |error: io::Error| Stop::at("cannot take a step back")(error);
        journal::write(folder.as_fd(), &Name::of("back"), &[])
            .and_then(|file| Ok(rustix::fs::fsync(file)?))
            .and_then(|()| Ok(rustix::fs::fsync(folder)?))
            .map_err(failed)?;
        let stuck = self.scene().take_back(body);
        self.entries.remove(&entry);
        self.steps.before(Step::Remove);
        if stuck == 0 {
            return self
                .home
                .throw_away(&self.home.entries, entry)
                .map_err(failed);
        }
        let at = self.home.put_aside(entry).map_err(failed)?;
        Err(Stop::refuse(
            format!(
                "others changed the workspace meanwhile; {stuck} objects of it could not be put back"
            ),
            format!("take them from {}", at.display()),
        ))
    }

    /// The newest entry, whole or not.
    pub(crate) fn newest(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(0)
    }

    /// Does this while nobody else changes the history.
    pub(crate) fn locked<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        // The lock is of the open file, so that a second handle on it holds it as well.
        let home = self
            .home
            .lock_handle()
            .map_err(Stop::at("cannot lock the history"))?;
        let held = home::hold(&home)?;
        let result = work(self);
        drop(held);
        result
    }

    /// Reads again what another process changed.
    pub(crate) fn refresh(&mut self) -> Result<(), Stop> {
        let failed = |error: io::Error| Stop::at("cannot read the history")(error);
        let newest = self.newest();
        let more = fsys::look(&self.home.entries, &Name::number(newest + 1)).map_err(failed)?;
        if more.is_none() && self.home.sequence().map_err(failed)? == newest {
            return Ok(());
        }
        self.recover()
    }

    /// Finishes or drops what was left open by processes that are gone.
    pub(crate) fn recover(&mut self) -> Result<(), Stop> {
        let failed = |error: io::Error| Stop::at("cannot read the history")(error);
        self.home.empty_trash().map_err(failed)?;
        self.load().map_err(failed)?;
        let newest = self.newest();
        if newest > 0 {
            let folder =
                fsys::open_folder(&self.home.entries, &Name::number(newest)).map_err(failed)?;
            let done = journal::read_line::<Done>(folder.as_fd(), &Name::of("done"));
            if done.is_err() {
                let (_, body) =
                    journal::read_journal(folder.as_fd(), &Name::of("journal")).map_err(failed)?;
                match self.finish(newest, &body) {
                    Ok(()) => {}
                    // The workspace is as before it, and its layer is gone.
                    Err(stop) => {
                        protocol::log!("bulkhead-workspace: entry {newest} was taken back: {stop}")
                    }
                }
            }
        }
        for layer in self.home.numbers(&self.home.layers).map_err(failed)? {
            if !self.layers.contains_key(&layer) && self.home.is_dead(layer).map_err(failed)? {
                self.drop_layer(layer);
            }
        }
        self.home.set_sequence(self.newest()).map_err(failed)
    }

    /// Reads which entries there are.
    fn load(&mut self) -> io::Result<()> {
        self.entries.clear();
        self.retired.clear();
        for number in self.home.numbers(&self.home.entries)? {
            let folder = fsys::open_folder(&self.home.entries, &Name::number(number))?;
            match journal::read_header(folder.as_fd(), &Name::of("journal")) {
                Ok(header) if header.version == VERSION && header.entry.0 == number => {
                    self.entries.insert(number, header);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.retired.push(number),
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What an entry did.
    pub(crate) fn body(&self, entry: u64) -> Result<Body, Stop> {
        let failed = |error: io::Error| Stop::at(format!("entry {entry} of the history"))(error);
        let folder = fsys::open_folder(&self.home.entries, &Name::number(entry)).map_err(failed)?;
        let (_, body) =
            journal::read_journal(folder.as_fd(), &Name::of("journal")).map_err(failed)?;
        Ok(body)
    }

    /// How the workspace looked once an entry was done.
    pub(crate) fn done(&self, entry: u64) -> Result<Done, Stop> {
        let failed = |error: io::Error| Stop::at(format!("entry {entry} of the history"))(error);
        let folder = fsys::open_folder(&self.home.entries, &Name::number(entry)).map_err(failed)?;
        match journal::read_line(folder.as_fd(), &Name::of("done")) {
            // Not synced; a newer entry says that this one was whole.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidData
                ) =>
            {
                Ok(Done::default())
            }
            other => other.map_err(failed),
        }
    }

    /// How much of the past is kept.
    pub(crate) fn limits(&self) -> HistoryLimits {
        self.limits
    }
}

/// Where this start begins to count layers. A box that outlives the program that made its layer still knows
/// that by its number, which must then be nobody else's.
fn first_layer() -> Result<u64, Stop> {
    let no_number = |error: NoRandom| Stop::at("cannot number layers")(io::Error::other(error));
    let [a, b, c, d, e, f] = random::<6>().map_err(no_number)?;
    Ok(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

/// Puts fresh folders in the place of those of a layer that nobody wrote to. Its overlay is not mounted any more.
fn renew(layer: &OwnedFd) -> io::Result<()> {
    let (upper, work) = (Name::of("upper"), Name::of("work"));
    // Not if there is anything in it.
    rustix::fs::unlinkat(layer, upper.bytes(), AtFlags::REMOVEDIR)?;
    fsys::remove(layer.as_fd(), &work)?;
    home::make_private(layer.as_fd(), &upper)?;
    home::make_private(layer.as_fd(), &work)
}

/// Removes what is left of the layer that an entry was.
fn clean_up(folder: &OwnedFd) -> io::Result<()> {
    for name in ["upper", "work", "copy", "lock"] {
        fsys::remove(folder.as_fd(), &Name::of(name))?;
    }
    Ok(())
}

impl From<Stop> for Fate {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Refused { reason, fix } => Self::Failed { reason, fix },
            Stop::Conflict { paths } => Self::Conflict { paths },
        }
    }
}
