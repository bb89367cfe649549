//! What a box uses, looked at from outside where the kernel holds no sum: memory without a cgroup, and
//! the disk below its layer.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::workspace::LayerFolders;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat, statvfs};
use rustix::io::Errno;

/// The most processes that are looked at; a box is not allowed so many.
const MAX_PROCESSES: usize = 4096;

/// Whether a process and those below it hold more than `limit` bytes of memory. What cannot be read
/// has ended.
pub(crate) fn over_memory(pid: u32, limit: u64) -> bool {
    HostProc::open().is_some_and(|proc| proc.over(pid, limit))
}

/// The host's `/proc`.
struct HostProc(OwnedFd);

impl HostProc {
    fn open() -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, "/proc", flags, Mode::empty()).ok().map(Self)
    }

    fn over(&self, init: u32, limit: u64) -> bool {
        let processes = self.descendants(init);
        let sum = |of: fn(&Self, u32) -> u64| {
            processes
                .iter()
                .map(|pid| of(self, *pid))
                .fold(0, u64::saturating_add)
        };
        // What forks share counts for each of them here, so that this is never too little, and
        // quick. The exact share takes the kernel a walk over the pages.
        sum(Self::resident) > limit && sum(Self::proportional) > limit
    }

    /// All processes of the box. Those whose parent ended are children of init.
    fn descendants(&self, init: u32) -> Vec<u32> {
        let mut found = vec![init];
        let mut next = 0;
        while next < found.len() && found.len() < MAX_PROCESSES {
            for thread in self.threads(found[next]) {
                let children = self.text(&format!("{}/task/{thread}/children", found[next]));
                let children = children.unwrap_or_default();
                found.extend(
                    children
                        .split_whitespace()
                        .filter_map(|pid| pid.parse::<u32>().ok()),
                );
            }
            next += 1;
        }
        found
    }

    fn threads(&self, pid: u32) -> Vec<u32> {
        self.numbers(&format!("{pid}/task"))
    }

    fn numbers(&self, folder: &str) -> Vec<u32> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(&self.0, folder, flags, Mode::empty());
        let entries = folder.and_then(Dir::new).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok())
            .collect()
    }

    /// Bytes of files that have no name any more and are held open, but for those of `/tmp`, which has a limit.
    fn nameless(&self, init: u32) -> u64 {
        let stat = |path: &str| statat(&self.0, path, AtFlags::empty()).ok();
        let tmp = stat(&format!("{init}/root/tmp")).map(|data| data.st_dev);
        let mut seen = HashSet::new();
        let mut bytes = 0_u64;
        for pid in self.descendants(init) {
            for number in self.numbers(&format!("{pid}/fd")) {
                let Some(data) = stat(&format!("{pid}/fd/{number}")) else {
                    continue;
                };
                let file = FileType::from_raw_mode(data.st_mode) == FileType::RegularFile;
                let counts = file && data.st_nlink == 0 && Some(data.st_dev) != tmp;
                if counts && seen.insert((data.st_dev, data.st_ino)) {
                    let blocks = u64::try_from(data.st_blocks).unwrap_or(0);
                    bytes = bytes.saturating_add(blocks.saturating_mul(BLOCK));
                }
            }
        }
        bytes
    }

    /// Bytes of memory that are not a file's.
    fn resident(&self, pid: u32) -> u64 {
        let text = self.text(&format!("{pid}/status")).unwrap_or_default();
        kibibytes(&text, &["RssAnon:", "RssShmem:"])
    }

    /// The same, with what several processes share divided among them, where the kernel tells.
    fn proportional(&self, pid: u32) -> u64 {
        match self.text(&format!("{pid}/smaps_rollup")) {
            Some(text) => kibibytes(&text, &["Pss_Anon:", "Pss_Shmem:"]),
            None => self.resident(pid),
        }
    }

    fn text(&self, path: &str) -> Option<String> {
        let file = openat(
            &self.0,
            path,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).ok()?;
        Some(text)
    }
}

fn kibibytes(text: &str, fields: &[&str]) -> u64 {
    let value = |line: &str| {
        let field = fields.iter().find_map(|field| line.strip_prefix(field))?;
        field.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let sum = text.lines().filter_map(value).fold(0, u64::saturating_add);
    sum.saturating_mul(1024)
}

/// Bytes that `st_blocks` counts in, stat(3type).
const BLOCK: u64 = 512;
/// The most entries that one run may leave in its layer.
const MAX_ENTRIES: u64 = 1_000_000;
/// The most folders within one another that are looked into.
const MAX_DEPTH: usize = 64;

/// Where the processes of a box are that may hold files without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holders {
    /// This one, as this process sees it, and those below it.
    Below(u32),
    /// In a container, where whoever makes the box looks for them.
    Elsewhere,
}

/// How much a run has written, as far as can be told without looking at all of it each time.
#[derive(Debug)]
pub(crate) struct Disk {
    holders: Holders,
    folder: std::path::PathBuf,
    /// What a copy held before anything was written to it.
    copied: Used,
    /// The same of the file system as a whole.
    at_first: Option<Used>,
    limit: u64,
    /// When all of it was looked at last, and how long that took.
    looked: Cell<(Instant, Duration)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    bytes: u64,
    entries: u64,
}

impl Disk {
    /// For a box with this layer that may write so many bytes.
    pub(crate) fn of(layer: &LayerFolders, limit: u64, holders: Holders) -> Self {
        let (folder, copied) = match layer {
            LayerFolders::Overlay { upper, .. } => (upper, Used::default()),
            LayerFolders::Copy { folder } => (folder, Seen::below(folder).used),
        };
        Self {
            holders,
            folder: folder.clone(),
            copied,
            at_first: used_of_file_system(folder),
            limit,
            looked: Cell::new((Instant::now(), Duration::ZERO)),
        }
    }

