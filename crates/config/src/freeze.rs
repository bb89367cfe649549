//! The mark of a freeze: a file of the home that survives every program.
//!
//! That it is there is what counts. What it says is for people: a mark that is empty or
//! broken, since the disk was full or the machine stopped, freezes all the same.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use protocol::freeze::{By, Frozen};
use protocol::time::Millis;

use crate::Home;

/// The largest mark that is read, in bytes.
const MAX_MARK: u64 = 4096;

/// The mark of one home.
#[derive(Clone, Debug)]
pub struct FreezeMark {
    path: PathBuf,
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
            .take(MAX_MARK)
            .read_to_string(&mut text)?;
        serde_json::from_str(&text).map_err(io::Error::other)
    }

    /// When the file was made; what is shown of a freeze whose mark cannot be read.
    fn made(&self) -> Option<Millis> {
        let modified = fs::symlink_metadata(&self.path).ok()?.modified().ok()?;
        let since = modified.duration_since(UNIX_EPOCH).ok()?;
        Some(Millis(since.as_millis().try_into().ok()?))
    }

    /// Writes it, without waiting for the disk. From then on it counts, also if this fails after
    /// the file was made.
    pub fn write(&self, frozen: &Frozen) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)?;
        let text = serde_json::to_vec(frozen).map_err(io::Error::other)?;
        match file.write_all(&text) {
            // Its name is there, which is enough.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
            other => other,
        }
    }

    /// Waits until the disk has it.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        self.sync_folder()
    }

    /// Takes it away, and waits until the disk has that.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.sync_folder()
    }

    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
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
