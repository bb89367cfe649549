//! Going through a folder and what is below it, within bounds and without following links.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};

use protocol::call::WorkspacePath;
use rustix::fs::{self, AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use super::ToolError;
use super::root::{Root, open_name, read_all, regular, word};
use crate::text::is_hidden;

/// The most names that are read of one folder.
const MAX_NAMES: usize = 10_000;

/// The most entries that are gone through in all.
const MAX_ENTRIES: usize = 100_000;

/// Something in a folder.
pub(crate) struct Entry<'a> {
    /// Its path relative to the workspace; any bytes but NUL.
    pub(crate) path: &'a [u8],
    /// What it is.
    pub(crate) kind: Kind,
    folder: &'a OwnedFd,
    name: &'a CStr,
}

/// What an entry is.
pub(crate) enum Kind {
    /// Is gone into as far as the depth allows.
    Folder,
    /// With its size in bytes.
    File(u64),
    /// With what it says, which may be anything.
    Link(Vec<u8>),
    /// A fifo, socket or device, in words.
    Other(&'static str),
}

impl Entry<'_> {
    /// All bytes of a regular file.
    pub(crate) fn read(&self) -> Result<Vec<u8>, ToolError> {
        // Only to be shown in an error that nobody shows: the name may be no text.
        let path = WorkspacePath::default();
        let file = open_name(self.folder, self.name, OFlags::empty())
            .map_err(|e| ToolError::of(&path, e))?;
        let stat = regular(&file, &path)?;
        read_all(&path, File::from(file), &stat)
    }
}

/// How a walk ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walked {
    /// Everything was seen, as deep as was asked.
    All,
    /// A bound was reached, or the visitor had enough, or a folder could not be read.
    Cut,
}

impl Walked {
    pub(crate) fn is_cut(self) -> bool {
        self == Self::Cut
    }
}

/// Who is shown the entries, and says when to stop.
pub(crate) type Visit<'v> = &'v mut dyn FnMut(&Entry<'_>) -> ControlFlow<()>;

impl Root {
    /// Shows every entry of a folder and of the folders below it, `depth` levels, each
    /// folder's entries in the order of their bytes, a folder before what it holds.
    pub(crate) fn walk(
        &self,
        path: &WorkspacePath,
        depth: u32,
        visit: Visit<'_>,
    ) -> Result<Walked, ToolError> {
        let folder = self.folder(path)?;
        let prefix = match path.as_str() {
            "." => Vec::new(),
            below => format!("{below}/").into_bytes(),
        };
        let mut walk = Walk {
            visit,
            left: MAX_ENTRIES,
            end: Walked::All,
        };
        let _ = walk
            .folder(&folder, &prefix, depth)
            .map_err(|errno| ToolError::of(path, errno))?;
        Ok(walk.end)
    }
}

struct Walk<'v> {
    visit: Visit<'v>,
    left: usize,
    end: Walked,
}

impl Walk<'_> {
    fn folder(
        &mut self,
        folder: &OwnedFd,
        prefix: &[u8],
        depth: u32,
    ) -> Result<ControlFlow<()>, Errno> {
        for name in self.names(folder)? {
            let path = [prefix, name.as_bytes()].concat();
            let Some(left) = self.left.checked_sub(1) else {
                return Ok(self.stop());
            };
            self.left = left;
            // What is gone by now is not there.
            let Ok(kind) = kind(folder, &name) else {
                continue;
            };
            let is_folder = matches!(kind, Kind::Folder);
            if (self.visit)(&Entry {
                path: &path,
                kind,
                folder,
                name: &name,
            })
            .is_break()
            {
                return Ok(self.stop());
            }
            if is_folder && depth > 1 && self.below(folder, &name, path, depth - 1).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Goes into a folder; one that cannot be read does not end the walk.
    fn below(
        &mut self,
        folder: &OwnedFd,
        name: &CStr,
        mut path: Vec<u8>,
        depth: u32,
    ) -> ControlFlow<()> {
        path.push(b'/');
        let opened = open_name(folder, name, OFlags::DIRECTORY);
        opened
            .and_then(|folder| self.folder(&folder, &path, depth))
            .unwrap_or_else(|_| {
                self.end = Walked::Cut;
                ControlFlow::Continue(())
            })
    }

    /// The names in a folder, sorted; the first so many that the kernel gives if there are too many.
    fn names(&mut self, folder: &OwnedFd) -> Result<Vec<CString>, Errno> {
        let mut names = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            if names.len() == MAX_NAMES {
                self.end = Walked::Cut;
                break;
            }
            names.push(entry.file_name().to_owned());
        }
        names.sort();
        Ok(names)
    }

    fn stop(&mut self) -> ControlFlow<()> {
        self.end = Walked::Cut;
        ControlFlow::Break(())
    }
}

fn kind(folder: impl AsFd, name: &CStr) -> Result<Kind, Errno> {
    let stat = fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Folder,
        FileType::RegularFile => Kind::File(u64::try_from(stat.st_size).unwrap_or(0)),
        FileType::Symlink => Kind::Link(fs::readlinkat(&folder, name, Vec::new())?.into_bytes()),
        other => Kind::Other(word(other)),
    })
}

/// A name so that it is one line and shows what it holds: control characters and others
/// that do not show as `\u{1b}`, bytes that are no text as `\xff`, `\` as `\\`.
pub(crate) fn shown(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if is_hidden(c) => text.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_show_what_they_hold() {
        assert_eq!(shown(b"a b.txt"), "a b.txt");
        assert_eq!(
            shown("\u{1b}[2J\n\u{202e}txt.\u{200b}é".as_bytes()),
            "\\u{1b}[2J\\u{a}\\u{202e}txt.\\u{200b}é"
        );
        assert_eq!(shown(b"\xff\\n"), "\\xff\\\\n");
    }
}
