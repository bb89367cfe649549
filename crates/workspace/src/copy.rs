//! Layers that are copies, for boxes that cannot have an overlay.
//!
//! An index remembers each object of the copy as it was made. What then has another inode or
//! change time was changed; what is not in the index is new; what is missing is gone.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use protocol::runner::FileKind;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::apply::now;
use crate::clean::Budget;
use crate::compare::Visit as _;
use crate::findings::bounded;
use crate::fsys::{self, Cursor, Meta};
use crate::name::{Name, shown};
use crate::plan::Planner;
use crate::stop::Stop;

/// The bits of a mode that tell the kind of object.
const S_IFMT: u32 = 0o170_000;

/// How a copy looked when it was made: its folders, each with what was in it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    folders: Vec<BTreeMap<Name, Made>>,
}

#[derive(Clone, Copy, Debug)]
struct Made {
    ino: u64,
    ctime: i64,
    mode: u32,
    /// Of a folder, its number.
    folder: Option<usize>,
}

/// Copies all of the workspace but sockets and devices.
pub(crate) fn copy(workspace: &OwnedFd, to: &OwnedFd) -> Result<Index, Stop> {
    let dup = |fd: &OwnedFd| fd.try_clone().map_err(Stop::at("a descriptor"));
    let mut copier = Copier {
        from: Cursor::new(dup(workspace)?),
        to: Cursor::new(dup(to)?),
        budget: Budget::default(),
        links: HashMap::new(),
    };
    copier.all()?;
    drop(copier);
    let index = index(dup(to)?)?;
    wait_for_next_tick();
    Ok(index)
}

/// So that a later change has a later change time.
fn wait_for_next_tick() {
    let at = now(ClockId::RealtimeCoarse);
    for _ in 0..100 {
        if now(ClockId::RealtimeCoarse) != at {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

struct Copier {
    from: Cursor,
    to: Cursor,
    budget: Budget,
    /// First names of files that have several.
    links: HashMap<u64, Vec<Name>>,
}

impl Copier {
    fn all(&mut self) -> Result<(), Stop> {
        let mut waiting = vec![self.names()?];
        let mut metas: Vec<Meta> = Vec::new();
        while let Some(names) = waiting.last_mut() {
            let Some(name) = names.pop() else {
                waiting.pop();
                if let Some(meta) = metas.pop() {
                    self.leave(&meta)?;
                }
                continue;
            };
            let from = self.from.folder().map_err(Stop::at("the workspace"))?;
            let Some(meta) = fsys::look(from, &name).map_err(Stop::at("the workspace"))? else {
                continue;
            };
            match self.object(&name, &meta) {
                Ok(()) => {}
                // It went away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    let mut path = self.from.names().to_vec();
                    path.push(name);
                    return Err(Stop::at(shown(&path))(error));
                }
            }
            if meta.is_folder() {
                metas.push(meta);
                waiting.push(self.names()?);
            }
        }
        Ok(())
    }

    fn names(&mut self) -> Result<Vec<Name>, Stop> {
        let folder = self.from.folder().map_err(Stop::at("the workspace"))?;
        let mut names = self.budget.names(folder)?;
        names.reverse();
        Ok(names)
    }

    fn leave(&mut self, meta: &Meta) -> Result<(), Stop> {
        let folder = self.to.folder().map_err(Stop::at("a copy"))?;
        let done = fsys::set_mtime(folder, meta.mtime)
            .and_then(|()| fsys::set_mode(folder, meta.permissions() & 0o1777));
        done.map_err(Stop::at("a copy"))?;
        self.from.leave();
        self.to.leave();
        Ok(())
    }

    fn object(&mut self, name: &Name, meta: &Meta) -> io::Result<()> {
        let (from, to) = (self.from.folder()?, self.to.folder()?);
        match meta.kind() {
            FileKind::Folder => {
                rustix::fs::mkdirat(to, name.bytes(), Mode::RWXU)?;
                self.from.enter(name)?;
                self.to.enter(name)
            }
            FileKind::Link => {
                let target = rustix::fs::readlinkat(from, name.bytes(), Vec::new())?;
                Ok(rustix::fs::symlinkat(target, to, name.bytes())?)
            }
            FileKind::Fifo => {
                let mode = Mode::from_raw_mode(meta.permissions() & 0o1777);
                rustix::fs::mknodat(to, name.bytes(), rustix::fs::FileType::Fifo, mode, 0)?;
                Ok(())
            }
            FileKind::File => self.file(name, meta),
            FileKind::Socket | FileKind::Device => Ok(()),
        }
    }

    fn file(&mut self, name: &Name, meta: &Meta) -> io::Result<()> {
        if let Some(first) = self.links.get(&meta.ino) {
            let (last, above) = first.split_last().ok_or(io::ErrorKind::InvalidData)?;
            let mut root = self.to.again()?;
            for name in above {
                root.enter(name)?;
            }
            let to = self.to.folder()?;
            let none = AtFlags::empty();
            return Ok(rustix::fs::linkat(
                root.folder()?,
                last.bytes(),
                to,
                name.bytes(),
                none,
            )?);
        }
        let (source, now) = fsys::open_file(self.from.folder()?, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = rustix::fs::openat(
            self.to.folder()?,
            name.bytes(),
            flags,
            Mode::RUSR | Mode::WUSR,
        )?;
        contents(source.as_fd(), target.as_fd(), now.size)?;
        rustix::fs::fchmod(&target, Mode::from_raw_mode(meta.permissions() & 0o1777))?;
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: rustix::fs::UTIME_OMIT,
            },
            last_modification: fsys::timespec(meta.mtime),
        };
        rustix::fs::futimens(&target, &times)?;
        if meta.links > 1 {
            let mut path = self.to.names().to_vec();
            path.push(name.clone());
            self.links.insert(meta.ino, path);
        }
        Ok(())
    }
}

/// Shares the blocks where the file system can, and copies them elsewhere; holes stay holes only
/// in the first case.
fn contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    match rustix::fs::ioctl_ficlone(to, from) {
        Ok(()) => return Ok(()),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left.min(1 << 30)).unwrap_or(1 << 30);
        match rustix::fs::copy_file_range(from, None, to, None, part)? {
            // It is shorter by now.
            0 => return Ok(()),
            n => left -= n as u64,
        }
    }
    Ok(())
}

