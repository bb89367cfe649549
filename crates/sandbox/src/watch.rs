//! What a box uses, looked at from outside where the kernel holds no sum: memory without a cgroup, and
//! the disk below its layer.

use std::cell::Cell;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::workspace::LayerFolders;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat, statvfs};

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
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(&self.0, format!("{pid}/task"), flags, Mode::empty());
        let entries = folder.and_then(Dir::new).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok())
            .collect()
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

/// The most entries that one run may leave in its layer.
const MAX_ENTRIES: u64 = 1_000_000;
/// The most folders within one another that are looked into.
const MAX_DEPTH: usize = 64;

/// How much a run has written, as far as can be told without looking at all of it each time.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: std::path::PathBuf,
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
    pub(crate) fn of(layer: &LayerFolders, limit: u64) -> Self {
        let (LayerFolders::Overlay { upper: folder, .. } | LayerFolders::Copy { folder }) = layer;
        Self {
            folder: folder.clone(),
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
        let used = used_of_folder(&self.folder).unwrap_or_else(|| self.grown());
        self.looked.set((Instant::now(), begun.elapsed()));
        self.exceeds(used)
    }

    fn grown(&self) -> Used {
        match (self.at_first, used_of_file_system(&self.folder)) {
            (Some(first), Some(now)) => Used {
                bytes: now.bytes.saturating_sub(first.bytes),
                entries: now.entries.saturating_sub(first.entries),
            },
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

/// What is below a folder while somebody hostile changes it: nothing is followed, and what is too deep
/// or gone in between makes the answer unknown or smaller, never endless.
fn used_of_folder(folder: &Path) -> Option<Used> {
    const BLOCK: u64 = 512;
    let top = openat(
        CWD,
        folder,
        OFlags::RDONLY | OFlags::DIRECTORY,
        Mode::empty(),
    );
    let mut stack = vec![top.and_then(Dir::new).ok()?];
    let mut used = Used::default();
    while let Some(within) = stack.last_mut() {
        let Some(Ok(entry)) = within.next() else {
            stack.pop();
            continue;
        };
        let name = entry.file_name();
        if [&b"."[..], b".."].contains(&name.to_bytes()) {
            continue;
        }
        let at = within.fd().ok()?;
        if let Ok(data) = statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            let blocks = u64::try_from(data.st_blocks).unwrap_or(0);
            used.bytes += blocks.saturating_mul(BLOCK);
            used.entries += 1;
        }
        if used.entries > 2 * MAX_ENTRIES {
            return Some(used);
        }
        if entry.file_type() == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = openat(at, name, flags, Mode::empty()).and_then(Dir::new);
            if stack.len() == MAX_DEPTH {
                return None;
            }
            stack.extend(next);
        }
    }
    Some(used)
}
