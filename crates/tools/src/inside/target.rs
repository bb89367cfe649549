//! A file that is written: found once, replaced in one step.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use protocol::call::WorkspacePath;
use protocol::ids::{hex, random};
use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::ToolError;
use super::root::{MAX_FILE, open_below, open_name, read_all, regular, what, word};

/// A handle of a folder, as a place for names.
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// No link on the way, and no other file system: the path that a person was shown is the
/// file that changes.
const OWN: ResolveFlags = ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_XDEV);

/// The folder of a file as a handle, the file's name in it, and what was there.
pub(crate) struct Target<'a> {
    folder: OwnedFd,
    name: &'a str,
    path: &'a WorkspacePath,
    old: Option<Stat>,
}

impl<'a> Target<'a> {
    /// A file that is there.
    pub(super) fn open(root: &OwnedFd, path: &'a WorkspacePath) -> Result<Self, ToolError> {
        let target = Self::of(path, |folders| open_below(root, folders, FOLDER, OWN))?;
        match target.old {
            Some(_) => Ok(target),
            None => Err(ToolError::Missing(path.clone())),
        }
    }

    /// A file that may be there, in a folder that is there.
    pub(super) fn open_in_folder(
        root: &OwnedFd,
        path: &'a WorkspacePath,
    ) -> Result<Self, ToolError> {
        Self::of(path, |folders| open_below(root, folders, FOLDER, OWN))
    }

    /// A file that may be there; its folders are made.
    pub(super) fn open_or_new(root: &OwnedFd, path: &'a WorkspacePath) -> Result<Self, ToolError> {
        Self::of(path, |folders| make_folders(root, folders))
    }

    fn of(
        path: &'a WorkspacePath,
        folder: impl FnOnce(&str) -> Result<OwnedFd, Errno>,
    ) -> Result<Self, ToolError> {
        let (folders, name) = path
            .as_str()
            .rsplit_once('/')
            .unwrap_or((".", path.as_str()));
        if name == "." {
            return Err(ToolError::NotFile(path.clone(), "a folder"));
        }
        let folder = folder(folders).map_err(|errno| ToolError::of(path, errno))?;
        let target = Self {
            old: None,
            folder,
            name,
            path,
        };
        let old = target.there()?;
        if let Some(stat) = &old {
            target.check(stat)?;
        }
        Ok(Self { old, ..target })
    }

    /// Whether there is a file that would be replaced.
    pub(crate) fn exists(&self) -> bool {
        self.old.is_some()
    }

    /// The text that is there.
    pub(crate) fn read(&self) -> Result<String, ToolError> {
        let of = |errno| ToolError::of(self.path, errno);
        let file = open_name(&self.folder, self.name, OFlags::empty()).map_err(of)?;
        let stat = regular(&file, self.path)?;
        self.same(Some(&stat))?;
        let bytes = read_all(self.path, File::from(file), &stat)?;
        String::from_utf8(bytes).map_err(|_| ToolError::Binary(self.path.clone()))
    }

    /// Writes a new file beside the old one and puts it in its place.
    pub(crate) fn replace(self, bytes: &[u8]) -> Result<(), ToolError> {
        if bytes.len() as u64 > MAX_FILE {
            return Err(ToolError::TooBig(
                self.path.clone(),
                bytes.len() as u64,
                MAX_FILE,
            ));
        }
        let temporary = format!(".bulkhead-{}.tmp", hex(&random::<8>()?));
        let done = self
            .write(&temporary, bytes)
            .and_then(|()| self.put_in_place(&temporary));
        if done.is_err() {
            // What is left over is not in anybody's way, and the error to tell is the first one.
            let _ = fs::unlinkat(&self.folder, temporary.as_str(), AtFlags::empty());
        }
        done
    }

    /// A handle to write to that begins with nothing in the file.
    pub(crate) fn emptied(self) -> Result<OwnedFd, ToolError> {
        let handle = self.handle(OFlags::empty())?;
        fs::ftruncate(&handle, 0).map_err(|errno| ToolError::of(self.path, errno))?;
        Ok(handle)
    }

    /// A handle that writes behind what is in the file.
    pub(crate) fn at_its_end(self) -> Result<OwnedFd, ToolError> {
        self.handle(OFlags::APPEND)
    }