/// Remembers all of a copy.
fn index(root: OwnedFd) -> Result<Index, Stop> {
    let mut cursor = Cursor::new(root);
    let mut budget = Budget::default();
    let mut index = Index {
        folders: vec![BTreeMap::new()],
    };
    let failed = || Stop::at::<io::Error>("a copy");
    let first = budget.names(cursor.folder().map_err(failed())?)?;
    let mut waiting = vec![(0, first)];
    while let Some((number, names)) = waiting.last_mut() {
        let Some(name) = names.pop() else {
            waiting.pop();
            cursor.leave();
            continue;
        };
        let number = *number;
        let meta = fsys::look(cursor.folder().map_err(failed())?, &name).map_err(failed())?;
        let Some(meta) = meta else { continue };
        let folder = meta.is_folder().then_some(index.folders.len());
        let made = Made {
            ino: meta.ino,
            ctime: meta.ctime,
            mode: meta.mode,
            folder,
        };
        index.folders[number].insert(name.clone(), made);
        // One that is closed to us cannot have been copied into.
        if let Some(folder) = folder {
            index.folders.push(BTreeMap::new());
            if cursor.enter(&name).is_ok() {
                waiting.push((folder, budget.names(cursor.folder().map_err(failed())?)?));
            }
        }
    }
    Ok(index)
}

impl Made {
    /// Whether it is the same object. A number that became free may be given to one of another kind.
    fn is(&self, now: &Meta) -> bool {
        self.ino == now.ino && self.mode & S_IFMT == now.mode & S_IFMT
    }
}

struct Frame {
    rows: std::vec::IntoIter<Name>,
    folder: usize,
}

impl Planner<'_, '_> {
    /// Looks through a copy.
    pub(crate) fn copied(&mut self, index: &Index) -> Result<(), Stop> {
        let mut frames = vec![self.copy_frame(index, 0)?];
        while let Some(frame) = frames.last_mut() {
            let Some(name) = frame.rows.next() else {
                frames.pop();
                self.up();
                continue;
            };
            let made = index.folders[frame.folder].get(&name).copied();
            self.path.push(name.clone());
            match self.copied_object(index, &name, made)? {
                Some(folder) => frames.push(self.copy_frame(index, folder)?),
                None => {
                    self.path.pop();
                }
            }
        }
        Ok(())
    }

