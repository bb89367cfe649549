//! Files by descriptor and one name at a time. Nothing here follows a link, opens what could
//! block, or needs a path that fits `PATH_MAX`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::runner::FileKind;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, SeekFrom, Stat, Timespec,
    Timestamps,
};
use rustix::io::Errno;

use crate::name::Name;

/// Folders that a walk holds open at once; further up they are opened again on the way back.
const OPEN_FOLDERS: usize = 64;

/// Bytes of names that are looked up by one call; `PATH_MAX` is 4096 with its end.
const LOOKUP: usize = 4000;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Neither links nor mounts nor `..` lead out.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// What the kernel tells about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) ino: u64,
    /// With the kind of object.
    pub(crate) mode: u32,
    pub(crate) size: u64,
    /// Bytes on the disk.
    pub(crate) disk: u64,
    pub(crate) links: u64,
    pub(crate) uid: u32,
    pub(crate) device: u64,
    /// Nanoseconds since 1970, like all times here.
    pub(crate) ctime: i64,
    pub(crate) mtime: i64,
}

impl Meta {
    #[allow(
        clippy::useless_conversion,
        reason = "the number of links has other types elsewhere"
    )]
    fn of(stat: &Stat) -> Self {
        Self {
            ino: stat.st_ino,
            mode: stat.st_mode,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            disk: u64::try_from(stat.st_blocks)
                .unwrap_or(0)
                .saturating_mul(512),
            links: u64::from(stat.st_nlink),
            uid: stat.st_uid,
            device: stat.st_rdev,
            ctime: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            mtime: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        }
    }

    pub(crate) fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }

    pub(crate) fn kind(&self) -> FileKind {
        match FileType::from_raw_mode(self.mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Folder,
            FileType::Symlink => FileKind::Link,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
                FileKind::Device
            }
        }
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.kind() == FileKind::Folder
    }

    /// How overlayfs marks a name that is gone: a character device 0/0.
    pub(crate) fn is_whiteout(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::CharacterDevice && self.device == 0
    }
}

fn nanoseconds(seconds: i64, rest: impl TryInto<i64>) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(rest.try_into().unwrap_or(0))
}

pub(crate) fn stat_of(fd: impl AsFd) -> io::Result<Meta> {
    Ok(Meta::of(&rustix::fs::fstat(fd)?))
}

