//! What this program keeps over a restart: how far each delivery is, and where the messages of
//! open approvals stand. Without it nothing is lost; some messages would be sent twice.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use protocol::ids::{ApprovalId, Digest};
use serde::{Deserialize, Serialize};

/// As many deliveries are remembered.
const MAX_DELIVERIES: usize = 64;

/// As many approvals are remembered.
const MAX_APPROVALS: usize = 256;

/// The file is far smaller.
const MAX_FILE: u64 = 256 * 1024;

/// The file and what stands in it.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    kept: Kept,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    deliveries: Vec<Progress>,
    approvals: BTreeMap<ApprovalId, Place>,
}

/// How far a delivery is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    delivery: u64,
    /// Of where it goes and what it says, since a new gateway counts from one again.
    content: Digest,
    parts: usize,
}

/// Where the buttons of an approval are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// The chat.
    pub(super) chat: i64,
    /// The message.
    pub(super) message: i64,
}

impl Disk {
    /// Reads what is kept; a file that cannot be read counts as empty, and is replaced.
    pub(super) fn open(folder: &Path) -> Self {
        let kept = read(folder).unwrap_or_else(|error| {
            eprintln!("channel telegram: forgets what was sent before the restart: {error}");
            Kept::default()
        });
        Self {
            folder: folder.to_owned(),
            kept,
        }
    }

    /// How many parts of this delivery Telegram has.
    pub(super) fn parts_sent(&self, delivery: u64, content: &Digest) -> usize {
        let known = self.kept.deliveries.iter();
        let mut same =
            known.filter(|known| known.delivery == delivery && known.content == *content);
        same.next().map_or(0, |known| known.parts)
    }

    /// Telegram has so many parts of this delivery.
    pub(super) fn sent(&mut self, delivery: u64, content: Digest, parts: usize) {
        self.kept
            .deliveries
            .retain(|known| known.delivery != delivery);
        self.kept.deliveries.push(Progress {
            delivery,
            content,
            parts,
        });
        let over = self.kept.deliveries.len().saturating_sub(MAX_DELIVERIES);
        self.kept.deliveries.drain(..over);
        self.save();
    }

    /// Where the buttons of this approval are.
    pub(super) fn place(&self, approval: &ApprovalId) -> Option<Place> {
        self.kept.approvals.get(approval).copied()
    }

    /// All approvals whose buttons stand somewhere.
    pub(super) fn places(&self) -> Vec<ApprovalId> {
        self.kept.approvals.keys().copied().collect()
    }

    /// The buttons of this approval are here.
    pub(super) fn asked(&mut self, approval: ApprovalId, place: Place) {
        while self.kept.approvals.len() >= MAX_APPROVALS {
            self.kept.approvals.pop_first();
        }
        self.kept.approvals.insert(approval, place);
        self.save();
    }

    /// This approval has no buttons any more.
    pub(super) fn closed(&mut self, approval: &ApprovalId) {
        if self.kept.approvals.remove(approval).is_some() {
            self.save();
        }
    }

    fn save(&self) {
        if let Err(error) = write(&self.folder, &self.kept) {
            eprintln!(
                "channel telegram: cannot write its state: {error}; after a restart messages may come twice"
            );
        }
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("telegram.json")
}

fn read(folder: &Path) -> io::Result<Kept> {
    let mut text = Vec::new();
    match File::open(path(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        opened => opened?.take(MAX_FILE).read_to_end(&mut text)?,
    };
    Ok(serde_json::from_slice(&text)?)
}

/// Replaces the file in one step.
fn write(folder: &Path, kept: &Kept) -> io::Result<()> {
    let next = folder.join("telegram.json.new");
    let mut file = File::create(&next)?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    file.sync_data()?;
    fs::rename(next, path(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(folder.path());
        disk.sent(1, Digest::of("a"), 2);
        disk.asked(
            ApprovalId([1; 8]),
            Place {
                chat: 7,
                message: 8,
            },
        );
        let mut disk = Disk::open(folder.path());
        assert_eq!(disk.parts_sent(1, &Digest::of("a")), 2);
        assert_eq!(
            disk.parts_sent(1, &Digest::of("b")),
            0,
            "another message with the same number"
        );
        assert_eq!(
            disk.place(&ApprovalId([1; 8])),
            Some(Place {
                chat: 7,
                message: 8
            })
        );
        disk.closed(&ApprovalId([1; 8]));
        assert_eq!(Disk::open(folder.path()).places(), []);
    }

    #[test]
    fn a_broken_file_counts_as_empty_and_the_file_stays_small() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(path(folder.path()), "{").unwrap();
        let mut disk = Disk::open(folder.path());
        for n in 0..1000 {
            disk.sent(n, Digest::of("x"), 1);
        }
        assert_eq!(disk.kept.deliveries.len(), MAX_DELIVERIES);
        assert!(fs::metadata(path(folder.path())).unwrap().len() < MAX_FILE / 4);
    }
}
