//! Whether the record is whole and what its signatures say, from the file and a public key alone.
//!
//! What this cannot see: that a file was replaced by an older copy of itself, or that rows
//! after the last signature were cut off. For that somebody else has to know a later head.

mod calls;
mod freezes;
mod undos;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use protocol::event::Event;
use protocol::ids::{Digest, PublicKey, RowId, SessionId, Signature};
use protocol::time::Millis;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Rows};
use serde::Serialize;

use crate::chain::{self, GENESIS, Head, Link, MAX_UNSIGNED};
use crate::schema::{self, HEAD_COLUMNS, read_head};

use calls::Calls;
use freezes::Freezes;
use undos::Undos;

/// The most problems listed; a record with so many is not looked at further.
pub const MAX_PROBLEMS: usize = 1000;

/// What was found. Serialises as `audit verify --json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether there is no problem.
    pub ok: bool,
    /// How many rows there are.
    pub rows: u64,
    /// How many sessions they belong to.
    pub sessions: u64,
    /// How many rows the running hash covers.
    pub tree_size: u64,
    /// The running hash over all rows; none if there are no rows.
    pub head: Option<Digest>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// How many tool calls and undos nobody knows the outcome of; that is no problem of the record.
    #[serde(skip)]
    pub unknown: u64,
    /// How many of the newest rows no signature covers yet.
    #[serde(skip)]
    pub unsigned: u64,
}

/// Something that is not as the ledger writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// In or after which row; none if it is not about one.
    pub row: Option<u64>,
    /// In whose chain, if that can be told.
    pub session: Option<SessionId>,
    /// What is wrong.
    pub what: String,
}

/// Verifies a record's file, also while the ledger runs. Writes nothing.
pub fn verify(db: &Path, public_key: &PublicKey) -> Report {
    let log = PathBuf::from(format!("{}-wal", db.display()));
    let alone = !log.exists();
    let report = replay(db, public_key);
    // A ledger that began to write in between makes a file that was read without its log look damaged.
    if !report.ok && alone && log.exists() {
        replay(db, public_key)
    } else {
        report
    }
}

fn replay(path: &Path, key: &PublicKey) -> Report {
    let mut found = Found::default();
    let result = schema::open_read_only(path).and_then(|db| {
        // One snapshot for everything that is read.
        db.execute_batch("BEGIN")?;
        found.check_file(&db, key)
    });
    if let Err(error) = result {
        found.problem(None, None, format!("the file cannot be read: {error}"));
    }
    found.report()
}

/// A signature and what it is said to be over, not believed yet.
type Signed = (Head, Signature);

/// A session as far as it was read.
#[derive(Default)]
struct Session {
    row: u64,
    seq: u64,
    hash: Option<Digest>,
    calls: Calls,
}

#[derive(Default)]
struct Found {
    rows: u64,
    /// The number of the newest row.
    last: u64,
    /// The running hash that the newest row has.
    running: Option<Digest>,
    sessions: HashMap<SessionId, Session>,
    undos: Undos,
    freezes: Freezes,
    /// The number of the newest signature, and how many rows the newest right one covers.
    heads: u64,
    covered: u64,
    problems: Vec<Problem>,
}

impl Found {
    fn problem(&mut self, row: Option<u64>, session: Option<&SessionId>, what: impl Into<String>) {
        self.problems.push(Problem {
            row,
            session: session.cloned(),
            what: what.into(),
        });
    }

    fn is_full(&self) -> bool {
        self.problems.len() >= MAX_PROBLEMS
    }

    fn check_file(&mut self, db: &Connection, key: &PublicKey) -> rusqlite::Result<()> {
        let differences = schema::differences(db)?;
        for name in &differences.names {
            self.problem(
                None,
                None,
                format!("`{name}` is missing, altered or does not belong in a record"),
            );
        }
        if differences.unreadable {
            return Ok(());
        }
        let walked = self.walk(db, key);
        if let Err(error) = &walked {
            let row = self.last + 1;
            self.problem(
                Some(row),
                None,
                format!("the file is damaged here: {error}"),
            );
        }
        self.check_pages(db)
    }

