//! What a box uses of memory, looked at from outside, where no cgroup holds it.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::process::Pid;

use super::spec::Failure;

/// The most processes that are looked at; a box is not allowed so many.
const MAX_PROCESSES: usize = 4096;

/// The host's `/proc`. The keeper's root becomes the box' own with that of init, whose mounts it
/// shares, so this is opened before.
pub(super) struct HostProc(OwnedFd);

impl HostProc {
    /// Opens it.
    pub(super) fn open() -> Result<Self, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, "/proc", flags, Mode::empty())
            .map(Self)
            .map_err(Failure::at("opening /proc"))
    }

    /// Whether `init` and the processes below it hold more than `limit` bytes. What cannot be
    /// read has ended.
    pub(super) fn over(&self, init: Pid, limit: u64) -> bool {
        let processes = self.descendants(init.as_raw_nonzero().get().unsigned_abs());
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
