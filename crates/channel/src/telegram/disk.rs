//! What this program keeps over a restart: how far each delivery is, and where the messages of
//! open approvals stand. Without it nothing is lost; some messages would be sent twice.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use protocol::ids::{ApprovalId, Digest};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

/// As many deliveries are remembered.
const MAX_DELIVERIES: usize = 64;

/// As many approvals are remembered.
const MAX_APPROVALS: usize = 256;

/// The file is far smaller.
const MAX_FILE: usize = 256 * 1024;

/// A flag of open(2): a link in the place of the file is an error.
const NO_LINK: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// The two files that hold the same; while one is written the other one is whole. They are opened before the
/// confinement and read after it, since this program wrote them: the user that it has then owns no file, and
/// opens none.
#[derive(Debug)]
pub(super) struct Files([File; 2]);

impl Files {
    /// Opens them, and makes those that are not there.
    ///
    /// # Errors
    ///
    /// The folder is not there or its disk is full, or something else stands there by that name.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.custom_flags(NO_LINK).mode(0o600);
            options.open(folder.join(name))
        };
        Ok(Self([open("telegram.json.new")?, open("telegram.json")?]))
    }
}

/// The files and what stands in them.
#[derive(Debug)]
pub(super) struct Disk {
    files: Files,
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
    /// Reads what is kept; what cannot be read counts as nothing, and is replaced.
    pub(super) fn read(files: Files) -> Self {
        let [spare, first] = &files.0;
        let kept = read(first)
            .or_else(|_| read(spare))
            .unwrap_or_else(|error| {
                protocol::log!(
                    "channel telegram: forgets what was sent before the restart: {error}"
                );
                Kept::default()
            });
        Self { files, kept }
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
        if let Err(error) = write(&self.files, &self.kept) {
            protocol::log!(
                "channel telegram: cannot write its state: {error}; after a restart messages may come twice"
            );
        }
    }
}

fn read(file: &File) -> io::Result<Kept> {
    let mut text = Vec::new();
    let mut block = [0; 4096];
    while text.len() < MAX_FILE {
        match file.read_at(&mut block, text.len() as u64)? {
            0 => break,
            read => text.extend_from_slice(&block[..read]),
        }
    }
    match text.is_empty() {
        true => Ok(Kept::default()),
        false => Ok(serde_json::from_slice(&text)?),
    }
}

/// One after the other, so that one of them is whole at every moment.
fn write(files: &Files, kept: &Kept) -> io::Result<()> {
    let text = serde_json::to_vec(kept)?;
    for file in &files.0 {
        file.write_all_at(&text, 0)?;
        file.set_len(text.len() as u64)?;
        file.sync_data()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(folder: &Path) -> Disk {
        Disk::read(Files::open(folder).unwrap())
    }

    #[test]
    fn what_was_sent_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = open(folder.path());
        disk.sent(1, Digest::of("a"), 2);
        disk.asked(
            ApprovalId([1; 8]),
            Place {
                chat: 7,
                message: 8,
            },
        );
        let mut disk = open(folder.path());
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
        assert_eq!(open(folder.path()).places(), []);
    }

    #[test]
    fn what_was_cut_off_in_the_middle_of_either_file_is_known_from_the_other() {
        for cut in ["telegram.json", "telegram.json.new"] {
            let folder = tempfile::tempdir().unwrap();
            open(folder.path()).sent(1, Digest::of("a"), 2);
            let path = folder.path().join(cut);
            let half = fs::metadata(&path).unwrap().len() / 2;
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(half).unwrap();
            let disk = open(folder.path());
            assert_eq!(disk.parts_sent(1, &Digest::of("a")), 2, "{cut}");
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        std::os::unix::fs::symlink(&other, folder.path().join("telegram.json")).unwrap();
        assert!(Files::open(folder.path()).is_err());
        assert!(!other.exists());
    }

    #[test]
    fn broken_files_count_as_empty_and_stay_small() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("telegram.json");
        fs::write(&path, "{").unwrap();
        fs::write(folder.path().join("telegram.json.new"), "[").unwrap();
        let mut disk = open(folder.path());
        for n in 0..1000 {
            disk.sent(n, Digest::of("x"), 1);
        }
        assert_eq!(disk.kept.deliveries.len(), MAX_DELIVERIES);
        assert!(fs::metadata(path).unwrap().len() < MAX_FILE as u64 / 4);
    }
}
