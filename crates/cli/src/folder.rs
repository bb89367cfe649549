//! An empty folder for a moment, and what changed in a folder.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use protocol::ids::{hex, random};
use serde::Serialize;

/// The most entries that are compared.
const MAX_ENTRIES: usize = 200_000;

/// A folder for its owner alone, removed with everything in it when dropped.
#[derive(Debug)]
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    /// Makes one where temporary files go.
    pub(crate) fn create() -> io::Result<Self> {
        let name = hex(&random::<8>().map_err(io::Error::other)?);
        let path = std::env::temp_dir().join(format!("bulkhead-{name}"));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed stays until the system cleans up; nobody is left to tell.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// It is new.
    Added,
    /// Its content, mode or owner are others.
    Modified,
    /// It is gone.
    Removed,
}

/// An entry that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    /// Below the folder; bytes that are not UTF-8 read as U+FFFD.
    pub(crate) path: String,
    /// What happened.
    pub(crate) kind: Kind,
}

/// How a folder is at a moment. Folders count for being there; files, links and others also
/// for inode, size, mode and the time of their last change, which no program can set.
#[derive(Debug, Default)]
pub(crate) struct Snapshot(BTreeMap<PathBuf, [i64; 5]>);

impl Snapshot {
    /// Looks at everything below the folder without following links.
    pub(crate) fn take(folder: &Path) -> io::Result<Self> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![folder.to_owned()];
        while let Some(next) = waiting.pop() {
            for entry in fs::read_dir(&next)? {
                let path = entry?.path();
                let metadata = fs::symlink_metadata(&path)?;
                let mark = match metadata.is_dir() {
                    true => [i64::from(metadata.mode()), 0, 0, 0, 0],
                    false => [
                        i64::from(metadata.mode()),
                        metadata.ino().cast_signed(),
                        metadata.size().cast_signed(),
                        metadata.ctime(),
                        metadata.ctime_nsec(),
                    ],
                };
                if metadata.is_dir() {
                    waiting.push(path.clone());
                }
                if found.len() == MAX_ENTRIES {
                    return Err(io::Error::other(format!("more than {MAX_ENTRIES} entries")));
                }
                // Everything was found by going down from this folder.
                let below = path.strip_prefix(folder).unwrap_or(&path);
                found.insert(below.to_owned(), mark);
            }
        }
        Ok(Self(found))
    }

    /// What is different now, in the order of the paths.
    pub(crate) fn changes(&self, now: &Self) -> Vec<Change> {
        let mut changes = BTreeMap::new();
        for (path, mark) in &now.0 {
            match self.0.get(path) {
                None => drop(changes.insert(path, Kind::Added)),
                Some(before) if before != mark => drop(changes.insert(path, Kind::Modified)),
                Some(_) => {}
            }
        }
        for path in self.0.keys().filter(|path| !now.0.contains_key(*path)) {
            changes.insert(path, Kind::Removed);
        }
        let change = |(path, kind): (&PathBuf, Kind)| Change {
            path: path.to_string_lossy().into_owned(),
            kind,
        };
        changes.into_iter().map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_modified_and_removed_is_told() {
        let folder = Temporary::create().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("d")).unwrap();
        for name in ["d/same", "d/changed", "gone"] {
            fs::write(path(name), "1").unwrap();
        }
        let before = Snapshot::take(folder.path()).unwrap();
        // The clock of a file system moves in steps of a few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(path("d/changed"), "2").unwrap();
        fs::remove_file(path("gone")).unwrap();
        std::os::unix::fs::symlink("/etc", path("new")).unwrap();
        let changes = before.changes(&Snapshot::take(folder.path()).unwrap());
        let told: Vec<_> = changes.iter().map(|c| (c.path.as_str(), c.kind)).collect();
        assert_eq!(
            told,
            [
                ("d/changed", Kind::Modified),
                ("gone", Kind::Removed),
                ("new", Kind::Added)
            ]
        );
    }

    #[test]
    fn a_temporary_folder_goes_with_its_content() {
        let folder = Temporary::create().unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("x"), "1").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
