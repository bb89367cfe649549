//! The past: what there is of it, and how it gets shorter.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;

use protocol::ids::Digest;
use protocol::time::Millis;
use protocol::workspace::{Diff, Entry, HistoryReply, HistoryRequest, UndoTo};
use rustix::fs::RenameFlags;
use std::time::Duration;

use crate::fsys;
use crate::name::Name;
use crate::steps::Step;
use crate::stop::Stop;
use crate::store::Store;

/// The most entries in one answer.
const MOST_ENTRIES: usize = 10_000;

impl Store {
    /// Answers the gateway.
    pub fn history(&mut self, request: HistoryRequest) -> HistoryReply {
        let result = match request {
            HistoryRequest::Entries { most } => self.list(most as usize),
            HistoryRequest::Preview { to, diff } => self.show(&to, diff),
            HistoryRequest::Undo { to, digest } => self.undo(&to, digest),
        };
        result.unwrap_or_else(|stop| match stop {
            Stop::Refused { reason, fix } => HistoryReply::Refused { reason, fix },
            Stop::Conflict { .. } => HistoryReply::Refused {
                reason: stop.to_string(),
                fix: "look at what it would change once more".to_owned(),
            },
        })
    }

    fn list(&mut self, most: usize) -> Result<HistoryReply, Stop> {
        self.locked(|store| {
            store.recover()?;
            let newest = store.entries.values().rev();
            let entries = newest
                .take(most.min(MOST_ENTRIES))
                .map(|header| header.shown())
                .collect();
            Ok(HistoryReply::Entries { entries })
        })
    }

    fn show(&mut self, to: &UndoTo, diff: Diff) -> Result<HistoryReply, Stop> {
        self.locked(|store| {
            store.recover()?;
            let preview = store.preview(to, diff)?;
            Ok(HistoryReply::Preview { preview })
        })
    }

    fn undo(&mut self, to: &UndoTo, digest: Digest) -> Result<HistoryReply, Stop> {
        self.locked(|store| {
            store.recover()?;
            let (entry, changes) = store.undo_held(to, digest)?;
            if let Err(stop) = store.prune() {
                protocol::log!("bulkhead-workspace: cannot prune the history: {stop}");
            }
            Ok(HistoryReply::Undone { entry, changes })
        })
    }

    /// The entries from this one on, newest first.
    pub(crate) fn shown_from(&self, first: u64) -> Vec<Entry> {
        let newer = self.entries.range(first..).rev();
        newer
            .take(MOST_ENTRIES)
            .map(|(_, header)| header.shown())
            .collect()
    }

    /// Removes entries that are over the limits; never the newest.
    pub(crate) fn prune(&mut self) -> Result<(), Stop> {
        let limits = self.limits();
        let age = Duration::from_secs(u64::from(limits.days) * 24 * 60 * 60);
        let now = Millis::now();
        while self.entries.len() > 1 {
            let Some((&oldest, header)) = self.entries.first_key_value() else {
                break;
            };
            let old = now.since(header.time) > age;
            if !old && self.on_disk() <= limits.bytes {
                break;
            }
            self.retire(oldest)
                .map_err(Stop::at("cannot prune the history"))?;
        }
        self.sweep().map_err(Stop::at("cannot prune the history"))
    }

    /// Bytes of the objects in slots: of each step, what the last entry with it brought out.
    fn on_disk(&self) -> u64 {
        let parts = self.entries.values().flat_map(|header| &header.parts);
        let bytes: BTreeMap<u64, u64> = parts.map(|part| (part.step, part.bytes)).collect();
        bytes
            .values()
            .fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// From then on it cannot be undone.
    fn retire(&mut self, entry: u64) -> io::Result<()> {
        self.steps.before(Step::Prune);
        let folder = fsys::open_folder(&self.home.entries, &Name::number(entry))?;
        rustix::fs::renameat_with(&folder, "journal", &folder, "retired", RenameFlags::empty())?;
        self.entries.remove(&entry);
        self.retired.push(entry);
        Ok(())
    }

    /// Removes retired entries that no other needs.
    fn sweep(&mut self) -> io::Result<()> {
        if self.retired.is_empty() {
            return Ok(());
        }
        let parts = self.entries.values().flat_map(|header| &header.parts);
        let needed: std::collections::HashSet<u64> = parts.map(|part| part.step).collect();
        for entry in std::mem::take(&mut self.retired) {
            if needed.contains(&entry) {
                self.retired.push(entry);
                continue;
            }
            self.steps.before(Step::Prune);
            self.home.throw_away(&self.home.entries, entry)?;
        }
        Ok(rustix::fs::fsync(self.home.entries.as_fd())?)
    }
}
