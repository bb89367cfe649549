//! Opening the record: its folder, its lock, its tables.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::key::KeyError;
use crate::schema;

/// Locked for as long as a ledger has the folder open.
const LOCK_FILE: &str = "ledger.lock";

/// Why the record cannot be opened. Nothing can be recorded, so nothing may run.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system would not open or make a file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Two ledgers on one folder would each continue the chain on their own.
    #[error("another bulkhead-ledger has {} open; stop it first", .0.display())]
    InUse(PathBuf),
    /// The key's files.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There are rows, and the key that signed them is gone.
    #[error("the record in {} has rows but no signing key; restore ledger.key from a copy, or move the folder away to begin a new record", .0.display())]
    KeyGone(PathBuf),
    /// There is a key, and the rows that it signed are gone.
    #[error("{} has a signing key but no record; restore ledger.db from a copy, or move the folder away to begin a new record", .0.display())]
    RecordGone(PathBuf),
    /// The file is not a record of this version.
    #[error("{} is not a record that this version can continue: {what}", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What is different.
        what: String,
    },
    /// The end of the record does not verify, so it must not be continued.
    #[error(
        "row {row} of the record does not verify: {what}; look at it with `bulkhead audit verify`, then restore a copy or move the folder away"
    )]
    Damaged {
        /// Where.
        row: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// SQLite would not read it.
    #[error("the record cannot be read: {0}")]
    Sql(#[from] rusqlite::Error),
}

/// Makes a folder that only its owner can enter, or takes the others' rights to it away.
pub fn make_folder(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        Err(_) | Ok(()) => {}
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

pub(super) fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK_FILE);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    let file = file.map_err(|error| OpenError::File {
        path: path.clone(),
        error,
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(OpenError::File { path, error }),
    }
}

/// Makes the database's file so that nobody else can read it. Whether it was not there.
pub(super) fn make_file(path: &Path) -> Result<bool, OpenError> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(OpenError::File {
            path: path.to_owned(),
            error,
        }),
    }
}

pub(super) fn connect(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    // Readers do not block the writer, except for a moment when the log is taken over.
    db.busy_timeout(Duration::from_secs(2))?;
    schema::distrust(&db)?;
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let what = format!("its folder allows no write-ahead log (journal mode {mode})");
        return Err(OpenError::Foreign {
            path: path.to_owned(),
            what,
        });
    }
    // Every commit is synced before it is answered.
    db.pragma_update(None, "synchronous", "FULL")?;
    Ok(db)
}

/// Whether the file has no tables yet: also after a first start that was interrupted.
pub(super) fn is_blank(db: &Connection) -> Result<bool, OpenError> {
    Ok(
        db.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
            row.get(0)
        })?,
    )
}

pub(super) fn create_tables(db: &mut Connection) -> Result<(), OpenError> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (_, text) in schema::OBJECTS {
        tx.execute_batch(text)?;
    }
    tx.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", schema::VERSION)?;
    Ok(tx.commit()?)
}

pub(super) fn check_tables(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let foreign = |what: String| OpenError::Foreign {
        path: path.to_owned(),
        what,
    };
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if pragma("application_id")? != schema::APPLICATION_ID {
        return Err(foreign("it belongs to another application".to_owned()));
    }
    let version = pragma("user_version")?;
    if version != schema::VERSION {
        return Err(foreign(format!(
            "it has version {version}, this is for version {}",
            schema::VERSION
        )));
    }
    let names = schema::differences(db)?.names;
    if names.is_empty() {
        Ok(())
    } else {
        Err(foreign(format!("somebody changed {}", names.join(", "))))
    }
}

pub(super) fn max_row(db: &Connection) -> rusqlite::Result<u64> {
    db.query_row("SELECT coalesce(max(row), 0) FROM rows", [], |row| {
        row.get(0)
    })
}
