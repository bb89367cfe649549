//! Does a committed step to the workspace, or takes it back. Each operation can be done again:
//! which side of a swap an object is on tells whether it was done.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode, RenameFlags};
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::findings::bounded;
use crate::fsys::{self, Meta};
use crate::journal::{Body, Done, Object, Op, Touch};
use crate::name::Name;
use crate::steps::{Step, Steps};
use crate::stop::Stop;

/// Others may change the same name between a look and a rename; so often they are outwaited.
const TRIES: usize = 64;

/// So many folders are synced one by one.
const FEW: usize = 16;

/// What an operation works on.
pub(crate) struct Scene<'a> {
    pub(crate) workspace: BorrowedFd<'a>,
    pub(crate) slots: Slots<'a>,
    pub(crate) steps: &'a dyn Steps,
}

/// The folders with the slots of the steps.
pub(crate) struct Slots<'a> {
    entries: BorrowedFd<'a>,
    open: HashMap<u64, Rc<OwnedFd>>,
}

impl<'a> Slots<'a> {
    pub(crate) fn new(entries: BorrowedFd<'a>) -> Self {
        Self {
            entries,
            open: HashMap::new(),
        }
    }

    pub(crate) fn of(&mut self, step: u64) -> io::Result<Rc<OwnedFd>> {
        if let Some(fd) = self.open.get(&step) {
            return Ok(Rc::clone(fd));
        }
        if self.open.len() >= FEW {
            self.open.clear();
        }
        let path = [Name::number(step), Name::of("slots")];
        let fd = Rc::new(fsys::folder_below(self.entries, &path)?);
        self.open.insert(step, Rc::clone(&fd));
        Ok(fd)
    }
}