    /// The file itself, opened to write, made if it is not there.
    fn handle(&self, more: OFlags) -> Result<OwnedFd, ToolError> {
        let of = |errno| ToolError::of(self.path, errno);
        let flags = OFlags::WRONLY
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC
            | more;
        match self.old {
            None => {
                let flags = flags | OFlags::CREATE | OFlags::EXCL;
                fs::openat(&self.folder, self.name, flags, Mode::from_raw_mode(0o666)).map_err(of)
            }
            Some(_) => {
                let handle =
                    fs::openat(&self.folder, self.name, flags, Mode::empty()).map_err(of)?;
                let stat = fs::fstat(&handle).map_err(of)?;
                self.check(&stat)?;
                self.same(Some(&stat))?;
                Ok(handle)
            }
        }
    }

    fn write(&self, temporary: &str, bytes: &[u8]) -> Result<(), ToolError> {
        let of = |errno| ToolError::of(self.path, errno);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new_mode = if self.old.is_some() {
            Mode::RUSR | Mode::WUSR
        } else {
            Mode::from_raw_mode(0o666)
        };
        let mut file =
            File::from(fs::openat(&self.folder, temporary, flags, new_mode).map_err(of)?);
        file.write_all(bytes)
            .map_err(|e| ToolError::io(self.path, &e))?;
        if let Some(old) = &self.old {
            // Without the set-id bits: what the model writes is nobody's privilege.
            fs::fchmod(&file, Mode::from_raw_mode(old.st_mode & 0o777)).map_err(of)?;
        }
        file.sync_data().map_err(|e| ToolError::io(self.path, &e))
    }

    fn put_in_place(&self, temporary: &str) -> Result<(), ToolError> {
        self.same(self.there()?.as_ref())?;
        // A name that appeared since then is not replaced; a link that was put in the place
        // of the file is replaced itself, not followed.
        let flags = if self.old.is_some() {
            RenameFlags::empty()
        } else {
            RenameFlags::NOREPLACE
        };
        match fs::renameat_with(&self.folder, temporary, &self.folder, self.name, flags) {
            // Kernels of others, such as gVisor's, and file systems that have no such flag.
            Err(Errno::INVAL | Errno::NOSYS) if self.old.is_none() => self.link(temporary),
            other => other,
        }
        .map_err(|errno| ToolError::of(self.path, errno))
    }

    /// The same in two steps: a second name, which replaces nothing either, and the first one goes.
    fn link(&self, temporary: &str) -> Result<(), Errno> {
        let none = AtFlags::empty();
        fs::linkat(&self.folder, temporary, &self.folder, self.name, none)?;
        fs::unlinkat(&self.folder, temporary, none)
    }

    /// What bears the name now.
    fn there(&self) -> Result<Option<Stat>, ToolError> {
        match fs::statat(&self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(ToolError::of(self.path, errno)),
        }
    }

    /// Refuses what must not be written to.
    fn check(&self, stat: &Stat) -> Result<(), ToolError> {
        let path = || self.path.clone();
        match what(stat) {
            Some(fs::FileType::Symlink) => Err(ToolError::Link(path())),
            Some(kind) => Err(ToolError::NotFile(path(), word(kind))),
            // u32 on some machines, u64 on others.
            #[expect(clippy::useless_conversion)]
            None if stat.st_nlink != 1 => Err(ToolError::HardLinked(path(), stat.st_nlink.into())),
            None if stat.st_mode & 0o200 == 0 => Err(ToolError::ReadOnly(path())),
            None => Ok(()),
        }
    }

    /// Refuses if it is not what was there at first.
    fn same(&self, now: Option<&Stat>) -> Result<(), ToolError> {
        let file = |stat: &Stat| (stat.st_dev, stat.st_ino);
        match now.map(file) == self.old.as_ref().map(file) {
            true => Ok(()),
            false if now.is_none() => Err(ToolError::Missing(self.path.clone())),
            false => Err(ToolError::Changed(self.path.clone())),
        }
    }
}

/// The folder of this path, made where it is missing, one part at a time.
fn make_folders(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let mut folder = open_below(root, ".", FOLDER, OWN)?;
    for part in path.split('/').filter(|part| *part != ".") {
        let next = match open_below(&folder, part, FOLDER, OWN) {
            Err(Errno::NOENT) => {
                match fs::mkdirat(&folder, part, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                open_below(&folder, part, FOLDER, OWN)
            }
            other => other,
        };
        folder = next?;
    }
    Ok(folder)
}
