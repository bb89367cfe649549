//! The tables, and how a file is opened by those who only read.

use std::path::{Path, PathBuf};

use protocol::ids::{Digest, SessionId, Signature};
use protocol::time::Millis;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use crate::chain::Head;

/// `BULK`, in the header of the file; file(1) and SQLite show it.
pub(crate) const APPLICATION_ID: i64 = 0x4255_4c4b;

/// The version of the tables.
pub(crate) const VERSION: i64 = 1;

/// What the file holds, and nothing else: the name of each object and the text that makes it.
///
/// The triggers are a seat belt for the ledger itself. Whoever can write the file can drop
/// them; what finds that is the chain.
pub(crate) const OBJECTS: [(&str, &str); 9] = [
    (
        "rows",
        "CREATE TABLE rows (row INTEGER PRIMARY KEY, time INTEGER NOT NULL, session TEXT NOT NULL, \
         seq INTEGER NOT NULL, event TEXT NOT NULL, prev BLOB NOT NULL, hash BLOB NOT NULL, \
         running BLOB NOT NULL) STRICT",
    ),
    (
        "heads",
        "CREATE TABLE heads (head INTEGER PRIMARY KEY, session TEXT NOT NULL, seq INTEGER NOT NULL, \
         row INTEGER NOT NULL, hash BLOB NOT NULL, rows INTEGER NOT NULL, running BLOB NOT NULL, \
         time INTEGER NOT NULL, signature BLOB NOT NULL) STRICT",
    ),
    // The row's number is the last column of every index.
    (
        "rows_by_session",
        "CREATE INDEX rows_by_session ON rows(session)",
    ),
    (
        "turn_marks",
        "CREATE INDEX turn_marks ON rows(session, json_extract(event, '$.turn'), \
         json_extract(event, '$.kind')) \
         WHERE json_extract(event, '$.kind') IN ('turn_started', 'reply', 'turn_failed')",
    ),
    (
        "rows_in_order",
        "CREATE TRIGGER rows_in_order BEFORE INSERT ON rows \
         WHEN new.row <> (SELECT coalesce(max(row), 0) + 1 FROM rows) \
         BEGIN SELECT raise(ABORT, 'rows are numbered without gaps'); END",
    ),
    (
        "rows_unchanged",
        "CREATE TRIGGER rows_unchanged BEFORE UPDATE ON rows \
         BEGIN SELECT raise(ABORT, 'the record is append-only'); END",
    ),
    (
        "rows_kept",
        "CREATE TRIGGER rows_kept BEFORE DELETE ON rows \
         BEGIN SELECT raise(ABORT, 'the record is append-only'); END",
    ),
    (
        "heads_unchanged",
        "CREATE TRIGGER heads_unchanged BEFORE UPDATE ON heads \
         BEGIN SELECT raise(ABORT, 'the record is append-only'); END",
    ),
    (
        "heads_kept",
        "CREATE TRIGGER heads_kept BEFORE DELETE ON heads \
         BEGIN SELECT raise(ABORT, 'the record is append-only'); END",
    ),
];

/// What [`read_head`] reads.
pub(crate) const HEAD_COLUMNS: &str =
    "head, session, seq, row, hash, rows, running, time, signature";

/// A signature and what it is said to be over; not verified. None if a column is not of its type.
pub(crate) fn read_head(row: &rusqlite::Row<'_>) -> Option<(Head, Signature)> {
    let head = Head {
        head: row.get(0).ok()?,
        session: SessionId::parse(row.get::<_, String>(1).ok()?).ok()?,
        seq: row.get(2).ok()?,
        row: row.get(3).ok()?,
        hash: Digest(row.get(4).ok()?),
        rows: row.get(5).ok()?,
        running: Digest(row.get(6).ok()?),
        time: Millis(row.get(7).ok()?),
    };
    Some((head, Signature(row.get(8).ok()?)))
}

/// How the objects of a file differ from [`OBJECTS`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// `rows` or `heads` is missing or is something else, so that nothing can be read.
    pub(crate) unreadable: bool,
    /// The names of what is missing, altered or too much.
    pub(crate) names: Vec<String>,
}

/// Compares the objects of a file with what they have to be.
pub(crate) fn differences(db: &Connection) -> rusqlite::Result<Differences> {
    let mut found = Differences::default();
    for (name, text) in OBJECTS {
        let sql: Option<Option<String>> = db
            .query_row(
                "SELECT sql FROM sqlite_schema WHERE name = ?1",
                [name],
                |row| row.get(0),
            )
            .optional()?;
        if sql.flatten().as_deref() != Some(text) {
            found.unreadable |= text.starts_with("CREATE TABLE");
            found.names.push(name.to_owned());
        }
    }
    let mut others = db.prepare("SELECT name FROM sqlite_schema")?;
    let mut others = others.query([])?;
    while let Some(row) = others.next()? {
        let name: String = row.get(0)?;
        if OBJECTS.iter().all(|(known, _)| *known != name) {
            found.names.push(name);
        }
        if found.names.len() > OBJECTS.len() * 2 {
            break;
        }
    }
    Ok(found)
}

/// Opens a record for reading only, whether or not the ledger runs. Leaves nothing behind.
pub(crate) fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let wal = PathBuf::from(format!("{}-wal", path.display()));
    // With rows still in the write-ahead log, that has to be read too. Without one the file is
    // all there is, and as SQLite would make the log otherwise, it is told that nobody writes.
    let file = if wal.exists() {
        uri(path, "mode=ro")
    } else {
        uri(path, "mode=ro&immutable=1")
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(file, flags)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    distrust(&db)?;
    Ok(db)
}

/// Settings for a file that somebody else may have written.
pub(crate) fn distrust(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    db.pragma_update(None, "cell_size_check", true)?;
    db.pragma_update(None, "mmap_size", 0)?;
    // In KiB. Rows are read in order, once.
    db.pragma_update(None, "cache_size", -512)
}

/// A `file:` URI (sqlite.org/uri.html): `%`, `?` and `#` are escaped.
fn uri(path: &Path, query: &str) -> String {
    let path = path
        .display()
        .to_string()
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    let slash = if path.starts_with("//") { "//" } else { "" };
    format!("file:{slash}{path}?{query}")
}
