//! The handle of the workspace, and opening files below it to read them.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use protocol::call::WorkspacePath;
use rustix::fs::{self, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::ToolError;
use super::target::Target;

/// The largest file that is edited, written or searched, in bytes.
pub const MAX_FILE: u64 = 1024 * 1024;

/// How often a lookup is tried again that a rename elsewhere disturbed (openat2(2), EAGAIN).
const MAX_TRIES: u32 = 64;

/// To read: no waiting for the other end of a fifo, no controlling terminal.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// A directory handle of the workspace. Everything below it is reached through it, so
/// that no path and no link leads out.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens the workspace. The path is ours, not the model's.
    pub fn open(path: &Path) -> Result<Self, ToolError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::openat(CWD, path, flags, Mode::empty())
            .map(Self)
            .map_err(ToolError::NoWorkspace)
    }

    /// A regular file to read. Links are followed as long as they stay inside.
    pub(crate) fn open_to_read(&self, path: &WorkspacePath) -> Result<(File, Stat), ToolError> {
        let open = || open_below(&self.0, path.as_str(), READ, ResolveFlags::empty());
        let file = open().map_err(|errno| ToolError::of(path, errno))?;
        let stat = regular(&file, path)?;
        Ok((File::from(file), stat))
    }

    /// All of a file that is not over [`MAX_FILE`].
    pub(crate) fn read_some(&self, path: &WorkspacePath) -> Result<Vec<u8>, ToolError> {
        let (file, stat) = self.open_to_read(path)?;
        read_all(path, file, &stat)
    }

    /// Whether something that is no folder is there; links count as what they lead to.
    pub(crate) fn is_file(&self, path: &WorkspacePath) -> Result<bool, ToolError> {
        let of = |errno| ToolError::of(path, errno);
        let handle =
            open_below(&self.0, path.as_str(), OFlags::PATH, ResolveFlags::empty()).map_err(of)?;
        let stat = fs::fstat(&handle).map_err(of)?;
        Ok(FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
    }

    /// A folder to read.
    pub(crate) fn folder(&self, path: &WorkspacePath) -> Result<OwnedFd, ToolError> {
        let flags = READ | OFlags::DIRECTORY;
        let folder = open_below(&self.0, path.as_str(), flags, ResolveFlags::empty());
        folder.map_err(|errno| ToolError::of(path, errno))
    }

    /// A folder as a handle of its own. No link leads to it, so that what lies above it is what
    /// its path says.
    pub(super) fn below(&self, path: &WorkspacePath) -> Result<Self, ToolError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let folder = open_below(&self.0, path.as_str(), flags, ResolveFlags::NO_SYMLINKS);
        folder.map(Self).map_err(|errno| ToolError::of(path, errno))
    }

    /// Makes it the folder in which programs are started from now on.
    pub(super) fn enter(&self) -> Result<(), ToolError> {
        rustix::process::fchdir(&self.0).map_err(|errno| ToolError::Start(errno.into()))
    }

    /// A file to change, which has to be there.
    pub(crate) fn target<'a>(&self, path: &'a WorkspacePath) -> Result<Target<'a>, ToolError> {
        Target::open(&self.0, path)
    }

    /// A file to write, which need not be there yet; missing folders are made.
    pub(crate) fn target_or_new<'a>(
        &self,
        path: &'a WorkspacePath,
    ) -> Result<Target<'a>, ToolError> {
        Target::open_or_new(&self.0, path)
    }

    /// A file for the output of a program, which need not be there yet, in a folder that is.
    pub(super) fn stream_into<'a>(&self, path: &'a WorkspacePath) -> Result<Target<'a>, ToolError> {
        Target::open_in_folder(&self.0, path)
    }
}