    fn copy_frame(&mut self, index: &Index, folder: usize) -> Result<Frame, Stop> {
        let here = self.layer.folder().map_err(Stop::at("a copy"))?;
        let mut rows = self.findings.budget().names(here)?;
        rows.extend(index.folders[folder].keys().cloned());
        rows.sort_unstable();
        rows.dedup();
        Ok(Frame {
            rows: rows.into_iter(),
            folder,
        })
    }

    /// The number of the folder that was entered, if one was.
    fn copied_object(
        &mut self,
        index: &Index,
        name: &Name,
        made: Option<Made>,
    ) -> Result<Option<usize>, Stop> {
        let layer = self.layer.folder().map_err(Stop::at("a copy"))?;
        let now = fsys::look(layer, name).map_err(self.failed())?;
        let now = now.filter(|now| now.kind() != FileKind::Socket);
        let here = self.in_workspace(name)?;
        let Some(now) = now else {
            if let (Some(_), Some(here)) = (made, &here) {
                self.remove(name, here)?;
            }
            return Ok(None);
        };
        match (made, here) {
            (Some(made), Some(here)) if made.is(&now) => match made.folder {
                Some(folder) if here.is_folder() => {
                    let mut upper = now;
                    // Only what the box changed of the permissions is a change.
                    if now.mode == made.mode {
                        upper.mode = here.mode;
                    }
                    self.merge(name, &upper, &here)?;
                    Ok(Some(folder))
                }
                None if made.ctime == now.ctime => Ok(None),
                // Somebody put something else where the folder was.
                Some(folder) if !self.changed_below(index, folder, name)? => Ok(None),
                Some(_) | None => self.put_copied(name, &now, Some(&here)),
            },
            (Some(made), None) if made.is(&now) => match made.folder {
                Some(folder) if self.changed_below(index, folder, name)? => Err(Stop::Conflict {
                    paths: vec![bounded(&self.path)],
                }),
                None if made.ctime != now.ctime => self.put_copied(name, &now, None),
                Some(_) | None => Ok(None),
            },
            (_, here) => self.put_copied(name, &now, here.as_ref()),
        }
    }

    /// Whether the box changed anything in a folder of the copy.
    fn changed_below(&mut self, index: &Index, folder: usize, name: &Name) -> Result<bool, Stop> {
        let failed = || Stop::at::<io::Error>("a copy");
        let root = self.layer.folder().map_err(failed())?;
        let mut cursor = Cursor::new(root.try_clone_to_owned().map_err(failed())?);
        cursor.enter(name).map_err(failed())?;
        let mut waiting = vec![index.folders[folder].iter()];
        let below = self
            .findings
            .budget()
            .names(cursor.folder().map_err(failed())?)?;
        if below.len() != index.folders[folder].len() {
            return Ok(true);
        }
        while let Some(rows) = waiting.last_mut() {
            let Some((name, made)) = rows.next() else {
                waiting.pop();
                cursor.leave();
                continue;
            };
            let now = fsys::look(cursor.folder().map_err(failed())?, name).map_err(failed())?;
            let same = now.is_some_and(|now| {
                made.is(&now)
                    && made.mode == now.mode
                    && (made.folder.is_some() || made.ctime == now.ctime)
            });
            if !same {
                return Ok(true);
            }
            if let Some(folder) = made.folder {
                cursor.enter(name).map_err(failed())?;
                let below = self
                    .findings
                    .budget()
                    .names(cursor.folder().map_err(failed())?)?;
                if below.len() != index.folders[folder].len() {
                    return Ok(true);
                }
                waiting.push(index.folders[folder].iter());
            }
        }
        Ok(false)
    }

    fn put_copied(
        &mut self,
        name: &Name,
        now: &Meta,
        here: Option<&Meta>,
    ) -> Result<Option<usize>, Stop> {
        crate::clean::acceptable(now, &self.path)?;
        self.put(name, here)?;
        Ok(None)
    }
}
