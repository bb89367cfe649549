//! Walks two trees side by side.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;

use crate::clean::Budget;
use crate::fsys::{self, Cursor, Meta};
use crate::name::{Name, shown};
use crate::stop::Stop;

/// Where an object is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) dir: Rc<OwnedFd>,
    pub(crate) name: Name,
}

impl Place {
    pub(crate) fn look(&self) -> io::Result<Option<Meta>> {
        fsys::look(&*self.dir, &self.name)
    }
}

/// An object on one side.
pub(crate) struct Side<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) name: &'a Name,
    pub(crate) meta: Meta,
}

/// What is told of each name that is on at least one side, in the order of the paths, compared
/// name by name.
pub(crate) trait Visit {
    /// The path, and how it is on the two sides.
    fn pair(
        &mut self,
        path: &[Name],
        old: Option<&Side<'_>>,
        new: Option<&Side<'_>>,
    ) -> Result<(), Stop>;

    /// What the walk may look at.
    fn budget(&mut self) -> &mut Budget;
}

/// Objects that the new side has at paths below others, and where from; none: it has nothing there.
pub(crate) type Instead = BTreeMap<Vec<Name>, Option<Place>>;

/// Walks from one object on either side down.
pub(crate) fn compare(
    old: Option<&Place>,
    new: Option<&Place>,
    path: &mut Vec<Name>,
    instead: &Instead,
    visit: &mut dyn Visit,
) -> Result<(), Stop> {
    let mut walk = Walk {
        old: old.map(Lane::at).transpose()?,
        new: new.map(Lane::at).transpose()?.into_iter().collect(),
        path: std::mem::take(path),
        frames: Vec::new(),
        instead,
        visit,
    };
    let (old_name, new_name) = (old.map(|at| at.name.clone()), new.map(|at| at.name.clone()));
    let result = walk
        .visit_pair(old_name, new_name, From::Here)
        .and_then(|()| walk.all());
    *path = walk.path;
    result
}

struct Lane(Cursor);

impl Lane {
    fn at(place: &Place) -> Result<Self, Stop> {
        let root = place.dir.try_clone().map_err(Stop::at("a descriptor"))?;
        Ok(Self(Cursor::new(root)))
    }
}

struct Frame {
    rows: std::vec::IntoIter<Name>,
    old: bool,
    new: Entered,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entered {
    Not,
    Same,
    Other,
}

/// Where the new side's object of a pair is.
enum From {
    /// In the folder that the walk is in.
    Here,
    /// Elsewhere.
    Other(Lane),
}

struct Walk<'a> {
    old: Option<Lane>,
    new: Vec<Lane>,
    path: Vec<Name>,
    frames: Vec<Frame>,
    instead: &'a Instead,
    visit: &'a mut dyn Visit,
}

impl Walk<'_> {
    fn all(&mut self) -> Result<(), Stop> {
        while let Some(frame) = self.frames.last_mut() {
            let Some(name) = frame.rows.next() else {
                self.up();
                continue;
            };
            let old = frame.old.then(|| name.clone());
            let here = (frame.new != Entered::Not).then(|| name.clone());
            self.path.push(name);
            let (new, from) = match self.instead.get(&self.path) {
                Some(None) => (None, From::Here),
                Some(Some(place)) => (Some(place.name.clone()), From::Other(Lane::at(place)?)),
                None => (here, From::Here),
            };
            self.visit_pair(old, new, from)?;
        }
        Ok(())
    }

    fn up(&mut self) {
        let Some(frame) = self.frames.pop() else {
            return;
        };
        if frame.old
            && let Some(lane) = &mut self.old
        {
            lane.0.leave();
        }
        match frame.new {
            Entered::Not => {}
            Entered::Same => {
                if let Some(lane) = self.new.last_mut() {
                    lane.0.leave();
                }
            }
            Entered::Other => {
                self.new.pop();
            }
        }
        self.path.pop();
    }

    /// Tells of a pair and goes into it if there is a folder; the last name of the path goes when it is done.
    fn visit_pair(&mut self, old: Option<Name>, new: Option<Name>, from: From) -> Result<(), Stop> {
        let other = match from {
            From::Here => Entered::Same,
            From::Other(lane) => {
                self.new.push(lane);
                Entered::Other
            }
        };
        let old = side(self.old.as_mut(), old.as_ref())?;
        let new = side(self.new.last_mut(), new.as_ref())?;
        if old.is_some() || new.is_some() {
            self.visit.pair(&self.path, old.as_ref(), new.as_ref())?;
        }
        let into = |side: Option<Side<'_>>| {
            side.filter(|side| side.meta.is_folder())
                .map(|side| side.name.clone())
        };
        let (old, new) = (into(old), into(new));
        let old = enter(self.old.as_mut(), old.as_ref(), &self.path)?;
        let new = enter(self.new.last_mut(), new.as_ref(), &self.path)?;
        if !old && !new {
            if other == Entered::Other {
                self.new.pop();
            }
            self.path.pop();
            return Ok(());
        }
        let rows = self.rows(old, new)?;
        if !new && other == Entered::Other {
            self.new.pop();
        }
        self.frames.push(Frame {
            rows: rows.into_iter(),
            old,
            new: if new { other } else { Entered::Not },
        });
        Ok(())
    }

    fn rows(&mut self, old: bool, new: bool) -> Result<Vec<Name>, Stop> {
        let mut rows = Vec::new();
        if old && let Some(lane) = &mut self.old {
            let folder = lane.0.folder().map_err(Stop::at("cannot list a folder"))?;
            rows = self.visit.budget().names(folder)?;
        }
        if new && let Some(lane) = self.new.last_mut() {
            let folder = lane.0.folder().map_err(Stop::at("cannot list a folder"))?;
            rows.extend(self.visit.budget().names(folder)?);
        }
        let depth = self.path.len();
        let below = self.instead.range(self.path.clone()..);
        rows.extend(
            below
                .take_while(|(path, _)| path.starts_with(&self.path))
                .filter(|(path, _)| path.len() == depth + 1)
                .filter_map(|(path, _)| path.last().cloned()),
        );
        rows.sort_unstable();
        rows.dedup();
        Ok(rows)
    }
}

fn side<'a>(lane: Option<&'a mut Lane>, name: Option<&'a Name>) -> Result<Option<Side<'a>>, Stop> {
    let (Some(lane), Some(name)) = (lane, name) else {
        return Ok(None);
    };
    // A folder that somebody else took away while it was looked at has nothing in it.
    let Ok(dir) = lane.0.folder() else {
        return Ok(None);
    };
    let meta = fsys::look(dir, name).map_err(Stop::at("cannot look at an object"))?;
    Ok(meta.map(|meta| Side { dir, name, meta }))
}

/// Whether it could be entered. One that is no folder any more is told as a whole. One that cannot be looked
/// into, since it is closed to its owner or too deep, is refused: what is in it would be changed untold.
fn enter(lane: Option<&mut Lane>, name: Option<&Name>, path: &[Name]) -> Result<bool, Stop> {
    let (Some(lane), Some(name)) = (lane, name) else {
        return Ok(false);
    };
    match lane.0.enter(name) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            Some(_) => Err(Stop::refuse(
                format!("{} cannot be looked into: {error}", shown(path)),
                "let the owner of each folder read it (chmod u+rwx)",
            )),
            None => Err(Stop::at(shown(path))(error)),
        },
    }
}

impl Place {
    /// An object in a folder that is open.
    pub(crate) fn new(dir: &Rc<OwnedFd>, name: &Name) -> Self {
        Self {
            dir: Rc::clone(dir),
            name: name.clone(),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}
