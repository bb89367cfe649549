//! The rows on disk. One process has this open, and one thread of it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::event::Event;
use protocol::ids::{Digest, PublicKey, RowId, SessionId, Signature};
use protocol::record::{NewRow, Row};
use protocol::time::Millis;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params,
};

use crate::chain::{self, GENESIS, Head, Link, MAX_EVENT, MAX_UNSIGNED};
use crate::key::{KeyError, LedgerKey};
use crate::schema;

/// The database in the ledger's folder.
pub const DB_FILE: &str = "ledger.db";

/// Locked for as long as a ledger has the folder open.
const LOCK_FILE: &str = "ledger.lock";

/// The most rows in one request.
pub const MAX_ROWS: usize = 256;

/// The most bytes of events in one answer to a read; leaves room for the frame around them.
const MAX_READ: usize = 3 * 1024 * 1024;

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

/// Why nothing was written, or nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A request without rows.
    #[error("a request has at least one row")]
    Empty,
    /// Too many rows at once.
    #[error("a request has at most {MAX_ROWS} rows")]
    TooMany,
    /// The event is too large.
    #[error("an event has at most {MAX_EVENT} bytes, this one has {0}")]
    TooLarge(usize),
    /// The event has no JSON.
    #[error("an event cannot be written as JSON: {0}")]
    Json(serde_json::Error),
    /// A head can only be signed of a chain that has a row.
    #[error("session {0} has no rows, so there is no head to sign")]
    NoSuchSession(SessionId),
    /// A row of this record that this version cannot read.
    #[error("row {0} does not hold an event that this version knows")]
    Unreadable(u64),
    /// The disk is full, or the file may not grow.
    #[error("the disk that holds the record is full; make room and try again")]
    Full,
    /// SQLite, or the system below it.
    #[error("the record cannot be written: {0}")]
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            Some(_) | None => Self::Sql(error),
        }
    }
}

/// Rows that are written together or not at all.
#[derive(Clone, Debug)]
pub struct Write {
    /// In this order; at least one and at most [`MAX_ROWS`].
    pub rows: Vec<NewRow>,
    /// Whose head is signed with them, if any.
    pub sign: Option<SessionId>,
}

/// The open record.
pub struct Store {
    db: Connection,
    key: LedgerKey,
    /// None after a write that failed: then the file is asked again.
    tip: Option<Tip>,
    _lock: File,
}

/// Where the record ends.
#[derive(Clone, Copy, Debug)]
struct Tip {
    rows: u64,
    running: Digest,
    heads: u64,
    /// Rows after the last signed head.
    unsigned: u64,
}

