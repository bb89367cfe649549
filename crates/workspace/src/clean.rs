//! Looks through what a box made before any of it goes anywhere.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use protocol::runner::FileKind;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use crate::fsys::{self, Cursor, Meta};
use crate::name::{Name, shown};
use crate::stop::Stop;

/// The most objects that one step looks at.
pub(crate) const MAX_OBJECTS: usize = 1_000_000;

/// So many objects are synced one by one; more of them with their whole file system.
const FEW: usize = 16;

/// What a name in an extended attribute of overlayfs begins with; `user.overlay.overlay.` is that of a
/// nested one.
const OVERLAY: &[u8] = b"user.overlay.";

const SET_ID: u32 = 0o6000;

/// How a layer says that something is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whiteouts {
    /// By character devices 0/0.
    Devices,
    /// By its absence; a device is a device.
    None,
}

/// How what was made gets to the disk.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    synced: usize,
    seen: usize,
}

impl Settling {
    /// Whether all was synced already.
    pub(crate) fn is_settled(&self) -> bool {
        self.seen == self.synced
    }

    pub(crate) fn one(&mut self, fd: impl std::os::fd::AsFd) -> io::Result<()> {
        self.seen += 1;
        if self.seen <= FEW {
            rustix::fs::fsync(fd)?;
            self.synced += 1;
        }
        Ok(())
    }
}

/// What a step may look at, all in all.
#[derive(Debug)]
pub(crate) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(MAX_OBJECTS)
    }
}

impl Budget {
    /// The names of a folder, if there are not too many.
    pub(crate) fn names(&mut self, folder: BorrowedFd<'_>) -> Result<Vec<Name>, Stop> {
        let names = fsys::names_in(folder, self.0).map_err(|error| {
            if error.kind() == io::ErrorKind::FileTooLarge {
                Stop::refuse(
                    format!("the step touches more than {MAX_OBJECTS} files"),
                    "do it in smaller steps, or outside of the workspace",
                )
            } else {
                Stop::at("cannot list a folder")(error)
            }
        })?;
        self.0 -= names.len();
        Ok(names)
    }
}

/// Whether an object may be kept at all.
///
/// # Errors
///
/// Devices, files that run as somebody else, and files of somebody else.
pub(crate) fn acceptable(meta: &Meta, path: &[Name]) -> Result<(), Stop> {
    let refuse = |what: &str, fix: &str| Err(Stop::refuse(format!("{} {what}", shown(path)), fix));
    if meta.kind() == FileKind::Device {
        return refuse(
            "is a device node",
            "do not make device nodes in a workspace",
        );
    }
    // A folder's set-group-id bit only passes its group on, and comes from the folder above.
    let bad = if meta.is_folder() { 0o4000 } else { SET_ID };
    if meta.kind() != FileKind::Link && meta.mode & bad != 0 {
        return refuse(
            "has a set-user-id or set-group-id bit",
            "leave that bit away",
        );
    }
    if meta.uid != rustix::process::geteuid().as_raw() {
        return refuse(
            &format!("belongs to user {}", meta.uid),
            "run boxes as the user of Bulkhead",
        );
    }
    Ok(())
}

/// Looks through an object in a layer and all below it: refuses what cannot be kept, removes
/// sockets, whiteouts and overlayfs' own attributes, and begins to get it to the disk.
pub(crate) fn clean(
    dir: BorrowedFd<'_>,
    name: &Name,
    path: &[Name],
    kind: Whiteouts,
    budget: &mut Budget,
    settling: &mut Settling,
) -> Result<(), Stop> {
    let mut walk = Walk {
        cursor: Cursor::new(dir.try_clone_to_owned().map_err(Stop::at("a descriptor"))?),
        path: path.to_vec(),
        modes: Vec::new(),
        waiting: Vec::new(),
        budget,
        settling,
    };
    let meta = look(walk.folder()?, name)?;
    acceptable(&meta, path)?;
    walk.object(name, &meta)?;
    while let Some(names) = walk.waiting.last_mut() {
        let Some(next) = names.pop() else {
            walk.up()?;
            continue;
        };
        let meta = look(walk.folder()?, &next)?;
        let gone =
            meta.kind() == FileKind::Socket || kind == Whiteouts::Devices && meta.is_whiteout();
        if gone {
            rustix::fs::unlinkat(walk.folder()?, next.bytes(), AtFlags::empty())
                .map_err(Stop::at("cannot remove a mark from a layer"))?;
            continue;
        }
        walk.path.push(next.clone());
        acceptable(&meta, &walk.path)?;
        walk.object(&next, &meta)?;
        if !meta.is_folder() {
            walk.path.pop();
        }
    }
    Ok(())
}