    /// Whether it is too much, while it is being written. The file system as a whole is looked at each time;
    /// the layer itself when that has grown by the limit, and now and then, since others may free meanwhile
    /// what the box takes.
    pub(crate) fn is_over(&self) -> bool {
        const LEAST: Duration = Duration::from_millis(50);
        /// Looking takes at most this part of the time.
        const PART: u32 = 20;
        let (last, took) = self.looked.get();
        let due = last.elapsed() >= LEAST.max(took * PART);
        (due || self.exceeds(self.grown())) && self.is_over_now()
    }

    /// Whether it is too much, looking at all of it.
    pub(crate) fn is_over_now(&self) -> bool {
        let begun = Instant::now();
        let seen = Seen::below(&self.folder);
        let mut more = seen.used.since(self.copied);
        if let (Holders::Below(init), Some(proc)) = (self.holders, HostProc::open()) {
            more.bytes = more.bytes.saturating_add(proc.nameless(init));
        }
        self.looked.set((Instant::now(), begun.elapsed()));
        self.exceeds(more) || (!seen.is_all && self.exceeds(self.grown()))
    }

    fn grown(&self) -> Used {
        match (self.at_first, used_of_file_system(&self.folder)) {
            (Some(first), Some(now)) => now.since(first),
            (_, _) => Used::default(),
        }
    }

    fn exceeds(&self, used: Used) -> bool {
        used.bytes > self.limit || used.entries > MAX_ENTRIES
    }
}

fn used_of_file_system(folder: &Path) -> Option<Used> {
    let all = statvfs(folder).ok()?;
    Some(Used {
        bytes: (all.f_blocks - all.f_bfree).saturating_mul(all.f_frsize),
        entries: all.f_files - all.f_ffree,
    })
}

impl Used {
    fn since(self, first: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(first.bytes),
            entries: self.entries.saturating_sub(first.entries),
        }
    }
}

/// What is below a folder, as far as could be seen.
struct Seen {
    used: Used,
    /// Not if a folder was too deep, or closed.
    is_all: bool,
}

impl Seen {
    /// Looks while somebody hostile changes it: nothing is followed, and it is never endless.
    fn below(folder: &Path) -> Self {
        const FOLDER: OFlags = OFlags::RDONLY
            .union(OFlags::DIRECTORY)
            .union(OFlags::NOFOLLOW)
            .union(OFlags::CLOEXEC);
        let mut seen = Self {
            used: Used::default(),
            is_all: true,
        };
        let top = openat(CWD, folder, FOLDER, Mode::empty()).and_then(Dir::new);
        seen.is_all = top.is_ok();
        let mut stack: Vec<Dir> = top.into_iter().collect();
        while let Some(depth) = stack.len().checked_sub(1) {
            let within = &mut stack[depth];
            let Some(Ok(entry)) = within.next() else {
                stack.pop();
                continue;
            };
            let name = entry.file_name();
            if [&b"."[..], b".."].contains(&name.to_bytes()) {
                continue;
            }
            let Ok(at) = within.fd() else {
                seen.is_all = false;
                return seen;
            };
            if let Ok(data) = statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
                let blocks = u64::try_from(data.st_blocks).unwrap_or(0);
                seen.used.bytes += blocks.saturating_mul(BLOCK);
                seen.used.entries += 1;
            }
            if seen.used.entries > 2 * MAX_ENTRIES {
                seen.is_all = false;
                return seen;
            }
            if entry.file_type() == FileType::Directory {
                if depth + 1 == MAX_DEPTH {
                    seen.is_all = false;
                    continue;
                }
                match openat(at, name, FOLDER, Mode::empty()).and_then(Dir::new) {
                    Ok(next) => stack.push(next),
                    // Gone in between.
                    Err(Errno::NOENT) => {}
                    Err(_) => seen.is_all = false,
                }
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBIBYTE: usize = 1024 * 1024;

    #[test]
    fn what_a_copy_held_at_first_is_not_what_was_written_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name, bytes| std::fs::write(folder.path().join(name), vec![1; bytes]);
        write("there", 4 * MEBIBYTE).unwrap();
        let copy = LayerFolders::Copy {
            folder: folder.path().to_owned(),
        };
        let disk = Disk::of(&copy, MEBIBYTE as u64, Holders::Elsewhere);
        assert!(!disk.is_over_now());
        write("little", MEBIBYTE / 2).unwrap();
        assert!(!disk.is_over_now());
        write("much", MEBIBYTE).unwrap();
        assert!(disk.is_over_now());
        let upper = LayerFolders::Overlay {
            upper: folder.path().to_owned(),
            work: folder.path().to_owned(),
        };
        assert!(Disk::of(&upper, MEBIBYTE as u64, Holders::Elsewhere).is_over_now());
    }

    #[test]
    fn what_lies_too_deep_to_be_seen_is_said_to_be_unseen() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Seen::below(folder.path()).is_all);
        let shallow = ["d"; MAX_DEPTH - 1].join("/");
        std::fs::create_dir_all(folder.path().join(&shallow)).unwrap();
        assert!(Seen::below(folder.path()).is_all);
        std::fs::create_dir(folder.path().join(shallow).join("d")).unwrap();
        assert!(!Seen::below(folder.path()).is_all);
    }
}
