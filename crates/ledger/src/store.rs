//! The rows on disk. One process has this open, and one thread of it.

mod end;
mod files;

use std::fs::File;
use std::path::Path;

use protocol::event::Event;
use protocol::ids::{Digest, PublicKey, RowId, SessionId};
use protocol::record::{NewRow, Row};
use protocol::time::Millis;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::chain::{self, Head, Link, MAX_EVENT, MAX_UNSIGNED};
use crate::key::LedgerKey;
use end::{Tip, check_end, follows, newest_of, read_tip};
use files::{check_tables, connect, create_tables, is_blank, lock, make_file, max_row};

pub use files::{OpenError, make_folder};

/// The database in the ledger's folder.
pub const DB_FILE: &str = "ledger.db";

/// The most rows in one request.
pub const MAX_ROWS: usize = 256;

/// The most bytes of events in one answer to a read; leaves room for the frame around them.
const MAX_READ: usize = 3 * 1024 * 1024;

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

    /// The last row of a session; none if it has none.
    pub fn last(&self, session: &SessionId) -> Result<Vec<Row>, StoreError> {
        let mut query = self
            .db
            .prepare_cached("SELECT coalesce(max(row), 0) FROM rows WHERE session = ?1")?;
        let last: u64 = query.query_row(params![session.as_str()], |row| row.get(0))?;
        self.read(session, RowId(last.saturating_sub(1)), 1)
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
    let (prev, seq) = follows(tx, session.as_str(), tip.rows)?;
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

#[cfg(test)]
mod tests {
    use protocol::ids::TurnId;

    use super::*;

    fn say(name: &str, text: &str) -> Write {
        let event = Event::Reply {
            turn: TurnId(1),
            text: text.to_owned(),
        };
        Write {
            rows: vec![NewRow {
                session: session(name),
                event,
            }],
            sign: None,
        }
    }

    fn session(name: &str) -> SessionId {
        SessionId::parse(name).unwrap()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    fn is_right(dir: &Path, store: &Store) -> bool {
        crate::verify(&dir.join(DB_FILE), &store.public_key()).ok
    }

    #[test]
    fn a_file_that_may_not_grow_refuses_rows_and_takes_them_again_once_it_may() {
        let (dir, mut store) = store();
        let pages: u64 = store
            .db
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .unwrap();
        store
            .db
            .pragma_update(None, "max_page_count", pages + 4)
            .unwrap();
        let big = say("a", &"x".repeat(100_000));
        assert!(matches!(
            store.write(std::slice::from_ref(&big))[..],
            [Err(StoreError::Full)]
        ));
        assert!(matches!(
            store.write(&[say("a", "small")])[..],
            [Ok(RowId(1))]
        ));
        store
            .db
            .pragma_update(None, "max_page_count", 10_000)
            .unwrap();
        assert!(matches!(store.write(&[big])[..], [Ok(RowId(2))]));
        assert!(is_right(dir.path(), &store));
    }

    #[test]
    fn a_request_that_cannot_be_written_does_not_take_the_others_with_it() {
        let (dir, mut store) = store();
        let unsigned = Write {
            sign: Some(session("nobody")),
            ..say("a", "2")
        };
        let written = store.write(&[say("a", "1"), unsigned, say("b", "3")]);
        assert!(matches!(
            written[..],
            [
                Ok(RowId(1)),
                Err(StoreError::NoSuchSession(_)),
                Ok(RowId(2))
            ]
        ));
        assert_eq!(store.read(&session("a"), RowId(0), 9).unwrap().len(), 1);
        assert!(is_right(dir.path(), &store));
    }

    #[test]
    fn requests_that_wait_together_share_one_transaction() {
        let (dir, mut store) = store();
        store
            .db
            .pragma_update(None, "wal_autocheckpoint", 0)
            .unwrap();
        // Every transaction adds the pages that it changed to the log.
        let log = || {
            std::fs::metadata(dir.path().join("ledger.db-wal"))
                .unwrap()
                .len()
        };
        let requests: Vec<_> = (0..32).map(|n| say("a", &n.to_string())).collect();
        let before = log();
        assert!(store.write(&requests).iter().all(Result::is_ok));
        let together = log() - before;
        for request in &requests {
            assert!(store.write(std::slice::from_ref(request))[0].is_ok());
        }
        let alone = log() - before - together;
        assert!(
            together * 4 < alone,
            "{together} bytes together, {alone} alone"
        );
    }

    #[test]
    fn a_signature_comes_before_too_many_rows_are_without_one() {
        let (dir, mut store) = store();
        for _ in 0..MAX_UNSIGNED - 1 {
            assert!(store.write(&[say("a", "x")])[0].is_ok());
        }
        assert!(store.has_unsigned());
        assert!(store.write(&[say("a", "x")])[0].is_ok());
        assert!(!store.has_unsigned());
        assert!(is_right(dir.path(), &store));
    }

    #[test]
    fn the_index_alone_says_which_turns_are_open() {
        let (_dir, store) = store();
        let plan: Vec<String> = store
            .db
            .prepare(&format!("EXPLAIN QUERY PLAN {UNFINISHED}"))
            .unwrap()
            .query_map([], |row| row.get(3))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(
            plan.iter()
                .any(|step| step.contains("USING COVERING INDEX turn_marks")),
            "{plan:?}"
        );
    }

    #[test]
    fn a_first_start_that_was_interrupted_is_made_good() {
        let dir = tempfile::tempdir().unwrap();
        // The file was made, the tables were not.
        std::fs::write(dir.path().join(DB_FILE), "").unwrap();
        drop(Store::open(dir.path()).unwrap());
        // The tables were made, the key was not.
        std::fs::remove_file(dir.path().join("ledger.key")).unwrap();
        std::fs::remove_file(dir.path().join("ledger.pub")).unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        assert!(store.write(&[say("a", "x")])[0].is_ok());
    }

    #[test]
    fn a_file_of_another_application_or_version_is_not_continued() {
        for pragma in ["application_id", "user_version"] {
            let (dir, store) = store();
            store.db.pragma_update(None, pragma, 99).unwrap();
            drop(store);
            assert!(
                matches!(Store::open(dir.path()), Err(OpenError::Foreign { .. })),
                "{pragma}"
            );
        }
    }
}
