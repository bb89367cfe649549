//! A folder of programs of which one can be replaced, and copies of a home.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::programs;

/// The programs that look for the others beside themselves; they have to be real files there.
const SEEKERS: [&str; 2] = ["bulkhead", "bulkhead-supervisor"];

/// A folder of all programs.
pub(super) struct Programs(PathBuf);

impl Programs {
    /// Makes it: the programs that are installed, by their names.
    pub(super) fn lay_out(folder: PathBuf) -> Result<Self, Fault> {
        let failed = |error| Fault::io(format!("lay out programs in {folder:?}"))(error);
        fs::create_dir(&folder).map_err(failed)?;
        let own = std::env::current_exe().map_err(failed)?;
        for name in programs::ALL {
            put(&programs::path(name)?, &folder.join(name), name).map_err(failed)?;
        }
        put(&own, &folder.join("bulkhead"), "bulkhead").map_err(failed)?;
        Ok(Self(folder))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// Puts another program in the place of this one.
    pub(super) fn replace(&self, name: &str, by: &str) -> Result<(), Fault> {
        let (place, by) = (self.0.join(name), programs::path(by)?);
        let replaced = fs::remove_file(&place).and_then(|()| symlink(by, &place));
        replaced.map_err(Fault::io(format!("replace {place:?}")))
    }
}

fn put(from: &Path, to: &Path, name: &str) -> io::Result<()> {
    match SEEKERS.contains(&name) {
        false => symlink(from, to),
        // On another file system, or where links to others' files are forbidden, it is copied.
        true => fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop)),
    }
}

/// Copies folders and files with their modes; sockets are not copied.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    let permissions = fs::metadata(from)?.permissions();
    fs::set_permissions(to, permissions.clone())?;
    // What overlayfs leaves of a box is closed also to its owner, and empty.
    if permissions.mode() & 0o700 == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

/// What is below a folder, for a look at whether it changed: names and contents.
pub(super) fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false => all.push((path.clone(), fs::read(&path).unwrap_or_default())),
            }
        }
    }
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_everything_with_its_modes_and_differs_when_it_is_changed() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(from.join("below")).unwrap();
        fs::write(from.join("below/file"), "x").unwrap();
        fs::set_permissions(from.join("below"), fs::Permissions::from_mode(0o700)).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("below/file")).unwrap(), b"x");
        let mode = fs::metadata(to.join("below")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let before = contents(&to);
        fs::write(to.join("below/file"), "y").unwrap();
        assert_ne!(before, contents(&to));
    }
}
