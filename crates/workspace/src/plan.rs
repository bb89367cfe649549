//! From an overlay's upper folder to operations on the workspace.
//!
//! The upper folder and the workspace are walked side by side, but only where the upper folder
//! has something: the cost is that of the change. Objects to be kept go to slots on the way; the
//! layer is dropped if the step then does not happen.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::rc::Rc;

use protocol::runner::FileKind;
use rustix::fs::RenameFlags;

use crate::clean::{self, Layering, Settling, Whiteouts};
use crate::compare::Visit as _;
use crate::compare::{Instead, Place, Side, compare};
use crate::findings::Findings;
use crate::fsys::{self, Cursor, Meta};
use crate::journal::{Body, Look, Object, Op, Touch};
use crate::name::{Name, shown};
use crate::steps::{Step, Steps};
use crate::stop::Stop;

/// Makes operations out of what changed, one object after the other.
pub(crate) struct Planner<'a, 'f> {
    /// The folder of the workspace that is looked at, and of the layer.
    pub(crate) workspace: Cursor,
    pub(crate) layer: Cursor,
    pub(crate) slots: Rc<OwnedFd>,
    /// The entry that this becomes.
    pub(crate) step: u64,
    pub(crate) kind: Whiteouts,
    pub(crate) body: Body,
    pub(crate) findings: &'a mut Findings<'f>,
    pub(crate) settling: Settling,
    pub(crate) steps: &'a dyn Steps,
    pub(crate) path: Vec<Name>,
    /// The number of the folder that is looked at, and of those above.
    pub(crate) numbers: Vec<u32>,
    /// Folders whose mode or time is remembered.
    pub(crate) touched: HashSet<u32>,
}

struct Frame {
    names: std::vec::IntoIter<Name>,
    marks: bool,
}

