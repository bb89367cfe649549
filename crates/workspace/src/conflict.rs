//! What others did while a box ran.

use std::collections::{BTreeMap, HashMap, HashSet};

use protocol::runner::EntryId;
use protocol::workspace::Base;

use crate::findings::bounded;
use crate::fsys::Meta;
use crate::journal::{Body, Op};
use crate::name::Name;
use crate::stop::Stop;
use crate::store::Store;

/// The most paths that are named.
const MAX_NAMED: usize = 10;

/// What entries that the box knew left, as far as the clock cannot tell that it was before the
/// box: change times go in ticks, and a box begins in the tick in which the step before it ended.
#[derive(Debug, Default)]
pub(crate) struct Known(Vec<Traces>);

/// What an entry touched.
#[derive(Debug)]
pub(crate) struct Traces {
    /// When it was whole.
    pub(crate) applied: i64,
    /// The objects it placed or took away, with inode and change time as they were then.
    pub(crate) objects: BTreeMap<Vec<Name>, Option<(u64, i64, u64)>>,
    /// The folders in which it did.
    pub(crate) folders: HashSet<Vec<Name>>,
}

impl Known {
    /// Of the entries up to the box' first moment, those that ended in its tick or later.
    pub(crate) fn before(store: &Store, base: Base) -> Result<Self, Stop> {
        let mut known = Vec::new();
        for entry in store
            .entries
            .keys()
            .rev()
            .filter(|entry| **entry <= base.entry.0)
        {
            let traces = match Traces::of(store, *entry, base.since)? {
                Some(traces) => traces,
                None => break,
            };
            known.push(traces);
        }
        Ok(Self(known))
    }

    /// Whether the last change of the object at this path was one of these.
    pub(crate) fn explains(&self, path: &[Name], meta: &Meta) -> bool {
        self.0.iter().any(|traces| traces.explain(path, meta))
    }
}

impl Traces {
    /// Of one entry; none if it was whole before that moment.
    pub(crate) fn of(store: &Store, entry: u64, since: i64) -> Result<Option<Self>, Stop> {
        let done = store.done(entry)?;
        if done.applied < since {
            return Ok(None);
        }
        let body = store.body(entry)?;
        let mut traces = Self {
            applied: done.applied,
            objects: BTreeMap::new(),
            folders: HashSet::new(),
        };
        for (at, op) in body.ops.iter().enumerate() {
            let placed = done.placed.get(at).copied().flatten();
            traces.place(path_of(&body, op)?, placed);
        }
        for touch in &body.touches {
            traces.folders.insert(folder_of(&body, touch.folder)?);
        }
        Ok(Some(traces))
    }

    /// What was placed below a path before went with what was there.
    fn place(&mut self, path: Vec<Name>, placed: Option<(u64, i64, u64)>) {
        let below = self.objects.range(path.clone()..);
        let below = below
            .map(|(at, _)| at)
            .take_while(|at| at.starts_with(&path));
        for at in below.cloned().collect::<Vec<_>>() {
            self.objects.remove(&at);
        }
        self.objects.insert(path, placed);
    }

    pub(crate) fn explain(&self, path: &[Name], meta: &Meta) -> bool {
        if meta.ctime > self.applied {
            return false;
        }
        match self.objects.get(path) {
            Some(Some((ino, _, _))) => return *ino == meta.ino,
            Some(None) => return false,
            None => {}
        }
        self.folders.contains(path)
            || (1..path.len()).any(|len| self.objects.contains_key(&path[..len]))
    }
}

/// The paths of a step that entries newer than its base touched too.
pub(crate) fn with_newer(store: &Store, base: EntryId, mine: &Body) -> Result<Vec<String>, Stop> {
    let newest = store.newest();
    let mut paths = Vec::new();
    if base.0 >= newest {
        return Ok(paths);
    }
    let mine = Mine::of(mine)?;
    for entry in base.0 + 1..=newest {
        if !store.entries.contains_key(&entry) {
            return Err(Stop::refuse(
                "the history has forgotten what others changed meanwhile",
                "run it again, and allow the history more room",
            ));
        }
        let theirs = store.body(entry)?;
        for op in &theirs.ops {
            if paths.len() >= MAX_NAMED {
                return Ok(paths);
            }
            let path = path_of(&theirs, op)?;
            if mine.meets(&path, &mine.busy) {
                paths.push(bounded(&path));
            }
        }
        for touch in theirs.touches.iter().filter(|touch| touch.mode.is_some()) {
            let path = folder_of(&theirs, touch.folder)?;
            if mine.meets(&path, &mine.modes) {
                paths.push(bounded(&path));
            }
        }
    }
    Ok(paths)
}

/// What a step touches, to be looked up.
struct Mine<'a> {
    objects: HashSet<(u32, &'a Name)>,
    folders: HashMap<(u32, Name), u32>,
    /// Folders that are changed, or in which something is, however deep.
    busy: HashSet<u32>,
    /// Folders whose mode is changed.
    modes: HashSet<u32>,
}

impl<'a> Mine<'a> {
    fn of(body: &'a Body) -> Result<Self, Stop> {
        let modes: HashSet<u32> = body
            .touches
            .iter()
            .filter(|touch| touch.mode.is_some())
            .map(|touch| touch.folder)
            .collect();
        let mut busy = HashSet::new();
        for folder in body
            .ops
            .iter()
            .map(|op| op.folder)
            .chain(modes.iter().copied())
        {
            let mut at = Some(folder);
            while let Some(folder) = at.filter(|folder| busy.insert(*folder)) {
                at = body.folders.parent(folder);
            }
        }
        Ok(Self {
            objects: body.ops.iter().map(|op| (op.folder, &op.name)).collect(),
            folders: body.folders.lookup(),
            busy,
            modes,
        })
    }

    /// Whether a path is at or below an object of this step, or is one of these folders.
    fn meets(&self, path: &[Name], folders: &HashSet<u32>) -> bool {
        let mut at = 0;
        for name in path {
            if self.objects.contains(&(at, name)) {
                return true;
            }
            match self.folders.get(&(at, name.clone())) {
                Some(folder) => at = *folder,
                None => return false,
            }
        }
        folders.contains(&at)
    }
}

pub(crate) fn folder_of(body: &Body, folder: u32) -> Result<Vec<Name>, Stop> {
    body.folders.path(folder).ok_or_else(|| {
        Stop::refuse(
            "a journal names a folder that it does not describe",
            "the history folder is damaged: move it away and start again",
        )
    })
}

pub(crate) fn path_of(body: &Body, op: &Op) -> Result<Vec<Name>, Stop> {
    let mut path = folder_of(body, op.folder)?;
    path.push(op.name.clone());
    Ok(path)
}
