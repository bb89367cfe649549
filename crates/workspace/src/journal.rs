//! What an entry of the history holds on the disk.
//!
//! A folder `entries/N` with
//! - `journal`: two lines, each a SHA-256 of the JSON behind it: what the entry is, and what it did;
//! - `slots`: the objects that are not in the workspace at present, by the number of their operation;
//! - `done`: that it is whole in the workspace, and how that looked.
//!
//! A kept step and each undoing of it swap the same objects between slot and workspace. The
//! step is named by the entry that kept it first, which is where its slots are.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};

use protocol::ids::Digest;
use protocol::runner::EntryId;
use protocol::time::Millis;
use protocol::workspace::{Entry, Origin};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::fsys::{self, Meta};
use crate::name::{Folders, Name};

/// A journal over this many bytes is not written.
pub(crate) const MAX_JOURNAL: u64 = 256 * 1024 * 1024;

/// The first line of a journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) entry: EntryId,
    pub(crate) time: Millis,
    pub(crate) origin: Origin,
    /// How many objects it changed.
    pub(crate) changes: u64,
    /// In the order in which they were done.
    pub(crate) parts: Vec<Part>,
}

/// A kept step that an entry does or takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    /// The entry that kept it first.
    pub(crate) step: u64,
    pub(crate) way: Way,
    /// Of the objects that this brought out of the workspace, on the disk.
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    Do,
    TakeBack,
}

impl Way {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Do => Self::TakeBack,
            Self::TakeBack => Self::Do,
        }
    }
}

/// The second line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Body {
    pub(crate) folders: Folders,
    /// Done in this order.
    pub(crate) steps: Vec<u64>,
    /// Those of each step, in this order.
    pub(crate) ops: Vec<Op>,
    /// Those of a step are done after its operations.
    pub(crate) touches: Vec<Touch>,
}

/// An object of the workspace and one in a slot change places. Either may be missing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Op {
    pub(crate) step: u64,
    pub(crate) slot: u64,
    pub(crate) folder: u32,
    pub(crate) name: Name,
    /// What is in the slot before.
    pub(crate) incoming: Option<Object>,
    /// What is in the workspace before.
    pub(crate) outgoing: Option<Object>,
}

/// An object as it is known again: on one file system no other has its inode number while it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Object {
    pub(crate) ino: u64,
    pub(crate) mode: u32,
}

impl From<&Meta> for Object {
    fn from(meta: &Meta) -> Self {
        Self {
            ino: meta.ino,
            mode: meta.mode,
        }
    }
}

/// The mode and time of a folder that stays.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Touch {
    pub(crate) step: u64,
    pub(crate) folder: u32,
    /// As they were.
    pub(crate) before: Look,
    /// As they become; a time that is none is left to what the operations make it.
    pub(crate) mode: Option<u32>,
    pub(crate) mtime: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Look {
    pub(crate) mode: u32,
    pub(crate) mtime: i64,
}

/// That an entry is whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Done {
    /// When the last of it was done, by the exact clock, in nanoseconds since 1970.
    pub(crate) applied: i64,
    /// What each operation left in the workspace: inode, change time, size.
    pub(crate) placed: Vec<Option<(u64, i64, u64)>>,
}

impl Body {
    /// The operations of each step, which are one after the other.
    pub(crate) fn ranges(&self) -> Vec<(u64, std::ops::Range<usize>)> {
        let mut start = 0;
        let mut ranges = Vec::new();
        for step in &self.steps {
            let of_step = self.ops[start..].iter().take_while(|op| op.step == *step);
            let end = start + of_step.count();
            ranges.push((*step, start..end));
            start = end;
        }
        ranges
    }

    /// Whether it changes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.touches.iter().all(|touch| touch.mode.is_none())
    }
}

impl Header {
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    pub(crate) fn shown(&self) -> Entry {
        Entry {
            entry: self.entry,
            time: self.time,
            origin: self.origin.clone(),
            changes: self.changes,
            bytes: self.bytes(),
        }
    }
}

/// Writes a file of checked lines. It is not synced.
///
/// # Errors
///
/// What the kernel says, and `FileTooLarge` over [`MAX_JOURNAL`].
pub(crate) fn write(dir: BorrowedFd<'_>, name: &Name, lines: &[Vec<u8>]) -> io::Result<OwnedFd> {
    let mut bytes = Vec::new();
    for json in lines {
        bytes.extend_from_slice(Digest::of(json).to_string().as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(json);
        bytes.push(b'\n');
    }
    if bytes.len() as u64 > MAX_JOURNAL {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let fd = rustix::fs::openat(dir, name.bytes(), flags, mode)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(&bytes)?;
    Ok(file.into())
}

pub(crate) fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

/// The first line only: what it is.
pub(crate) fn read_header(dir: BorrowedFd<'_>, name: &Name) -> io::Result<Header> {
    let (fd, _) = fsys::open_file(dir, name)?;
    let mut reader = io::BufReader::new(std::fs::File::from(fd));
    let mut first = Vec::new();
    io::BufRead::read_until(
        &mut io::Read::by_ref(&mut reader).take(MAX_JOURNAL),
        b'\n',
        &mut first,
    )?;
    checked(&first)
}

/// All of it.
pub(crate) fn read_journal(dir: BorrowedFd<'_>, name: &Name) -> io::Result<(Header, Body)> {
    let bytes = read_all(dir, name)?;
    let end = bytes
        .iter()
        .position(|b| *b == b'\n')
        .ok_or(io::ErrorKind::InvalidData)?;
    let (first, second) = bytes.split_at(end + 1);
    Ok((checked(first)?, checked(second)?))
}

/// A file of one line.
pub(crate) fn read_line<T: DeserializeOwned>(dir: BorrowedFd<'_>, name: &Name) -> io::Result<T> {
    checked(&read_all(dir, name)?)
}

fn read_all(dir: BorrowedFd<'_>, name: &Name) -> io::Result<Vec<u8>> {
    let (fd, _) = fsys::open_file(dir, name)?;
    let mut bytes = Vec::new();
    std::fs::File::from(fd)
        .take(MAX_JOURNAL)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn checked<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let json = line.strip_suffix(b"\n").ok_or_else(bad)?;
    let (sum, json) = json.split_at_checked(64).ok_or_else(bad)?;
    let json = json.strip_prefix(b" ").ok_or_else(bad)?;
    if Digest::of(json).to_string().as_bytes() != sum {
        return Err(bad());
    }
    Ok(serde_json::from_slice(json)?)
}