    /// All rows in order, and each signature when all that it covers was read.
    fn walk(&mut self, db: &Connection, key: &PublicKey) -> rusqlite::Result<()> {
        let mut rows = db.prepare(
            "SELECT row, time, session, seq, event, prev, hash, running FROM rows ORDER BY row",
        )?;
        let mut heads = db.prepare(&format!("SELECT {HEAD_COLUMNS} FROM heads ORDER BY head"))?;
        let (mut rows, mut heads) = (rows.query([])?, heads.query([])?);
        let mut waiting = self.next_head(&mut heads)?;
        while let Some(row) = rows.next()? {
            self.check_row(row)?;
            while let Some(signed) = waiting.take_if(|(head, _)| head.rows <= self.last) {
                self.check_head(&signed, key);
                waiting = self.next_head(&mut heads)?;
            }
            if self.is_full() {
                return Ok(());
            }
        }
        while let Some((head, signature)) = waiting {
            let what = match head.signed_by(key, &signature) {
                true => format!(
                    "this row and all up to row {} are missing: signature {} covers them",
                    head.rows, head.head
                ),
                false => format!(
                    "signature {} covers {} rows, which are not there, and is not right",
                    head.head, head.rows
                ),
            };
            self.problem(Some(self.last + 1), Some(&head.session), what);
            if self.is_full() {
                return Ok(());
            }
            waiting = self.next_head(&mut heads)?;
        }
        self.check_rest();
        Ok(())
    }

    fn check_row(&mut self, row: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
        self.rows += 1;
        let number: i64 = row.get(0)?;
        let Some(number) = u64::try_from(number)
            .ok()
            .filter(|number| *number > self.last)
        else {
            self.problem(
                Some(self.last + 1),
                None,
                format!("a row has the number {number}"),
            );
            return Ok(());
        };
        match number - self.last {
            1 => {}
            2 => self.problem(Some(self.last + 1), None, "the row is missing"),
            _ => self.problem(
                Some(self.last + 1),
                None,
                format!("the rows up to {} are missing", number - 1),
            ),
        }
        self.last = number;
        match Stored::read(row) {
            Ok(stored) => self.check_stored(number, &stored),
            Err(column) => self.problem(Some(number), None, format!("{column} is not of its type")),
        }
        Ok(())
    }

    fn check_stored(&mut self, number: u64, stored: &Stored<'_>) {
        let Stored {
            time,
            session: name,
            seq,
            event,
            prev,
            hash,
            running,
        } = *stored;
        let id = std::str::from_utf8(name)
            .ok()
            .and_then(|name| SessionId::parse(name).ok());
        let mut wrong = Vec::new();
        let link = Link {
            row: number,
            time: Millis(time),
            session: name,
            seq,
            prev,
            event,
        };
        if link.hash() != hash {
            wrong.push("its hash is not that of its content".to_owned());
        }
        if chain::running(number, self.running.unwrap_or(GENESIS), hash) != running {
            wrong.push("the running hash does not continue that of the row before it".to_owned());
        }
        // From here on with what is stored, so that one altered row is one problem.
        self.running = Some(running);
        match &id {
            None => wrong.push("its session has no valid name".to_owned()),
            Some(id) => {
                let state = self.sessions.entry(id.clone()).or_default();
                if seq != state.seq + 1 {
                    wrong.push(format!(
                        "it is number {seq} of its session, but follows number {}",
                        state.seq
                    ));
                }
                if prev != state.hash.unwrap_or(GENESIS) {
                    wrong.push("it does not continue its session's chain".to_owned());
                }
                (state.row, state.seq, state.hash) = (number, seq, Some(hash));
                match serde_json::from_slice::<Event>(event) {
                    Ok(event) => {
                        wrong.extend(state.calls.check(&event));
                        wrong.extend(self.undos.check(RowId(number), id, &event));
                        wrong.extend(self.freezes.check(id, &event));
                    }
                    Err(_) => wrong.push("its event is not one that this version knows".to_owned()),
                }
            }
        }
        for what in wrong {
            self.problem(Some(number), id.as_ref(), what);
        }
    }