impl Store {
    /// Opens the record of a folder, or begins one in a folder that has none.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let lock = lock(dir)?;
        let path = dir.join(DB_FILE);
        let began = make_file(&path)?;
        let mut db = connect(&path)?;
        if began || is_blank(&db)? {
            if LedgerKey::load(dir)?.is_some() {
                // A file without tables beside a key is not a record; left so that it is not one next time either.
                return Err(OpenError::RecordGone(dir.to_owned()));
            }
            create_tables(&mut db)?;
        }
        check_tables(&db, &path)?;
        let key = match LedgerKey::load(dir)? {
            Some(key) => key,
            None if max_row(&db)? == 0 => LedgerKey::create(dir)?,
            None => return Err(OpenError::KeyGone(dir.to_owned())),
        };
        key.publish(dir)?;
        let tip = check_end(&db, &key.public())?;
        Ok(Self {
            db,
            key,
            tip: Some(tip),
            _lock: lock,
        })
    }

    /// The key that verifies this record.
    pub fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    /// Writes these requests with one sync where possible; each is durable as a whole when
    /// its answer is `Ok`, and left no row when it is not. The answers have the order of the requests.
    ///
    /// The number is that of the request's first row; the others follow it.
    pub fn write(&mut self, requests: &[Write]) -> Vec<Result<RowId, StoreError>> {
        match self.commit(requests) {
            Ok(firsts) => firsts.into_iter().map(Ok).collect(),
            Err(error) if requests.len() == 1 => vec![Err(error)],
            // One that cannot be written must not take the others with it.
            Err(_) => requests.iter().map(|one| self.commit_one(one)).collect(),
        }
    }

    /// Signs the head of the newest row's session if there are rows that no signature covers.
    pub fn sign_rest(&mut self) -> Result<(), StoreError> {
        let tx = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut tip = match self.tip.take() {
            Some(tip) => tip,
            None => read_tip(&tx)?,
        };
        if tip.unsigned > 0 {
            sign_newest(&tx, &self.key, &mut tip)?;
        }
        tx.commit()?;
        self.tip = Some(tip);
        Ok(())
    }

    /// Whether there are rows that no signature covers.
    pub fn has_unsigned(&self) -> bool {
        self.tip.is_none_or(|tip| tip.unsigned > 0)
    }

    /// Rows of a session after this one, oldest first: at most `limit`, and at most as many as
    /// fit a frame. None means that there are no more.
    pub fn read(
        &self,
        session: &SessionId,
        after: RowId,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let mut query = self.db.prepare_cached(
            "SELECT row, time, hash, event FROM rows WHERE session = ?1 AND row > ?2 ORDER BY row LIMIT ?3",
        )?;
        // No row has a number that SQLite could not hold, so there is none after such a number.
        let after = i64::try_from(after.0).unwrap_or(i64::MAX);
        let mut found = query.query(params![session.as_str(), after, limit])?;
        let (mut rows, mut size) = (Vec::new(), 0);
        while let Some(row) = found.next()? {
            let (number, event): (u64, &str) = (
                row.get(0)?,
                row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?,
            );
            size += event.len();
            if size > MAX_READ && !rows.is_empty() {
                break;
            }
            rows.push(Row {
                row: RowId(number),
                time: Millis(row.get(1)?),
                session: session.clone(),
                event: serde_json::from_str(event).map_err(|_| StoreError::Unreadable(number))?,
                hash: Digest(row.get(2)?),
            });
        }
        Ok(rows)
    }

    /// The sessions with a turn that started and did not end, in the order of their oldest open turn.
    pub fn unfinished(&self) -> Result<Vec<SessionId>, StoreError> {
        let mut query = self.db.prepare_cached(UNFINISHED)?;
        let mut found = query.query([])?;
        let mut sessions = Vec::new();
        while let Some(row) = found.next()? {
            let (session, oldest): (String, u64) = (row.get(0)?, row.get(1)?);
            sessions.push(SessionId::parse(session).map_err(|_| StoreError::Unreadable(oldest))?);
        }
        Ok(sessions)
    }

    fn commit_one(&mut self, request: &Write) -> Result<RowId, StoreError> {
        let firsts = self.commit(std::slice::from_ref(request))?;
        firsts.first().copied().ok_or(StoreError::Empty)
    }

    fn commit(&mut self, requests: &[Write]) -> Result<Vec<RowId>, StoreError> {
        let encoded = requests.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let tx = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut tip = match self.tip.take() {
            Some(tip) => tip,
            None => read_tip(&tx)?,
        };
        let mut firsts = Vec::with_capacity(requests.len());
        for (request, events) in requests.iter().zip(encoded) {
            firsts.push(RowId(tip.rows + 1));
            for (row, event) in request.rows.iter().zip(events) {
                append(&tx, &mut tip, &row.session, &event)?;
            }
            match &request.sign {
                Some(session) => sign(&tx, &self.key, &mut tip, session)?,
                None if tip.unsigned >= MAX_UNSIGNED => sign_newest(&tx, &self.key, &mut tip)?,
                None => {}
            }
        }
        tx.commit()?;
        self.tip = Some(tip);
        Ok(firsts)
    }
}

/// The index `turn_marks` alone answers this.
const UNFINISHED: &str = "
    SELECT session, min(oldest) AS oldest FROM (
        SELECT session, min(row) AS oldest FROM rows
        WHERE json_extract(event, '$.kind') IN ('turn_started', 'reply', 'turn_failed')
        GROUP BY session, json_extract(event, '$.turn')
        HAVING min(json_extract(event, '$.kind') = 'turn_started') = 1)
    GROUP BY session ORDER BY oldest";