/// Opens a path that the kernel keeps below `folder`.
pub(super) fn open_below(
    folder: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    more: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | more;
    let open = || {
        fs::openat2(
            folder.as_fd(),
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
    };
    let mut result = open();
    for _ in 1..MAX_TRIES {
        match result {
            Err(Errno::AGAIN | Errno::INTR) => result = open(),
            // Kernels of others, such as gVisor's.
            Err(Errno::NOSYS) => return open_step_by_step(folder, path, flags),
            other => return other,
        }
    }
    result
}

/// The same without openat2(2): from folder to folder, through no link at all.
fn open_step_by_step(
    folder: impl AsFd,
    path: impl rustix::path::Arg,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let path = path.as_str()?;
    if path.starts_with('/') {
        return Err(Errno::XDEV);
    }
    let step = |from: BorrowedFd<'_>, name: &str, flags: OFlags| {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = fs::openat(from, name, flags, Mode::empty())?;
        // With O_PATH a link is opened instead of followed.
        match FileType::from_raw_mode(fs::fstat(&opened)?.st_mode) {
            FileType::Symlink => Err(Errno::LOOP),
            _ => Ok(opened),
        }
    };
    let mut names: Vec<&str> = path.split('/').collect();
    names.retain(|name| !matches!(*name, "" | "."));
    if names.contains(&"..") {
        return Err(Errno::XDEV);
    }
    let last = names.pop().unwrap_or(".");
    let between = OFlags::PATH | OFlags::DIRECTORY;
    let mut at = step(folder.as_fd(), ".", between)?;
    for name in names {
        at = step(at.as_fd(), name, between)?;
    }
    step(at.as_fd(), last, flags)
}

/// Opens a name in a folder, to read, and follows no link at all.
pub(super) fn open_name(
    folder: impl AsFd,
    name: impl rustix::path::Arg + Copy,
    more: OFlags,
) -> Result<OwnedFd, Errno> {
    open_below(
        folder,
        name,
        READ | OFlags::NOFOLLOW | more,
        ResolveFlags::NO_SYMLINKS,
    )
}

/// What the opened file is, if it is a regular one.
pub(super) fn regular(file: impl AsFd, path: &WorkspacePath) -> Result<Stat, ToolError> {
    let stat = fs::fstat(file).map_err(|errno| ToolError::of(path, errno))?;
    match what(&stat) {
        None => Ok(stat),
        Some(FileType::Symlink) => Err(ToolError::Link(path.clone())),
        Some(other) => Err(ToolError::NotFile(path.clone(), word(other))),
    }
}

/// The kind of a file that is not a regular one.
pub(super) fn what(stat: &Stat) -> Option<FileType> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    (kind != FileType::RegularFile).then_some(kind)
}

/// A kind of file in words.
pub(super) fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a fifo",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something unknown",
    }
}

/// All bytes of a file that is not over [`MAX_FILE`], also if it grows meanwhile.
pub(super) fn read_all(
    path: &WorkspacePath,
    file: File,
    stat: &Stat,
) -> Result<Vec<u8>, ToolError> {
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > MAX_FILE {
        return Err(ToolError::TooBig(path.clone(), size, MAX_FILE));
    }
    let mut bytes = Vec::new();
    let read = file
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| ToolError::io(path, &e))?;
    match read as u64 > MAX_FILE {
        true => Err(ToolError::TooBig(path.clone(), read as u64, MAX_FILE)),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn step_by_step_the_same_files_are_reached_and_no_link_leads_anywhere() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/file"), "text").unwrap();
        symlink("b", folder.path().join("a/link")).unwrap();
        symlink("b/file", folder.path().join("a/name")).unwrap();
        let Root(root) = Root::open(folder.path()).unwrap();
        let inode = |fd: Result<OwnedFd, Errno>| fd.map(|fd| fs::fstat(fd).unwrap().st_ino);
        for path in ["a/b/file", "a//b/./file", "a/b", ".", ""] {
            let stepped = open_step_by_step(&root, path, READ);
            let path = if path.is_empty() { "." } else { path };
            let opened = open_below(&root, path, READ, ResolveFlags::empty());
            assert_eq!(inode(stepped), inode(opened), "{path}");
        }
        for (path, flags, error) in [
            ("a/name", READ, Errno::LOOP),
            ("a/name", OFlags::PATH, Errno::LOOP),
            ("a/link/file", READ, Errno::NOTDIR),
            ("a/../a/b/file", READ, Errno::XDEV),
            ("/etc/passwd", READ, Errno::XDEV),
            ("a/no", READ, Errno::NOENT),
        ] {
            let opened = open_step_by_step(&root, path, flags);
            assert_eq!(opened.err(), Some(error), "{path}");
        }
    }
}