impl Planner<'_, '_> {
    /// Looks through an overlay.
    pub(crate) fn overlay(&mut self) -> Result<(), Stop> {
        let mut frames = vec![self.frame(Layering::Merged)?];
        while let Some(frame) = frames.last_mut() {
            let Some(name) = frame.names.next() else {
                frames.pop();
                self.up();
                continue;
            };
            let marks = frame.marks;
            self.path.push(name.clone());
            match self.object(&name, marks)? {
                Some(layering) => frames.push(self.frame(layering)?),
                None => {
                    self.path.pop();
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self, layering: Layering) -> Result<Frame, Stop> {
        let folder = self
            .layer
            .folder()
            .map_err(Stop::at("cannot enter a folder of a layer"))?;
        Ok(Frame {
            names: self.findings.budget().names(folder)?.into_iter(),
            marks: layering == Layering::MergedWithMarks,
        })
    }

    pub(crate) fn up(&mut self) {
        self.layer.leave();
        self.workspace.leave();
        self.path.pop();
        self.numbers.pop();
    }

    /// One object of the upper folder. A folder that lies over one of the workspace was entered.
    fn object(&mut self, name: &Name, marks: bool) -> Result<Option<Layering>, Stop> {
        let upper = self.in_layer(name)?;
        let here = self.in_workspace(name)?;
        let gone = upper.is_whiteout()
            || upper.kind() == FileKind::Socket
            || marks
                && upper.kind() == FileKind::File
                && upper.size == 0
                && clean::is_marked(self.layer_folder()?, name).map_err(self.failed())?;
        if gone {
            if let Some(here) = here {
                self.remove(name, &here)?;
            }
            return Ok(None);
        }
        clean::acceptable(&upper, &self.path)?;
        match here {
            Some(here) if here.is_folder() && upper.is_folder() => {
                let layering = self.peek(name, &upper)?;
                if layering != Layering::Opaque {
                    self.merge(name, &upper, &here)?;
                    return Ok(Some(layering));
                }
            }
            Some(here) if self.untouched(name, &upper, &here)? => return Ok(None),
            Some(_) | None => {}
        }
        self.put(name, here.as_ref())?;
        Ok(None)
    }

    /// How a folder of the layer lies over its lower one.
    fn peek(&mut self, name: &Name, upper: &Meta) -> Result<Layering, Stop> {
        self.open_up(name)?;
        let folder = fsys::open_folder(self.layer_folder()?, name).map_err(self.failed())?;
        let layering = clean::layering(folder.as_fd()).map_err(self.failed())?;
        if layering == Layering::Opaque && upper.mode & 0o700 != 0o700 {
            fsys::set_mode(&folder, upper.permissions()).map_err(self.failed())?;
        }
        Ok(layering)
    }

    /// Gives us all rights to a folder of the layer, where its permissions matter no more once they
    /// were looked at.
    fn open_up(&mut self, name: &Name) -> Result<(), Stop> {
        if self.in_layer(name)?.mode & 0o700 == 0o700 {
            return Ok(());
        }
        let (all, none) = (rustix::fs::Mode::RWXU, rustix::fs::AtFlags::empty());
        rustix::fs::chmodat(self.layer_folder()?, name.bytes(), all, none).map_err(self.failed())
    }

    /// Enters a folder that is on both sides and stays.
    pub(crate) fn merge(&mut self, name: &Name, upper: &Meta, here: &Meta) -> Result<(), Stop> {
        let number = self.number(name);
        if upper.permissions() != here.permissions() {
            if (upper.mode | here.mode) & 0o6000 != 0 {
                return Err(Stop::refuse(
                    format!(
                        "{} has a set-group-id bit and other permissions than before",
                        shown(&self.path)
                    ),
                    "leave the permissions of that folder alone",
                ));
            }
            self.findings.mode(&self.path, here, upper.permissions());
            self.touch(number, here, Some(upper.permissions()));
        }
        self.open_up(name)?;
        self.layer.enter(name).map_err(self.failed())?;
        self.workspace.enter(name).map_err(self.failed())?;
        self.numbers.push(number);
        Ok(())
    }

    /// Something of the workspace is gone.
    pub(crate) fn remove(&mut self, name: &Name, here: &Meta) -> Result<(), Stop> {
        let old = self.here(name)?;
        compare(
            Some(&old),
            None,
            &mut self.path.clone(),
            &Instead::new(),
            self.findings,
        )?;
        self.operation(name, None, Some(here))
    }

    /// Something of the layer is to be in the workspace.
    pub(crate) fn put(&mut self, name: &Name, here: Option<&Meta>) -> Result<(), Stop> {
        let path = self.path.clone();
        let kind = self.kind;
        let layer = self
            .layer
            .folder()
            .map_err(Stop::at("cannot enter a folder of a layer"))?;
        let slot = Name::number(self.body.ops.len() as u64);
        clean::clean(
            layer,
            name,
            &path,
            kind,
            self.findings.budget(),
            &mut self.settling,
        )?;
        self.steps.before(Step::Stage);
        stage(layer, name, self.slots.as_fd(), &slot).map_err(Stop::at(shown(&path)))?;
        let new = Place::new(&self.slots, &slot);
        let meta = new.look().map_err(Stop::at(shown(&path)))?;
        let meta = meta.ok_or_else(|| {
            Stop::refuse(
                "an object of a layer is gone",
                "let nobody touch the history folder",
            )
        })?;
        let old = here.map(|_| self.here(name)).transpose()?;
        compare(
            old.as_ref(),
            Some(&new),
            &mut path.clone(),
            &Instead::new(),
            self.findings,
        )?;
        self.operation(name, Some(&meta), here)
    }

    fn operation(
        &mut self,
        name: &Name,
        incoming: Option<&Meta>,
        outgoing: Option<&Meta>,
    ) -> Result<(), Stop> {
        let folder = self.numbers.last().copied().unwrap_or(0);
        self.body.ops.push(Op {
            step: self.step,
            slot: self.body.ops.len() as u64,
            folder,
            name: name.clone(),
            incoming: incoming.map(Object::from),
            outgoing: outgoing.map(Object::from),
        });
        let above = fsys::stat_of(self.workspace_folder()?).map_err(self.failed())?;
        if !self.touched.contains(&folder) {
            // A folder that is closed to us is opened for the operations and closed again.
            let mode = (above.mode & 0o300 != 0o300).then(|| above.permissions());
            self.touch(folder, &above, mode);
        }
        Ok(())
    }

    fn touch(&mut self, folder: u32, before: &Meta, mode: Option<u32>) {
        self.touched.insert(folder);
        self.body.touches.push(Touch {
            step: self.step,
            folder,
            before: Look {
                mode: before.permissions(),
                mtime: before.mtime,
            },
            mode,
            mtime: None,
        });
    }

    /// Whether a file only came into the layer because it was opened.
    fn untouched(&mut self, name: &Name, upper: &Meta, here: &Meta) -> Result<bool, Stop> {
        if upper.mtime != here.mtime || upper.is_folder() {
            return Ok(false);
        }
        let layer = self
            .layer
            .folder()
            .map_err(Stop::at("cannot enter a folder of a layer"))?;
        let workspace = self
            .workspace
            .folder()
            .map_err(Stop::at("cannot enter a folder"))?;
        let side = |dir, meta: &Meta| Side {
            dir,
            name,
            meta: *meta,
        };
        Ok(self
            .findings
            .same(&side(workspace, here), &side(layer, upper)))
    }

    fn number(&mut self, name: &Name) -> u32 {
        let above = self.numbers.last().copied().unwrap_or(0);
        self.body.folders.child(above, name)
    }

    pub(crate) fn in_layer(&mut self, name: &Name) -> Result<Meta, Stop> {
        let meta = fsys::look(self.layer_folder()?, name).map_err(self.failed())?;
        meta.ok_or_else(|| {
            Stop::refuse(
                format!("{} went away in the layer", shown(&self.path)),
                "let nobody touch the history folder",
            )
        })
    }

    pub(crate) fn in_workspace(&mut self, name: &Name) -> Result<Option<Meta>, Stop> {
        fsys::look(self.workspace_folder()?, name).map_err(self.failed())
    }

    fn here(&mut self, name: &Name) -> Result<Place, Stop> {
        let fd = self
            .workspace_folder()?
            .try_clone_to_owned()
            .map_err(Stop::at("a descriptor"))?;
        Ok(Place {
            dir: Rc::new(fd),
            name: name.clone(),
        })
    }

    fn layer_folder(&mut self) -> Result<BorrowedFd<'_>, Stop> {
        self.layer
            .folder()
            .map_err(Stop::at("cannot enter a folder of a layer"))
    }

    fn workspace_folder(&mut self) -> Result<BorrowedFd<'_>, Stop> {
        self.workspace
            .folder()
            .map_err(Stop::at("cannot enter a folder of the workspace"))
    }

    pub(crate) fn failed<E: Into<std::io::Error>>(&self) -> impl FnOnce(E) -> Stop + use<E> {
        Stop::at(shown(&self.path))
    }
}

/// Moves an object of a layer to its slot. A folder that its owner may not write to cannot be
/// moved, since its `..` changes.
fn stage(
    layer: BorrowedFd<'_>,
    name: &Name,
    slots: BorrowedFd<'_>,
    slot: &Name,
) -> std::io::Result<()> {
    let meta = fsys::look(layer, name)?.ok_or(std::io::ErrorKind::NotFound)?;
    let closed = meta.is_folder() && meta.mode & 0o200 == 0;
    let chmod = |dir, name: &Name, mode| {
        let mode = rustix::fs::Mode::from_raw_mode(mode);
        rustix::fs::chmodat(dir, name.bytes(), mode, rustix::fs::AtFlags::empty())
    };
    if closed {
        chmod(layer, name, meta.permissions() | 0o200)?;
    }
    rustix::fs::renameat_with(
        layer,
        name.bytes(),
        slots,
        slot.bytes(),
        RenameFlags::NOREPLACE,
    )?;
    if closed {
        chmod(slots, slot, meta.permissions())?;
    }
    Ok(())
}