fn lock(dir: &Path) -> Result<File, OpenError> {
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
fn make_file(path: &Path) -> Result<bool, OpenError> {
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

fn connect(path: &Path) -> Result<Connection, OpenError> {
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
fn is_blank(db: &Connection) -> Result<bool, OpenError> {
    Ok(
        db.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| {
            row.get(0)
        })?,
    )
}

fn create_tables(db: &mut Connection) -> Result<(), OpenError> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (_, text) in schema::OBJECTS {
        tx.execute_batch(text)?;
    }
    tx.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", schema::VERSION)?;
    Ok(tx.commit()?)
}

fn check_tables(db: &Connection, path: &Path) -> Result<(), OpenError> {
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

fn max_row(db: &Connection) -> rusqlite::Result<u64> {
    db.query_row("SELECT coalesce(max(row), 0) FROM rows", [], |row| {
        row.get(0)
    })
}

/// The tables are checked and the chain was intact when it was opened, so the end is what it says.
fn read_tip(db: &Connection) -> rusqlite::Result<Tip> {
    let last = "SELECT row, running FROM rows ORDER BY row DESC LIMIT 1";
    let last = db
        .query_row(last, [], |row| Ok((row.get(0)?, Digest(row.get(1)?))))
        .optional()?;
    let (rows, running) = last.unwrap_or((0, GENESIS));
    let signed = "SELECT head, rows FROM heads ORDER BY head DESC LIMIT 1";
    let signed = db
        .query_row(signed, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (heads, covered): (u64, u64) = signed.unwrap_or((0, 0));
    Ok(Tip {
        rows,
        running,
        heads,
        unsigned: rows.saturating_sub(covered),
    })
}

/// Checks the last signature and every row after it.
fn check_end(db: &Connection, key: &PublicKey) -> Result<Tip, OpenError> {
    let tip = read_tip(db)?;
    let damaged = |row, what| OpenError::Damaged { row, what };
    let mut running = GENESIS;
    let covered = tip.rows - tip.unsigned;
    if let Some((head, signature)) = last_head(db)? {
        if head.rows > tip.rows {
            return Err(damaged(
                tip.rows + 1,
                "a signature covers this row, but it is missing",
            ));
        }
        if !head.signed_by(key, &signature) {
            return Err(damaged(
                head.rows,
                "the signature over the record up to here is not right",
            ));
        }
        let at: Option<Digest> = db
            .query_row(
                "SELECT running FROM rows WHERE row = ?1",
                [head.rows],
                |row| row.get(0).map(Digest),
            )
            .optional()?;
        let newest = newest_of(db, head.session.as_str(), head.rows)?;
        if at != Some(head.running) || newest != Some((head.row, head.seq, head.hash)) {
            return Err(damaged(head.rows, "the signature is of another record"));
        }
        running = head.running;
    }
    if tip.unsigned > MAX_UNSIGNED {
        return Err(damaged(
            covered + 1,
            "too many rows follow the last signature",
        ));
    }
    let mut query = db.prepare(
        "SELECT row, time, session, seq, event, prev, hash, running FROM rows WHERE row > ?1 ORDER BY row",
    )?;
    let mut found = query.query([covered])?;
    let mut expected = covered + 1;
    while let Some(row) = found.next()? {
        let number: u64 = row.get(0)?;
        let session: String = row.get(2)?;
        let (prev, seq) = match newest_of(db, &session, number - 1)? {
            Some((_, seq, hash)) => (hash, seq + 1),
            None => (GENESIS, 1),
        };
        let event: String = row.get(4)?;
        let link = Link {
            row: number,
            time: Millis(row.get(1)?),
            session: session.as_bytes(),
            seq,
            prev,
            event: event.as_bytes(),
        };
        let hash = link.hash();
        running = chain::running(number, running, hash);
        let stored = (
            row.get::<_, u64>(3)?,
            Digest(row.get(5)?),
            Digest(row.get(6)?),
            Digest(row.get(7)?),
        );
        if number != expected || stored != (seq, prev, hash, running) {
            return Err(damaged(expected, "it does not follow the row before it"));
        }
        expected += 1;
    }
    Ok(tip)
}

fn last_head(db: &Connection) -> Result<Option<(Head, Signature)>, OpenError> {
    let mut query = db.prepare(
        "SELECT head, session, seq, row, hash, rows, running, time, signature FROM heads ORDER BY head DESC LIMIT 1",
    )?;
    let mut found = query.query([])?;
    let Some(row) = found.next()? else {
        return Ok(None);
    };
    let covered: u64 = row.get(5)?;
    let session = SessionId::parse(row.get::<_, String>(1)?);
    let session = session.map_err(|_| OpenError::Damaged {
        row: covered,
        what: "the signature names no session",
    })?;
    let head = Head {
        head: row.get(0)?,
        session,
        seq: row.get(2)?,
        row: row.get(3)?,
        hash: Digest(row.get(4)?),
        rows: covered,
        running: Digest(row.get(6)?),
        time: Millis(row.get(7)?),
    };
    Ok(Some((head, Signature(row.get(8)?))))
}

/// Row, sequence number and hash of a session's newest row that is not after `up_to`.
fn newest_of(
    db: &Connection,
    session: &str,
    up_to: u64,
) -> rusqlite::Result<Option<(u64, u64, Digest)>> {
    db.prepare_cached(
        "SELECT row, seq, hash FROM rows WHERE session = ?1 AND row <= ?2 ORDER BY row DESC LIMIT 1",
    )?
    .query_row(params![session, up_to], |row| Ok((row.get(0)?, row.get(1)?, Digest(row.get(2)?))))
    .optional()
}

/// The events' JSON, if the request can be written at all.
fn encode(request: &Write) -> Result<Vec<String>, StoreError> {
    match request.rows.len() {
        0 => return Err(StoreError::Empty),
        1..=MAX_ROWS => {}
        _ => return Err(StoreError::TooMany),
    }
    let encode = |event: &Event| {
        let json = serde_json::to_string(event).map_err(StoreError::Json)?;
        if json.len() > MAX_EVENT {
            Err(StoreError::TooLarge(json.len()))
        } else {
            Ok(json)
        }
    };
    request.rows.iter().map(|row| encode(&row.event)).collect()
}

fn append(
    tx: &Transaction<'_>,
    tip: &mut Tip,
    session: &SessionId,
    event: &str,
) -> Result<(), StoreError> {
    let (row, time) = (tip.rows + 1, Millis::now());
    let (prev, seq) = match newest_of(tx, session.as_str(), tip.rows)? {
        Some((_, seq, hash)) => (hash, seq + 1),
        None => (GENESIS, 1),
    };
    let link = Link {
        row,
        time,
        session: session.as_str().as_bytes(),
        seq,
        prev,
        event: event.as_bytes(),
    };
    let hash = link.hash();
    let running = chain::running(row, tip.running, hash);
    tx.prepare_cached("INSERT INTO rows VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute(params![
            row,
            time.0,
            session.as_str(),
            seq,
            event,
            prev.0,
            hash.0,
            running.0
        ])?;
    *tip = Tip {
        rows: row,
        running,
        heads: tip.heads,
        unsigned: tip.unsigned + 1,
    };
    Ok(())
}

fn sign_newest(tx: &Transaction<'_>, key: &LedgerKey, tip: &mut Tip) -> Result<(), StoreError> {
    let session: String = tx.query_row(
        "SELECT session FROM rows WHERE row = ?1",
        [tip.rows],
        |row| row.get(0),
    )?;
    let session = SessionId::parse(session).map_err(|_| StoreError::Unreadable(tip.rows))?;
    sign(tx, key, tip, &session)
}

fn sign(
    tx: &Transaction<'_>,
    key: &LedgerKey,
    tip: &mut Tip,
    session: &SessionId,
) -> Result<(), StoreError> {
    let newest = newest_of(tx, session.as_str(), tip.rows)?;
    let (row, seq, hash) = newest.ok_or_else(|| StoreError::NoSuchSession(session.clone()))?;
    let head = Head {
        head: tip.heads + 1,
        session: session.clone(),
        seq,
        row,
        hash,
        rows: tip.rows,
        running: tip.running,
        time: Millis::now(),
    };
    let signature = key.sign(&head);
    tx.prepare_cached("INSERT INTO heads VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
        .execute(params![
            head.head,
            session.as_str(),
            seq,
            row,
            hash.0,
            tip.rows,
            tip.running.0,
            head.time.0,
            signature.0
        ])?;
    *tip = Tip {
        heads: head.head,
        unsigned: 0,
        ..*tip
    };
    Ok(())
}

/// Makes a folder that only its owner can enter, or takes the others' rights to it away.
pub fn make_folder(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        Err(_) | Ok(()) => {}
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}