    /// The next signature whose columns can be read.
    fn next_head(&mut self, heads: &mut Rows<'_>) -> rusqlite::Result<Option<Signed>> {
        while let Some(row) = heads.next()? {
            let number: i64 = row.get(0)?;
            if u64::try_from(number).ok() != Some(self.heads + 1) {
                let what = format!("signature {} is followed by signature {number}", self.heads);
                self.problem(None, None, what);
            }
            self.heads = u64::try_from(number).unwrap_or(self.heads);
            match read_head(row) {
                Some(signed) => return Ok(Some(signed)),
                None => {
                    let covers = row.get(5).ok();
                    self.problem(covers, None, format!("signature {number} cannot be read"));
                }
            }
            if self.is_full() {
                break;
            }
        }
        Ok(None)
    }

    fn check_head(&mut self, (head, signature): &Signed, key: &PublicKey) {
        let newest = self
            .sessions
            .get(&head.session)
            .map(|state| (state.row, state.seq, state.hash));
        let what = if !head.signed_by(key, signature) {
            "is not right"
        } else if head.rows != self.last || Some(head.running) != self.running {
            "is of other rows than these"
        } else if newest != Some((head.row, head.seq, Some(head.hash))) {
            "is of another chain of its session"
        } else {
            self.covered = head.rows;
            return;
        };
        let what = format!("signature {} over the record up to here {what}", head.head);
        self.problem(Some(head.rows), Some(&head.session), what);
    }

    /// What is only known when all was read.
    fn check_rest(&mut self) {
        if self.last - self.covered > MAX_UNSIGNED {
            let what = format!(
                "no right signature covers this row and the {} after it",
                self.last - self.covered - 1
            );
            self.problem(Some(self.covered + 1), None, what);
        }
        let mut open: Vec<_> = self
            .sessions
            .iter()
            .flat_map(|(id, state)| {
                state
                    .calls
                    .left_open()
                    .into_iter()
                    .map(|what| (state.row, id.clone(), what))
            })
            .collect();
        open.sort();
        for (row, session, what) in open.into_iter().take(MAX_PROBLEMS) {
            self.problem(Some(row), Some(&session), what);
        }
    }

    /// SQLite's own check of pages, tables and indexes: an index that leaves rows out would
    /// hide them from the ledger's own reads.
    fn check_pages(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let mut check = db.prepare("PRAGMA integrity_check(10)")?;
        let mut lines = check.query([])?;
        while let Some(line) = lines.next()? {
            let line: String = line.get(0)?;
            if line != "ok" {
                self.problem(None, None, format!("the file is damaged: {line}"));
            }
        }
        Ok(())
    }

    fn report(self) -> Report {
        Report {
            ok: self.problems.is_empty(),
            rows: self.rows,
            sessions: self.sessions.len() as u64,
            tree_size: self.last,
            head: self.running,
            unknown: self
                .sessions
                .values()
                .map(|state| state.calls.unknown())
                .chain([self.undos.unknown()])
                .sum(),
            unsigned: self.last - self.covered,
            problems: self.problems,
        }
    }
}

/// The columns of a row, typed but not believed.
#[derive(Clone, Copy)]
struct Stored<'a> {
    time: u64,
    session: &'a [u8],
    seq: u64,
    event: &'a [u8],
    prev: Digest,
    hash: Digest,
    running: Digest,
}

impl<'a> Stored<'a> {
    /// The name of the first column that is not of its type, if one is not.
    fn read(row: &'a rusqlite::Row<'_>) -> Result<Self, &'static str> {
        Ok(Self {
            time: row.get(1).map_err(|_| "its time")?,
            session: text(row, 2).ok_or("its session")?,
            seq: row.get(3).map_err(|_| "its sequence number")?,
            event: text(row, 4).ok_or("its event")?,
            prev: Digest(row.get(5).map_err(|_| "its previous hash")?),
            hash: Digest(row.get(6).map_err(|_| "its hash")?),
            running: Digest(row.get(7).map_err(|_| "its running hash")?),
        })
    }
}

fn text<'a>(row: &'a rusqlite::Row<'_>, column: usize) -> Option<&'a [u8]> {
    match row.get_ref(column) {
        Ok(ValueRef::Text(bytes)) => Some(bytes),
        Ok(ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_))
        | Err(_) => None,
    }
}
