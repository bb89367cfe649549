//! An empty folder for a moment.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use protocol::ids::{hex, random};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_goes_with_its_content() {
        let folder = Temporary::create().unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("x"), "1").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