impl Scene<'_> {
    /// Does all of it, in order, and gets it to the disk.
    ///
    /// The folders of a step are touched before the next step of the entry begins, which may take them
    /// away. So where an operation of a later step was done, they were touched already.
    pub(crate) fn apply(&mut self, body: &Body) -> Result<Done, Stop> {
        let last_done = self.last_done(body).map_err(Stop::at("the history"))?;
        let mut folder = Folder::default();
        let mut placed = Vec::with_capacity(body.ops.len());
        for (step, range) in body.ranges() {
            for op in &body.ops[range.clone()] {
                self.steps.before(Step::Apply);
                let meta = self
                    .swap(op, body, &mut folder, Direction::Forward)
                    .map_err(|error| at(op, body, error))?;
                placed.push(meta.map(|meta| (meta.ino, meta.ctime, meta.size)));
            }
            if last_done.is_none_or(|last| last < range.end) {
                self.steps.before(Step::Touch);
                self.touch(body, step, Direction::Forward)?;
            }
        }
        self.settle(body)
            .map_err(Stop::at("cannot sync the workspace"))?;
        Ok(Done {
            applied: now(ClockId::Realtime),
            placed,
        })
    }

    fn last_done(&mut self, body: &Body) -> io::Result<Option<usize>> {
        for (at, op) in body.ops.iter().enumerate().rev() {
            let slots = self.slots.of(op.step)?;
            if is_done(op, &slots, &Name::number(op.slot))? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Takes back what was done of it. What cannot be put back stays in its slot; how many.
    pub(crate) fn take_back(&mut self, body: &Body) -> u64 {
        let mut folder = Folder::default();
        let mut stuck = 0;
        for (step, range) in body.ranges().into_iter().rev() {
            for op in body.ops[range].iter().rev() {
                self.steps.before(Step::Back);
                stuck += u64::from(self.swap(op, body, &mut folder, Direction::Back).is_err());
            }
            // Times and modes of folders that are gone have nowhere to go.
            let _ = self.touch(body, step, Direction::Back);
        }
        let _ = self.settle(body);
        stuck
    }

    /// What is in the workspace afterwards.
    fn swap(
        &mut self,
        op: &Op,
        body: &Body,
        folder: &mut Folder,
        direction: Direction,
    ) -> io::Result<Option<Meta>> {
        let slots = self.slots.of(op.step)?;
        let slot = Name::number(op.slot);
        let dir = match folder.get(self.workspace, op.folder, body) {
            Ok(dir) => dir,
            // What is to be taken back was never done there.
            Err(error) if direction == Direction::Back && !is_done(op, &slots, &slot)? => {
                let _ = error;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let done = is_done(op, &slots, &slot)?;
        if done != (direction == Direction::Forward) {
            exchange(dir.as_fd(), &op.name, slots.as_fd(), &slot)?;
        }
        for known in [op.incoming, op.outgoing].into_iter().flatten() {
            close_again(dir.as_fd(), &op.name, known)?;
            close_again(slots.as_fd(), &slot, known)?;
        }
        fsys::look(dir, &op.name)
    }

    fn touch(&mut self, body: &Body, step: u64, direction: Direction) -> Result<(), Stop> {
        let of_step = |touch: &&Touch| touch.step == step;
        for touch in body.touches.iter().filter(of_step) {
            let path = body.folders.path(touch.folder).ok_or_else(forged)?;
            // Later operations may have taken the folder away, or others.
            let Ok(folder) = fsys::name_folder(self.workspace, &path) else {
                continue;
            };
            let (mode, mtime) = match direction {
                Direction::Forward => (touch.mode, touch.mtime),
                Direction::Back => (
                    touch.mode.map(|_| touch.before.mode),
                    Some(touch.before.mtime),
                ),
            };
            let failed = |error| Stop::at(bounded(&path))(error);
            if let Some(mtime) = mtime {
                fsys::set_mtime(&folder, mtime).map_err(failed)?;
            }
            if let Some(mode) = mode {
                let now = fsys::stat_of(&folder).map_err(failed)?;
                if now.permissions() != mode {
                    fsys::set_mode(&folder, mode).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self, body: &Body) -> io::Result<()> {
        if body.touches.len() > FEW {
            return Ok(rustix::fs::syncfs(self.workspace)?);
        }
        for touch in &body.touches {
            let path = body.folders.path(touch.folder).unwrap_or_default();
            match fsys::folder_below(self.workspace, &path) {
                Ok(folder) => rustix::fs::fsync(folder)?,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    rustix::fs::syncfs(self.workspace)?;
                }
                Err(_) => {}
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Back,
}

/// The folder of the last operation; the next is often in it too.
#[derive(Default)]
struct Folder(Option<(u32, Rc<OwnedFd>)>);

impl Folder {
    fn get(&mut self, root: BorrowedFd<'_>, number: u32, body: &Body) -> io::Result<Rc<OwnedFd>> {
        if let Some((last, fd)) = &self.0
            && *last == number
        {
            return Ok(Rc::clone(fd));
        }
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let path = body.folders.path(number).ok_or_else(bad)?;
        let fd = match fsys::folder_below(root, &path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                fsys::name_folder(root, &path)?
            }
            other => other?,
        };
        let meta = fsys::stat_of(&fd)?;
        if meta.mode & 0o300 != 0o300 {
            fsys::set_mode(&fd, meta.permissions() | 0o300)?;
        }
        let fd = Rc::new(fd);
        self.0 = Some((number, Rc::clone(&fd)));
        Ok(fd)
    }
}

fn is_done(op: &Op, slots: &OwnedFd, slot: &Name) -> io::Result<bool> {
    let held = fsys::look(slots, slot)?;
    Ok(match (op.incoming, held) {
        (Some(incoming), Some(held)) => held.ino != incoming.ino,
        (Some(_), None) | (None, Some(_)) => true,
        (None, None) => false,
    })
}

/// Swaps what two names hold. A name that holds something before and after always does.
fn exchange(
    dir: BorrowedFd<'_>,
    name: &Name,
    slots: BorrowedFd<'_>,
    slot: &Name,
) -> io::Result<()> {
    for _ in 0..TRIES {
        let (held, here) = (fsys::look(slots, slot)?, fsys::look(dir, name)?);
        if let Some(held) = held.filter(is_closed) {
            chmod_slot(slots, slot, held.permissions() | 0o200)?;
        }
        if here.as_ref().is_some_and(is_closed) {
            let folder = fsys::name_folder(dir, std::slice::from_ref(name))?;
            let now = fsys::stat_of(&folder)?;
            fsys::set_mode(&folder, now.permissions() | 0o200)?;
        }
        let (from, to, flags) = match (held, here) {
            (None, None) => return Ok(()),
            (Some(_), None) => ((slots, slot), (dir, name), RenameFlags::NOREPLACE),
            (None, Some(_)) => ((dir, name), (slots, slot), RenameFlags::NOREPLACE),
            (Some(_), Some(_)) => ((slots, slot), (dir, name), RenameFlags::EXCHANGE),
        };
        match rustix::fs::renameat_with(from.0, from.1.bytes(), to.0, to.1.bytes(), flags) {
            // Somebody else made it, or took it away, meanwhile.
            Err(Errno::EXIST | Errno::NOENT) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// A folder that cannot be moved by its owner, since its `..` would change.
fn is_closed(meta: &Meta) -> bool {
    meta.is_folder() && meta.mode & 0o200 == 0
}

/// Gives a folder that was opened to be moved its permissions again.
fn close_again(dir: BorrowedFd<'_>, name: &Name, known: Object) -> io::Result<()> {
    // Of a folder, S_IFDIR; only those of which the owner's right to write is missing.
    if known.mode & 0o170_000 != 0o040_000 || known.mode & 0o200 != 0 {
        return Ok(());
    }
    let Some(meta) = fsys::look(dir, name)? else {
        return Ok(());
    };
    if meta.ino == known.ino && meta.mode != known.mode {
        let folder = fsys::name_folder(dir, std::slice::from_ref(name))?;
        fsys::set_mode(&folder, known.mode & 0o7777)?;
    }
    Ok(())
}

/// Slots are in folders that nobody else changes.
fn chmod_slot(slots: BorrowedFd<'_>, slot: &Name, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    Ok(rustix::fs::chmodat(
        slots,
        slot.bytes(),
        mode,
        AtFlags::empty(),
    )?)
}

fn at(op: &Op, body: &Body, error: io::Error) -> Stop {
    let mut path = body.folders.path(op.folder).unwrap_or_default();
    path.push(op.name.clone());
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        // A folder on the way is gone, or is a link by now.
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::AGAIN | Errno::NOTEMPTY) => {
            Stop::Conflict {
                paths: vec![bounded(&path)],
            }
        }
        _ => Stop::at(bounded(&path))(error),
    }
}

fn forged() -> Stop {
    Stop::refuse(
        "a journal names a folder that it does not describe",
        "the history folder is damaged: move it away and start again",
    )
}

/// A clock in nanoseconds since 1970.
pub(crate) fn now(clock: ClockId) -> i64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}