/// The object of this name, if there is one; a link itself, never its target.
pub(crate) fn look(dir: impl AsFd, name: &Name) -> io::Result<Option<Meta>> {
    match rustix::fs::statat(dir, name.bytes(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Meta::of(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn open_folder(dir: impl AsFd, name: &Name) -> io::Result<OwnedFd> {
    open_within(dir, name.bytes(), FOLDER)
}

/// A regular file to read. Another kind of object is an error, and opening it does not block.
pub(crate) fn open_file(dir: impl AsFd, name: &Name) -> io::Result<(OwnedFd, Meta)> {
    let flags =
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = open_within(dir, name.bytes(), flags)?;
    let meta = stat_of(&fd)?;
    match meta.kind() {
        FileKind::File => Ok((fd, meta)),
        FileKind::Folder
        | FileKind::Link
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::Device => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// A handle that only names a folder: for those that cannot be read.
pub(crate) fn name_folder(dir: impl AsFd, names: &[Name]) -> io::Result<OwnedFd> {
    open_below(dir, names, FOLDER.difference(OFlags::RDONLY) | OFlags::PATH)
}

/// The folder at these names below `root`; `root` itself if there are none.
pub(crate) fn folder_below(root: impl AsFd, names: &[Name]) -> io::Result<OwnedFd> {
    open_below(root, names, FOLDER)
}

fn open_below(root: impl AsFd, names: &[Name], last: OFlags) -> io::Result<OwnedFd> {
    let mut at: Option<OwnedFd> = None;
    let mut rest = names;
    while !rest.is_empty() {
        let mut path = Vec::new();
        let mut taken = 0;
        for name in rest {
            if taken > 0 && path.len() + 1 + name.bytes().len() > LOOKUP {
                break;
            }
            if taken > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.bytes());
            taken += 1;
        }
        rest = &rest[taken..];
        let flags = if rest.is_empty() {
            last
        } else {
            FOLDER | OFlags::PATH
        };
        let from = at.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        at = Some(open_within(from, &path, flags)?);
    }
    match at {
        Some(fd) => Ok(fd),
        None => Ok(root.as_fd().try_clone_to_owned()?),
    }
}

fn open_within(dir: impl AsFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    loop {
        match rustix::fs::openat2(&dir, path, flags, Mode::empty(), WITHIN) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
}

/// The names in a folder, in order; at most `most`.
///
/// # Errors
///
/// `ErrorKind::FileTooLarge` if there are more.
pub(crate) fn names_in(folder: impl AsFd, most: usize) -> io::Result<Vec<Name>> {
    // The place in a folder is shared by all handles that were copied from one.
    rustix::fs::seek(&folder, SeekFrom::Start(0))?;
    let mut buffer = [const { MaybeUninit::uninit() }; 16 * 1024];
    let mut entries = RawDir::new(folder, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        if names.len() >= most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        names.extend(Name::parse(bytes));
    }
    names.sort_unstable();
    Ok(names)
}

/// Sets the permission bits of the folder that this is, read or not.
pub(crate) fn set_mode(folder: impl AsFd, permissions: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(permissions);
    match rustix::fs::fchmod(&folder, mode) {
        // It is a handle that only names it.
        Err(Errno::BADF) => Ok(rustix::fs::chmodat(&folder, ".", mode, AtFlags::empty())?),
        other => Ok(other?),
    }
}

pub(crate) fn timespec(nanoseconds: i64) -> Timespec {
    Timespec {
        tv_sec: nanoseconds.div_euclid(1_000_000_000),
        tv_nsec: nanoseconds.rem_euclid(1_000_000_000),
    }
}

/// Sets when the folder was last changed.
pub(crate) fn set_mtime(folder: impl AsFd, mtime: i64) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: timespec(mtime),
    };
    Ok(rustix::fs::utimensat(
        folder,
        ".",
        &times,
        AtFlags::empty(),
    )?)
}

/// Removes what has this name and all below it. Only in folders that nobody else changes. What is deep is
/// moved up to `dir` first, under a number.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &Name) -> io::Result<()> {
    let mut waiting = vec![name.clone()];
    while let Some(next) = waiting.pop() {
        remove_shallow(dir, &next, &mut waiting)?;
    }
    Ok(())
}

/// How deep it goes before the rest is moved up.
const SHALLOW: usize = 64;

fn remove_shallow(dir: BorrowedFd<'_>, name: &Name, moved: &mut Vec<Name>) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name.bytes(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let mut cursor = Cursor::new(dir.try_clone_to_owned()?);
    let mut waiting = vec![open_up(&mut cursor, name)?];
    while let Some(names) = waiting.last_mut() {
        let Some(next) = names.pop() else {
            waiting.pop();
            let done = cursor.leave();
            let parent = cursor.folder()?;
            if let Some(done) = done {
                rustix::fs::unlinkat(parent, done.bytes(), AtFlags::REMOVEDIR)?;
            }
            continue;
        };
        match rustix::fs::unlinkat(cursor.folder()?, next.bytes(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) if cursor.names().len() >= SHALLOW => {
                moved.push(move_up(&mut cursor, &next, dir)?);
            }
            Err(Errno::ISDIR | Errno::PERM) => waiting.push(open_up(&mut cursor, &next)?),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Moves a folder to another, under a number that is free there.
fn move_up(cursor: &mut Cursor, name: &Name, to: BorrowedFd<'_>) -> io::Result<Name> {
    let from = cursor.folder()?;
    open_to_owner(from, name)?;
    for number in u64::from(u32::MAX).. {
        let free = Name::number(number);
        match rustix::fs::renameat_with(
            from,
            name.bytes(),
            to,
            free.bytes(),
            RenameFlags::NOREPLACE,
        ) {
            Err(Errno::EXIST) => {}
            other => {
                other?;
                return Ok(free);
            }
        }
    }
    Err(io::ErrorKind::StorageFull.into())
}

fn open_to_owner(dir: BorrowedFd<'_>, name: &Name) -> io::Result<()> {
    if look(dir, name)?.is_some_and(|meta| meta.is_folder() && meta.mode & 0o700 != 0o700) {
        rustix::fs::chmodat(dir, name.bytes(), Mode::RWXU, AtFlags::empty())?;
    }
    Ok(())
}

/// Enters a folder, made accessible first; what is in it.
fn open_up(cursor: &mut Cursor, name: &Name) -> io::Result<Vec<Name>> {
    open_to_owner(cursor.folder()?, name)?;
    cursor.enter(name)?;
    names_in(cursor.folder()?, usize::MAX)
}

/// The most folders within one another that a step may change or look into.
pub(crate) const MAX_DEPTH: usize = 1000;
/// Says so.
pub(crate) const TOO_DEEP: &str = "folders lie deeper than 1000 within one another";

/// A place in a tree that may be deeper than descriptors or paths reach.
pub(crate) struct Cursor {
    root: OwnedFd,
    names: Vec<Name>,
    open: Vec<Option<OwnedFd>>,
    /// Device and inode of each folder on the way.
    known: Vec<(u64, u64)>,
}

impl Cursor {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self {
            root,
            names: Vec::new(),
            open: Vec::new(),
            known: Vec::new(),
        }
    }

    /// Another one at the same root.
    pub(crate) fn again(&self) -> io::Result<Self> {
        Ok(Self::new(self.root.try_clone()?))
    }

    /// The names from the root to here.
    pub(crate) fn names(&self) -> &[Name] {
        &self.names
    }

    /// The folder that this is.
    pub(crate) fn folder(&mut self) -> io::Result<BorrowedFd<'_>> {
        let Some(slot) = self.open.last_mut() else {
            return Ok(self.root.as_fd());
        };
        if slot.is_none() {
            *slot = Some(folder_below(&self.root, &self.names)?);
        }
        Ok(slot.as_ref().map_or(self.root.as_fd(), AsFd::as_fd))
    }

    /// Goes down; stays on an error, also where it is too deep: the kernel looks at all folders above for
    /// each step, so that the time would be the square of the depth.
    pub(crate) fn enter(&mut self, name: &Name) -> io::Result<()> {
        if self.names.len() >= MAX_DEPTH {
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, TOO_DEEP));
        }
        let fd = open_folder(self.folder()?, name)?;
        self.known.push(identity(&fd)?);
        self.names.push(name.clone());
        self.open.push(Some(fd));
        if let Some(far) = self.open.len().checked_sub(OPEN_FOLDERS) {
            self.open[far] = None;
        }
        Ok(())
    }

    /// Goes up; the name of what was left.
    pub(crate) fn leave(&mut self) -> Option<Name> {
        let left = self.open.pop().flatten();
        self.known.pop();
        if let (Some(left), Some(above @ None), Some(known)) =
            (left, self.open.last_mut(), self.known.last())
        {
            // Only where it leads to the folder that was come from; else it is looked up from the root.
            let fd = rustix::fs::openat(&left, "..", FOLDER, Mode::empty()).ok();
            *above = fd.filter(|fd| identity(fd).is_ok_and(|found| found == *known));
        }
        self.names.pop()
    }
}

fn identity(fd: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}
