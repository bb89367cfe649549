//! The mark of a freeze: a file of the home that survives every program.
//!
//! That it is there is what counts. What it says is for people: a mark that is empty or
//! broken, since the disk was full or the machine stopped, freezes all the same. So that a full
//! disk does not take who froze and why, a spare file keeps the room for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use protocol::freeze::{By, Frozen};
use protocol::time::Millis;

use crate::Home;

/// The size of a mark, in bytes; blanks fill it up. It holds the longest reason.
const MARK_LEN: usize = 4096;

/// The mark of one home.
#[derive(Clone, Debug)]
pub struct FreezeMark {
    path: PathBuf,
    spare: PathBuf,
}

/// Whether this home is frozen. A mark that cannot be looked for counts as one.
#[must_use]
pub fn is_frozen(home: &Home) -> bool {
    FreezeMark::of(home).exists()
}

impl FreezeMark {
    /// Of this home.
    pub fn of(home: &Home) -> Self {
        Self {
            path: home.freeze_mark(),
            spare: home.freeze_spare(),
        }
    }

    /// Whether it is there, or cannot be looked for.
    fn exists(&self) -> bool {
        match fs::symlink_metadata(&self.path) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// The freeze that it says, if there is one.
    #[must_use]
    pub fn read(&self) -> Option<Frozen> {
        self.exists().then(|| {
            self.said().unwrap_or_else(|_| Frozen {
                since: self.made().unwrap_or(Millis(0)),
                by: By::Unknown,
                reason: String::new(),
            })
        })
    }

    fn said(&self) -> io::Result<Frozen> {
        // What lies there instead of a file must not hold anybody up.
        if !fs::symlink_metadata(&self.path)?.is_file() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut text = String::new();
        File::open(&self.path)?
            .take(MARK_LEN as u64)
            .read_to_string(&mut text)?;
        serde_json::from_str(&text).map_err(io::Error::other)
    }

    /// When the file was made; what is shown of a freeze whose mark cannot be read.
    fn made(&self) -> Option<Millis> {
        let modified = fs::symlink_metadata(&self.path).ok()?.modified().ok()?;
        let since = modified.duration_since(UNIX_EPOCH).ok()?;
        Some(Millis(since.as_millis().try_into().ok()?))
    }

    /// Keeps the room for a mark. Without it, one that is made on a full disk is there and says nothing.
    pub fn reserve(&self) -> io::Result<()> {
        match self.exists() {
            // The room is in use.
            true => Ok(()),
            false => self.fill_spare(b""),
        }
    }

    /// Writes it, without waiting for the disk. From then on it counts, also if this fails after
    /// the file was made.
    pub fn write(&self, frozen: &Frozen) -> io::Result<()> {
        let text = serde_json::to_vec(frozen).map_err(io::Error::other)?;
        let filled = self.fill_spare(&text);
        // One that may say something is not given away for one that may not.
        let is_better = filled.is_ok() || !self.exists();
        if is_better && fs::rename(&self.spare, &self.path).is_err() {
            // Its name is what counts.
            options().open(&self.path)?;
        }
        match filled {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
            other => other,
        }
    }

    /// Writes this over the spare file, which takes no room that it has not already.
    fn fill_spare(&self, text: &[u8]) -> io::Result<()> {
        let mut whole = vec![b' '; MARK_LEN.max(text.len())];
        whole[..text.len()].copy_from_slice(text);
        options().open(&self.spare)?.write_all(&whole)
    }

    /// Waits until the disk has it.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        self.sync_folder()
    }

    /// Takes it away, and waits until the disk has that. Its room stays for the next.
    pub fn remove(&self) -> io::Result<()> {
        let is_file = fs::symlink_metadata(&self.path).is_ok_and(|data| data.is_file());
        let removed = match is_file {
            true => fs::rename(&self.path, &self.spare),
            false => fs::remove_file(&self.path),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // Without room the next one is there all the same.
        let _ = self.reserve();
        self.sync_folder()
    }

    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }
}

/// Not cut to nothing first: what is written over needs no new room.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use protocol::freeze::MAX_REASON;

    use super::*;

    fn mark() -> (tempfile::TempDir, Home, FreezeMark) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("h")).unwrap();
        home.create().unwrap();
        let mark = FreezeMark::of(&home);
        (dir, home, mark)
    }

    #[test]
    fn a_mark_is_written_read_and_taken_away() {
        let (_dir, home, mark) = mark();
        assert!(!is_frozen(&home) && mark.read().is_none());
        let frozen = Frozen {
            since: Millis(5),
            by: By::Terminal,
            reason: "odd replies".to_owned(),
        };
        mark.write(&frozen).unwrap();
        mark.sync().unwrap();
        assert!(is_frozen(&home));
        assert_eq!(mark.read(), Some(frozen));
        mark.remove().unwrap();
        assert!(!is_frozen(&home));
        mark.remove().unwrap();
    }

    #[test]
    fn a_mark_takes_the_room_that_was_kept_for_it_and_gives_it_back() {
        let (_dir, home, mark) = mark();
        let room = |path: std::path::PathBuf| {
            let data = fs::metadata(path).unwrap();
            (data.ino(), data.len())
        };
        mark.reserve().unwrap();
        let kept = room(home.freeze_spare());
        assert_eq!(kept.1, MARK_LEN as u64);
        for reason in ["\u{1}".repeat(MAX_REASON), "short".to_owned()] {
            let frozen = Frozen {
                since: Millis(5),
                by: By::Terminal,
                reason,
            };
            mark.write(&frozen).unwrap();
            assert_eq!(room(home.freeze_mark()), kept);
            assert_eq!(mark.read(), Some(frozen));
            mark.remove().unwrap();
            assert_eq!(room(home.freeze_spare()), kept);
            assert!(
                fs::read(home.freeze_spare())
                    .unwrap()
                    .iter()
                    .all(|byte| *byte == b' ')
            );
        }
        // Nor does it need that room to count.
        fs::remove_file(home.freeze_spare()).unwrap();
        fs::create_dir(home.freeze_spare()).unwrap();
        let frozen = Frozen {
            since: Millis(6),
            by: By::Terminal,
            reason: String::new(),
        };
        assert!(mark.write(&frozen).is_err() && is_frozen(&home));
    }

    #[test]
    fn a_mark_that_says_nothing_freezes_all_the_same() {
        for text in ["", "{", "{\"since\":1}", &"x".repeat(10_000)] {
            let (_dir, home, mark) = mark();
            fs::write(home.freeze_mark(), text).unwrap();
            let frozen = mark.read().unwrap();
            assert_eq!(frozen.by, By::Unknown);
            assert!(frozen.since > Millis(0) && is_frozen(&home));
        }
        let (_dir, home, mark) = mark();
        fs::create_dir(home.freeze_mark()).unwrap();
        assert!(is_frozen(&home) && mark.read().is_some());
    }
}
