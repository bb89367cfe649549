//! The vault's folder: who may read it, who has it, and how a file in it is replaced.
//!
//! Files are only ever replaced whole: written beside, synced, renamed over.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::fault::StoreError;

const LOCK: &str = "vault.lock";

/// How long to wait for another process to let go of the vault.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// The folder, held by this process alone.
pub(crate) struct Place {
    dir: PathBuf,
    // flock(2) ends with its holder.
    _lock: File,
}

/// Makes the folder if it is missing; nothing is read or written in it yet.
pub(crate) fn create_folder(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(StoreError::io(dir))
}

impl Place {
    /// Takes the folder, which nobody else may have or read.
    pub(crate) fn take(dir: &Path) -> Result<Self, StoreError> {
        only_ours(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock(&dir.join(LOCK))?,
        })
    }

    /// Where a file of it is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether it has this file.
    pub(crate) fn has(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.path(name);
        path.try_exists().map_err(StoreError::io(&path))
    }

    /// A file of at most `limit` bytes that nobody else can read.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        read_ours(&self.path(name), limit)
    }

    /// Replaces a file whole: after a crash it is the old one or the new one.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (path, beside) = (self.path(name), self.path(&format!("{name}.new")));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let opened = match options.open(&beside) {
            // Left by a crash; whoever holds the lock is the only one who writes here.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&beside).and_then(|()| options.open(&beside))
            }
            other => other,
        };
        let mut file = opened.map_err(StoreError::io(&beside))?;
        file.write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(StoreError::io(&beside))?;
        fs::rename(&beside, &path).map_err(StoreError::io(&path))?;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(StoreError::io(&self.dir))
    }
}

/// Reads a file of at most `limit` bytes that nobody else can read.
pub(crate) fn read_ours(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    only_ours(path)?;
    read_short(path, limit)
}

/// Reads a file of at most `limit` bytes, whoever else can read it.
pub(crate) fn read_short(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let file = File::open(path).map_err(StoreError::io(path))?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io(path))?;
    if bytes.len() as u64 > limit {
        let what = format!("it is longer than {limit} bytes");
        return Err(StoreError::Malformed {
            path: path.to_owned(),
            what,
        });
    }
    Ok(bytes)
}

fn only_ours(path: &Path) -> Result<(), StoreError> {
    let mode = fs::symlink_metadata(path)
        .map_err(StoreError::io(path))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        Err(StoreError::OpenToOthers(path.to_owned()))
    } else {
        Ok(())
    }
}

/// Takes the lock that keeps two processes from writing at once.
fn lock(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let file = file.map_err(StoreError::io(path))?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(StoreError::io(path)(error)),
            Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_WAIT => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse(path.with_file_name("")));
            }
        }
    }
}
