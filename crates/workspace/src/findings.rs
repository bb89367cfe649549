//! What a step changes, told in bounds.

use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use protocol::ids::Digest;
use protocol::runner::{Change, ChangeKind, Changes, Fate, FileKind, FileState};
use protocol::workspace::GitFolders;
use sha2::{Digest as _, Sha256};

use crate::clean::Budget;
use crate::compare::{Side, Visit};
use crate::fsys::{self, Meta};
use crate::name::{Name, shown};
use crate::read_only::{After, ReadOnly, is_obeyed_by_git};
use crate::stop::Stop;
use crate::text::Texts;

/// The most bytes of one file that are read to tell its hash.
pub(crate) const MAX_HASHED: u64 = 64 * 1024 * 1024;

/// The most of a step.
const MAX_HASHED_IN_ALL: u64 = 256 * 1024 * 1024;

/// The most bytes of a list as JSON: what else is in the frame has the other half.
const MAX_LIST: usize = protocol::frame::MAX_FRAME / 2;

/// The most paths that a conflict names.
const MAX_NAMED: usize = 10;

/// Whether what is at this path, changed at that time, was last changed by an entry that the
/// box knew.
pub(crate) type Excuse<'a> = &'a dyn Fn(&[Name], &Meta) -> bool;

/// A list of changes, and what was seen while it was made.
pub(crate) struct Findings<'a> {
    list: Vec<Change>,
    bytes: usize,
    more: u64,
    to_hash: u64,
    budget: Budget,
    /// Of the old objects, on the disk.
    pub(crate) old_bytes: u64,
    watch: Watch<'a>,
    conflicts: Vec<String>,
    read_only: Arc<ReadOnly>,
    git: GitFolders,
    barred: Vec<String>,
    /// Over everything that was seen.
    seen: Sha256,
    texts: Option<Texts>,
}

/// Which old objects somebody else must have changed.
pub(crate) enum Watch<'a> {
    /// Does not matter.
    Nothing,
    /// Those that changed from then on, and have no excuse.
    Since(i64, Excuse<'a>),
    /// Those for which this holds.
    If(&'a dyn Fn(&[Name], &Meta) -> bool),
}

impl<'a> Findings<'a> {
    pub(crate) fn new(watch: Watch<'a>) -> Self {
        Self {
            list: Vec::new(),
            bytes: 0,
            more: 0,
            to_hash: MAX_HASHED_IN_ALL,
            budget: Budget::default(),
            old_bytes: 0,
            watch,
            conflicts: Vec::new(),
            read_only: Arc::default(),
            git: GitFolders::Open,
            barred: Vec::new(),
            seen: Sha256::new(),
            texts: None,
        }
    }

    /// Also looks for changes to what stays as it is.
    pub(crate) fn barring(self, read_only: Arc<ReadOnly>, git: GitFolders) -> Self {
        Self {
            read_only,
            git,
            ..self
        }
    }

    /// The paths that were changed although they stay as they are; at most a few.
    pub(crate) fn take_barred(&mut self) -> Vec<String> {
        std::mem::take(&mut self.barred)
    }

    fn bar(&mut self, path: &[Name], after: After) {
        let barred = self.read_only.bars(path, after)
            || self.git == GitFolders::Closed && is_obeyed_by_git(path);
        if barred && self.barred.len() < MAX_NAMED {
            self.barred.push(bounded(path));
        }
    }

    /// Also compares texts.
    pub(crate) fn with_texts(self) -> Self {
        Self {
            texts: Some(Texts::default()),
            ..self
        }
    }

    pub(crate) fn take_diff(&mut self) -> String {
        self.texts.take().map(Texts::into_text).unwrap_or_default()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.list.len() as u64 + self.more
    }

    /// The paths that somebody else changed; at most a few.
    pub(crate) fn take_conflicts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.conflicts)
    }

    pub(crate) fn conflict(&mut self, path: &[Name]) {
        if self.conflicts.len() < MAX_NAMED {
            self.conflicts.push(bounded(path));
        }
    }

    /// Makes this a part of the digest.
    pub(crate) fn note(&mut self, bytes: &[u8]) {
        self.seen.update((bytes.len() as u64).to_le_bytes());
        self.seen.update(bytes);
    }

    pub(crate) fn note_meta(&mut self, meta: Option<&Meta>) {
        match meta {
            None => self.note(b""),
            Some(meta) => {
                let fields = [
                    meta.ino,
                    u64::from(meta.mode),
                    meta.size,
                    meta.links,
                    meta.ctime.cast_unsigned(),
                    meta.mtime.cast_unsigned(),
                ];
                self.note(&fields.map(u64::to_le_bytes).concat());
            }
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(self.seen.clone().finalize().into())
    }

    pub(crate) fn into_changes(self, fate: Fate) -> Changes {
        Changes {
            fate,
            list: self.list,
            more: self.more,
        }
    }

    /// Tells that the folder at this path gets other permissions.
    pub(crate) fn mode(&mut self, path: &[Name], before: &Meta, mode: u32) {
        self.check(path, before);
        self.bar(path, After::Folder);
        let state = |mode| FileState {
            what: FileKind::Folder,
            mode,
            size: 0,
            links: before.links,
            sha256: None,
            target: None,
        };
        let (old, new) = (state(before.permissions()), state(mode));
        self.tell(path, ChangeKind::Changed, Some(old), Some(new));
    }

    /// Whether two objects are the same but for their identity.
    pub(crate) fn same(&mut self, old: &Side<'_>, new: &Side<'_>) -> bool {
        if old.meta.kind() != new.meta.kind() || old.meta.permissions() != new.meta.permissions() {
            return false;
        }
        match old.meta.kind() {
            FileKind::File if old.meta.size != new.meta.size => false,
            FileKind::File => match (self.hash(old), self.hash(new)) {
                (Some(old), Some(new)) => old == new,
                (_, _) => false,
            },
            FileKind::Link => {
                let target = |side: &Side<'_>| target(side.dir, side.name);
                target(old).is_some_and(|old| Some(old) == target(new))
            }
            FileKind::Folder | FileKind::Fifo => true,
            FileKind::Socket | FileKind::Device => false,
        }
    }

    fn check(&mut self, path: &[Name], old: &Meta) {
        let watched = match &self.watch {
            Watch::Nothing => false,
            Watch::Since(since, excuse) => old.ctime >= *since && !excuse(path, old),
            Watch::If(changed) => changed(path, old),
        };
        if watched {
            self.conflict(path);
        }
    }

    fn tell(
        &mut self,
        path: &[Name],
        kind: ChangeKind,
        before: Option<FileState>,
        after: Option<FileState>,
    ) {
        if self.is_full() {
            self.more += 1;
            return;
        }
        let change = Change {
            path: shown(path),
            kind,
            before,
            after,
        };
        let size = serde_json::to_vec(&change).map_or(MAX_LIST, |json| json.len() + 1);
        if self.bytes + size > MAX_LIST {
            self.more += 1;
            return;
        }
        self.bytes += size;
        self.list.push(change);
    }

    fn is_full(&self) -> bool {
        self.list.len() >= Changes::MOST
    }

    fn state(&mut self, side: &Side<'_>) -> FileState {
        let meta = &side.meta;
        let what = meta.kind();
        FileState {
            what,
            mode: meta.permissions(),
            size: if what == FileKind::File { meta.size } else { 0 },
            links: meta.links,
            sha256: match what {
                FileKind::File => self.hash(side),
                _ => None,
            },
            target: match what {
                FileKind::Link => target(side.dir, side.name)
                    .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
                _ => None,
            },
        }
    }

    fn hash(&mut self, side: &Side<'_>) -> Option<Digest> {
        if side.meta.size > MAX_HASHED.min(self.to_hash) {
            return None;
        }
        self.to_hash -= side.meta.size;
        let (fd, meta) = fsys::open_file(side.dir, side.name).ok()?;
        if meta.ino != side.meta.ino {
            return None;
        }
        let mut file = std::fs::File::from(fd).take(side.meta.size);
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buffer).ok()? {
                0 => return Some(Digest(hasher.finalize().into())),
                n => hasher.update(&buffer[..n]),
            }
        }
    }
}

