//! A workspace, its history, and boxes: a real overlay in a user namespace of its own.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bulkhead_workspace::{Store, Uninterrupted, make_folder};
use protocol::control::HistoryLimits;
use protocol::ids::{CallId, CallRef, SessionId, TurnId};
use protocol::runner::{ChangeKind, Changes, EntryId, Fate};
use protocol::workspace::{
    Base, Diff, GitFolders, HistoryReply, HistoryRequest, LayerFolders, LayerId, LayerKind,
    LayerReply, Preview, UndoTo,
};

pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
}

/// A box that is over.
pub(crate) struct Over {
    pub(crate) layer: LayerId,
    pub(crate) base: Base,
}

pub(crate) const LIMITS: HistoryLimits = HistoryLimits {
    bytes: u64::MAX,
    days: 30,
};

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(LIMITS)
    }

    pub(crate) fn with(limits: HistoryLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("workspace")).unwrap();
        let store = open(dir.path(), limits);
        Self { dir, store }
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.dir.path().join("workspace")
    }

    pub(crate) fn history(&self) -> PathBuf {
        self.dir.path().join("history")
    }

    /// Prepares the workspace as a user would.
    pub(crate) fn given(&self, script: &str) {
        sh(&self.workspace(), script);
        // What somebody does in the tick in which a box begins counts as done meanwhile.
        std::thread::sleep(std::time::Duration::from_millis(12));
    }

    /// Runs a script in a box, which is then gone.
    pub(crate) fn run(&mut self, script: &str) -> Over {
        let ready = self.begin();
        ready.run(script);
        ready.over
    }

    pub(crate) fn begin(&mut self) -> Ready {
        self.begin_as(LayerKind::Overlay)
    }

    pub(crate) fn begin_as(&mut self, kind: LayerKind) -> Ready {
        let reply = self.store.begin(kind).unwrap();
        let LayerReply::Begun {
            layer,
            folders,
            sequence,
        } = reply
        else {
            panic!("{reply:?}")
        };
        Ready {
            workspace: self.workspace(),
            folders,
            over: Over {
                layer,
                base: base(&sequence),
            },
        }
    }

    /// Runs and keeps, on turn 1.
    pub(crate) fn step(&mut self, script: &str) -> Changes {
        self.step_of(1, script)
    }

    pub(crate) fn step_of(&mut self, turn: u64, script: &str) -> Changes {
        let over = self.run(script);
        self.keep_of(turn, &over)
    }

    pub(crate) fn keep(&mut self, over: &Over) -> Changes {
        self.keep_of(1, over)
    }

    pub(crate) fn keep_of(&mut self, turn: u64, over: &Over) -> Changes {
        self.store
            .keep(over.layer, over.base, Some(call(turn)), GitFolders::Open)
            .unwrap()
    }

    pub(crate) fn preview(&mut self, to: UndoTo) -> Preview {
        let diff = Diff::Unified;
        match self.store.history(HistoryRequest::Preview { to, diff }) {
            HistoryReply::Preview { preview } => preview,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn undo(&mut self, to: UndoTo) -> (EntryId, Changes) {
        let digest = self.preview(to.clone()).digest;
        match self.store.history(HistoryRequest::Undo { to, digest }) {
            HistoryReply::Undone { entry, changes } => (entry, changes),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn tree(&self) -> String {
        tree(&self.workspace())
    }

    /// Nothing of a layer is left, and a second program finds everything in order.
    pub(crate) fn assert_tidy(&self) {
        for folder in ["layers", "trash", "lost"] {
            let left: Vec<_> = std::fs::read_dir(self.history().join(folder))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
        let before = self.tree();
        drop(open(self.dir.path(), LIMITS));
        assert_eq!(self.tree(), before);
    }
}

pub(crate) fn open(dir: &Path, limits: HistoryLimits) -> Store {
    make_folder(&dir.join("history")).unwrap();
    let steps = Box::new(Uninterrupted);
    Store::open(&dir.join("workspace"), &dir.join("history"), limits, steps).unwrap()
}

/// A box that is about to run.
pub(crate) struct Ready {
    pub(crate) workspace: PathBuf,
    pub(crate) folders: LayerFolders,
    pub(crate) over: Over,
}

impl Ready {
    pub(crate) fn run(&self, script: &str) {
        match &self.folders {
            LayerFolders::Copy { folder } => sh(folder, script),
            LayerFolders::Overlay { upper, work } => {
                let mount = tempfile::tempdir().unwrap();
                let options = format!(
                    "lowerdir={},upperdir={},workdir={},userxattr,volatile,index=off,metacopy=off,xino=off",
                    self.workspace.display(),
                    upper.display(),
                    work.display(),
                );
                let mount = mount.path();
                let all =
                    "mount -t overlay overlay -o \"$1\" \"$2\" && cd \"$2\" && exec sh -ec \"$3\"";
                let output = Command::new("unshare")
                    .args(["-Urm", "sh", "-c", all, "sh", &options])
                    .arg(mount)
                    .arg(script)
                    .stdin(Stdio::null())
                    .output()
                    .unwrap();
                assert!(
                    output.status.success(),
                    "{script}: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
    }
}

pub(crate) fn base(sequence: &Path) -> Base {
    let bytes = std::fs::read(sequence).unwrap();
    let entry = bytes.try_into().map_or(0, u64::from_le_bytes);
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Base {
        entry: EntryId(entry),
        since: now.tv_sec * 1_000_000_000 + now.tv_nsec,
    }
}

pub(crate) fn sh(dir: &Path, script: &str) {
    let output = Command::new("sh")
        .args(["-ec", script])
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) fn call(turn: u64) -> CallRef {
    CallRef {
        session: SessionId::parse("s").unwrap(),
        turn: TurnId(turn),
        call: CallId(1),
    }
}

pub(crate) fn before_turn(turn: u64) -> UndoTo {
    UndoTo::Turn {
        session: SessionId::parse("s").unwrap(),
        turn: TurnId(turn),
    }
}

pub(crate) fn kept(changes: &Changes) -> EntryId {
    match changes.fate {
        Fate::Kept { entry } => entry,
        ref other => panic!("{other:?}"),
    }
}

/// `+ created`, `~ changed`, `- deleted`.
pub(crate) fn told(changes: &Changes) -> Vec<String> {
    let sign = |kind| match kind {
        ChangeKind::Created => '+',
        ChangeKind::Changed => '~',
        ChangeKind::Deleted => '-',
    };
    let line = |change: &protocol::runner::Change| format!("{} {}", sign(change.kind), change.path);
    changes.list.iter().map(line).collect()
}

/// All that there is to a tree, in text.
pub(crate) fn tree(root: &Path) -> String {
    let mut text = String::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        write!(
            text,
            "{:?} {:o} links {} mtime {}.{:09}",
            String::from_utf8_lossy(name),
            meta.mode(),
            meta.nlink(),
            meta.mtime(),
            meta.mtime_nsec()
        )
        .unwrap();
        if meta.is_symlink() {
            write!(text, " -> {:?}", std::fs::read_link(&path).unwrap()).unwrap();
        } else if meta.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let mut xattrs = vec![0; 4096];
            let len = rustix::fs::lgetxattr(&path, "user.test", xattrs.as_mut_slice());
            xattrs.truncate(len.unwrap_or(0));
            write!(text, " {} {:?}", protocol::ids::Digest::of(bytes), xattrs).unwrap();
        } else if meta.is_dir()
            && let Ok(entries) = std::fs::read_dir(&path)
        {
            let mut below: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            below.sort();
            waiting.extend(below.into_iter().rev());
        }
        text.push('\n');
    }
    text
}
