//! The history folder: what is where in it, and who may change it when.
//!
//! - `lock`: held by who keeps, undoes, prunes or recovers;
//! - `sequence`: the newest whole entry, for those who only want to know that;
//! - `layers/N`: of boxes; its `lock` is held by the process that made it, while that lives;
//! - `entries/N`: see [`crate::journal`];
//! - `lost/N`: what could not be put back because others changed the workspace at that moment;
//! - `trash`: on its way out.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::fsys;
use crate::name::Name;
use crate::stop::Stop;

const PRIVATE: Mode = Mode::RWXU;

/// The folder, open.
pub(crate) struct Home {
    pub(crate) path: PathBuf,
    root: OwnedFd,
    pub(crate) layers: OwnedFd,
    pub(crate) entries: OwnedFd,
    lost: OwnedFd,
    trash: OwnedFd,
    lock: OwnedFd,
    sequence: OwnedFd,
}

/// Makes the folder if it is not there. The folder above it has to be.
///
/// # Errors
///
/// What the kernel says.
pub fn make_folder(path: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Until it is dropped nobody else changes the history.
pub(crate) struct Held<'a>(&'a OwnedFd);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // It is ours; and if not, it goes with the process.
        let _ = rustix::fs::flock(self.0, FlockOperation::Unlock);
    }
}

/// Waits until nobody else changes the history.
pub(crate) fn hold(lock: &OwnedFd) -> Result<Held<'_>, Stop> {
    loop {
        match rustix::fs::flock(lock, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            other => {
                other.map_err(Stop::at("cannot lock the history"))?;
                return Ok(Held(lock));
            }
        }
    }
}

impl Home {
    pub(crate) fn open(path: &Path, workspace: BorrowedFd<'_>) -> Result<Self, Stop> {
        let failed = |error: io::Error| Stop::at(path.display())(error);
        let folder = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, folder, Mode::empty()).map_err(|e| failed(e.into()))?;
        let meta = rustix::fs::fstat(&root).map_err(|e| failed(e.into()))?;
        if meta.st_uid != rustix::process::geteuid().as_raw() || meta.st_mode & 0o077 != 0 {
            return Err(Stop::refuse(
                format!("{} is open to others", path.display()),
                "make it the own folder of the user of Bulkhead with mode 0700",
            ));
        }
        let other = rustix::fs::fstat(workspace).map_err(Stop::at("the workspace"))?;
        if meta.st_dev != other.st_dev {
            return Err(Stop::refuse(
                format!(
                    "{} is on another file system than the workspace",
                    path.display()
                ),
                "choose a history folder on the same one, so that files can be moved between them",
            ));
        }
        Self::within(path, root).map_err(failed)
    }

    fn within(path: &Path, root: OwnedFd) -> io::Result<Self> {
        let make = |name: &'static str| -> io::Result<OwnedFd> {
            make_private(root.as_fd(), &Name::of(name))?;
            fsys::open_folder(&root, &Name::of(name))
        };
        let open = |name: &'static str| -> io::Result<OwnedFd> { own_file(root.as_fd(), name) };
        let home = Self {
            path: path.to_owned(),
            layers: make("layers")?,
            entries: make("entries")?,
            lost: make("lost")?,
            trash: make("trash")?,
            lock: open("lock")?,
            sequence: open("sequence")?,
            root,
        };
        rustix::fs::fsync(&home.root)?;
        Ok(home)
    }

    /// A second handle on the lock.
    pub(crate) fn lock_handle(&self) -> io::Result<OwnedFd> {
        self.lock.try_clone()
    }

    /// The newest whole entry, as the file tells it.
    pub(crate) fn sequence(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        let n = rustix::io::pread(&self.sequence, &mut bytes, 0)?;
        Ok(if n == 8 { u64::from_le_bytes(bytes) } else { 0 })
    }

    pub(crate) fn set_sequence(&self, entry: u64) -> io::Result<()> {
        rustix::io::pwrite(&self.sequence, &entry.to_le_bytes(), 0)?;
        Ok(())
    }

    /// The names in one of the folders.
    pub(crate) fn numbers(&self, folder: &OwnedFd) -> io::Result<Vec<u64>> {
        let names = fsys::names_in(folder, usize::MAX)?;
        let mut numbers: Vec<u64> = names.iter().filter_map(Name::as_number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Makes an empty layer that this process holds: its number, its folder, and its lock.
    pub(crate) fn make_layer(&self, after: u64) -> io::Result<(u64, OwnedFd, OwnedFd)> {
        for number in after + 1.. {
            let name = Name::number(number);
            match rustix::fs::mkdirat(&self.layers, name.bytes(), PRIVATE) {
                Err(Errno::EXIST) => continue,
                other => other?,
            }
            let folder = fsys::open_folder(&self.layers, &name)?;
            let lock = own_file(folder.as_fd(), "lock")?;
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            return Ok((number, folder, lock));
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Whether no process that lives holds this layer.
    pub(crate) fn is_dead(&self, layer: u64) -> io::Result<bool> {
        let folder = fsys::open_folder(&self.layers, &Name::number(layer))?;
        let lock = match fsys::open_file(&folder, &Name::of("lock")) {
            Ok((lock, _)) => lock,
            // Who made it died before it made this; the history is locked while that is done.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A layer becomes an entry. This is the moment of a step.
    pub(crate) fn commit(&self, layer: u64, entry: u64) -> io::Result<()> {
        let (from, to) = (Name::number(layer), Name::number(entry));
        rustix::fs::renameat_with(
            &self.layers,
            from.bytes(),
            &self.entries,
            to.bytes(),
            RenameFlags::NOREPLACE,
        )?;
        // A rename is one change of the file system's log: it is not there without its other half.
        Ok(rustix::fs::fsync(&self.entries)?)
    }

    /// Moves a layer or an entry to where it is removed.
    pub(crate) fn throw_away(&self, from: &OwnedFd, number: u64) -> io::Result<()> {
        let name = Name::number(number);
        for free in number.. {
            let to = Name::number(free);
            match rustix::fs::renameat_with(
                from,
                name.bytes(),
                &self.trash,
                to.bytes(),
                RenameFlags::NOREPLACE,
            ) {
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(()),
                other => {
                    other?;
                    return fsys::remove(self.trash.as_fd(), &to);
                }
            }
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    /// Removes what a crash left on its way out.
    pub(crate) fn empty_trash(&self) -> io::Result<()> {
        for number in self.numbers(&self.trash)? {
            fsys::remove(self.trash.as_fd(), &Name::number(number))?;
        }
        Ok(())
    }

    /// Puts an entry aside whose objects could not be put back.
    pub(crate) fn put_aside(&self, entry: u64) -> io::Result<PathBuf> {
        let name = Name::number(entry);
        for free in entry.. {
            let to = Name::number(free);
            match rustix::fs::renameat_with(
                &self.entries,
                name.bytes(),
                &self.lost,
                to.bytes(),
                RenameFlags::NOREPLACE,
            ) {
                Err(Errno::EXIST) => {}
                other => {
                    other?;
                    return Ok(self.path.join("lost").join(free.to_string()));
                }
            }
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

pub(crate) fn make_private(dir: BorrowedFd<'_>, name: &Name) -> io::Result<()> {
    match rustix::fs::mkdirat(dir, name.bytes(), PRIVATE) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn own_file(dir: BorrowedFd<'_>, name: &'static str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        dir,
        name,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?)
}