impl Visit for Findings<'_> {
    fn pair(
        &mut self,
        path: &[Name],
        old: Option<&Side<'_>>,
        new: Option<&Side<'_>>,
    ) -> Result<(), Stop> {
        if let Some(name) = path.last() {
            self.note(name.bytes());
        }
        self.note_meta(old.map(|side| &side.meta));
        self.note_meta(new.map(|side| &side.meta));
        if let Some(old) = old {
            self.old_bytes = self.old_bytes.saturating_add(old.meta.disk);
            self.check(path, &old.meta);
        }
        let kind = match (old, new) {
            (None, None) => return Ok(()),
            (None, Some(_)) => ChangeKind::Created,
            (Some(_), None) => ChangeKind::Deleted,
            (Some(_), Some(_)) => ChangeKind::Changed,
        };
        let place = match new.map(|side| side.meta.kind()) {
            Some(FileKind::Folder) => After::Folder,
            _ => After::Other,
        };
        if self.is_full() {
            self.more += 1;
            self.bar(path, place);
            return Ok(());
        }
        let before = old.map(|side| self.state(side));
        let after = new.map(|side| self.state(side));
        if !told_the_same(before.as_ref(), after.as_ref()) {
            self.bar(path, place);
            if let Some(texts) = &mut self.texts {
                texts.add(path, old, new);
            }
            self.tell(path, kind, before, after);
        }
        Ok(())
    }

    fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }
}

/// Equal in all that a reader of the workspace sees. Files that were not read may differ.
fn told_the_same(before: Option<&FileState>, after: Option<&FileState>) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return false;
    };
    before.what == after.what
        && before.mode == after.mode
        && before.size == after.size
        && before.sha256 == after.sha256
        && before.target == after.target
        && (before.what != FileKind::File || before.sha256.is_some())
}

pub(crate) fn target(dir: BorrowedFd<'_>, name: &Name) -> Option<Vec<u8>> {
    let target = rustix::fs::readlinkat(dir, name.bytes(), Vec::new()).ok()?;
    Some(target.into_bytes())
}

/// A path as it is shown, cut if it is very long.
pub(crate) fn bounded(path: &[Name]) -> String {
    const MOST: usize = 1000;
    let mut text = shown(path);
    if text.len() > MOST {
        text.truncate(text.floor_char_boundary(MOST));
        text.push('…');
    }
    text
}