fn look(dir: BorrowedFd<'_>, name: &Name) -> Result<Meta, Stop> {
    fsys::look(dir, name)
        .and_then(|meta| meta.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(Stop::at("cannot look at an object of a layer"))
}

struct Walk<'a> {
    cursor: Cursor,
    /// Of the folder that is looked through.
    path: Vec<Name>,
    /// Permissions to put back on the way up.
    modes: Vec<u32>,
    waiting: Vec<Vec<Name>>,
    budget: &'a mut Budget,
    settling: &'a mut Settling,
}

impl Walk<'_> {
    fn folder(&mut self) -> Result<BorrowedFd<'_>, Stop> {
        self.cursor
            .folder()
            .map_err(Stop::at("cannot enter a folder of a layer"))
    }

    fn object(&mut self, name: &Name, meta: &Meta) -> Result<(), Stop> {
        match meta.kind() {
            FileKind::Folder => self.down(name, meta),
            FileKind::File => self.file(name, meta).map_err(|error| self.failed(error)),
            FileKind::Link | FileKind::Fifo | FileKind::Socket | FileKind::Device => Ok(()),
        }
    }

    fn failed(&self, error: io::Error) -> Stop {
        Stop::at(shown(&self.path))(error)
    }

    fn down(&mut self, name: &Name, meta: &Meta) -> Result<(), Stop> {
        self.enter(name, meta).map_err(|error| self.failed(error))?;
        self.modes.push(meta.permissions());
        let names = self.budget.names(
            self.cursor
                .folder()
                .map_err(Stop::at("cannot enter a folder of a layer"))?,
        )?;
        self.waiting.push(names);
        Ok(())
    }

    fn enter(&mut self, name: &Name, meta: &Meta) -> io::Result<()> {
        if meta.mode & 0o700 != 0o700 {
            chmod(self.cursor.folder()?, name, meta.permissions() | 0o700)?;
        }
        self.cursor.enter(name)?;
        strip(self.cursor.folder()?)
    }

    fn up(&mut self) -> Result<(), Stop> {
        self.settling
            .one(
                self.cursor
                    .folder()
                    .map_err(Stop::at("cannot enter a folder of a layer"))?,
            )
            .map_err(Stop::at("cannot sync a folder of a layer"))?;
        self.waiting.pop();
        let name = self.cursor.leave();
        let mode = self.modes.pop();
        if let (Some(name), Some(mode)) = (name, mode)
            && mode & 0o700 != 0o700
        {
            chmod(self.folder()?, &name, mode).map_err(|error| self.failed(error))?;
        }
        self.path.pop();
        Ok(())
    }

    fn file(&mut self, name: &Name, meta: &Meta) -> io::Result<()> {
        let closed = meta.mode & 0o400 == 0;
        if closed {
            chmod(self.cursor.folder()?, name, meta.permissions() | 0o400)?;
        }
        let (fd, _) = fsys::open_file(self.cursor.folder()?, name)?;
        strip(fd.as_fd())?;
        if closed {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(meta.permissions()))?;
        }
        self.settling.one(&fd)
    }
}

/// Only for objects in layers, where nobody swaps a link for them.
fn chmod(dir: BorrowedFd<'_>, name: &Name, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    Ok(rustix::fs::chmodat(
        dir,
        name.bytes(),
        mode,
        AtFlags::empty(),
    )?)
}

/// Removes overlayfs' own attributes.
fn strip(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut list = vec![0_u8; 4096];
    let len = loop {
        match rustix::fs::flistxattr(fd, list.as_mut_slice()) {
            Ok(len) => break len,
            // 64 KiB is the most that the kernel lists, xattr(7).
            Err(Errno::RANGE) if list.len() < 65_536 => list.resize(65_536, 0),
            Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    };
    let names = list[..len].split(|b| *b == 0);
    for name in names.filter(|name| name.starts_with(OVERLAY)) {
        rustix::fs::fremovexattr(fd, name)?;
    }
    Ok(())
}

/// What overlayfs says of a folder in an upper layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layering {
    /// Lies over the lower one.
    Merged,
    /// Lies over it, and files in it may be whiteouts by an attribute.
    MergedWithMarks,
    /// Replaces it.
    Opaque,
}

pub(crate) fn layering(folder: BorrowedFd<'_>) -> io::Result<Layering> {
    let mut value = [0_u8; 8];
    match rustix::fs::fgetxattr(folder, "user.overlay.opaque", value.as_mut_slice()) {
        Ok(1) if value[0] == b'x' => Ok(Layering::MergedWithMarks),
        Ok(1) if value[0] == b'y' => Ok(Layering::Opaque),
        Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(Layering::Merged),
        Err(error) => Err(error.into()),
    }
}

/// Whether an empty file is a whiteout by its attribute.
pub(crate) fn is_marked(dir: BorrowedFd<'_>, name: &Name) -> io::Result<bool> {
    let (fd, _) = fsys::open_file(dir, name)?;
    let mut value = [0_u8; 8];
    match rustix::fs::fgetxattr(&fd, "user.overlay.whiteout", value.as_mut_slice()) {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
