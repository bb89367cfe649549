//! `bulkhead audit`: the record, read from its file. No other program is asked, so that what
//! is shown does not depend on any of them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use config::Home;
use ledger::read::{Filter, Reader};
use ledger::{key, verify};
use protocol::ids::SessionId;
use protocol::record::Row;
use protocol::time::Millis;
use scan::{Scanner, redact};
use serde_json::Value;

use crate::fault::Fault;
use crate::habits::Habits;
use crate::terminal::harmless_line;
use crate::{cards, events, output};

/// What can be said with `audit`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Read this ledger instead of the one in the home.
    #[arg(long, global = true, value_name = "FILE")]
    db: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// What happened, one event a line, oldest first.
    Log {
        /// Only this session.
        #[arg(long)]
        session: Option<SessionId>,
        /// Only the newest so many.
        #[arg(long, value_name = "COUNT")]
        last: Option<u32>,
    },
    /// One row in full.
    Show {
        /// Its number.
        row: u64,
    },
    /// Whether anything was changed, removed or left out. Needs the file and a public key only.
    Verify {
        /// The public key, instead of the one in the home.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
}

pub(crate) fn run(arguments: Arguments, home: &Home) -> Result<(), Fault> {
    let db = there(arguments.db, home)?;
    let json = arguments.json;
    match arguments.action {
        Action::Log { session, last } => log(&db, session, last, json),
        Action::Show { row } => show(&db, row, json),
        Action::Verify { key } => {
            let key = key.unwrap_or_else(|| home.ledger().join(key::PUBLIC_FILE));
            check(&db, &key, json)
        }
    }
}

/// The record of this home, or another, if there is one.
fn there(db: Option<PathBuf>, home: &Home) -> Result<PathBuf, Fault> {
    let db = db.unwrap_or_else(|| home.ledger().join("ledger.db"));
    match db.is_file() {
        true => Ok(db),
        false => Err(Fault::Refused(format!(
            "there is no record at {db:?}; the first `bulkhead up` begins one"
        ))),
    }
}

/// What the record of this home says of the last days.
pub(super) fn habits(home: &Home, days: u32) -> Result<Habits, Fault> {
    let db = there(None, home)?;
    let back = u64::from(days) * 24 * 60 * 60 * 1000;
    let mut habits = Habits::since(Millis(Millis::now().0.saturating_sub(back)));
    let filter = Filter {
        session: None,
        after: 0,
        last: None,
    };
    each(&db, &filter, |row| {
        habits.add(&row);
        ControlFlow::Continue(())
    })?;
    Ok(habits)
}

fn log(db: &Path, session: Option<SessionId>, last: Option<u32>, json: bool) -> Result<(), Fault> {
    let filter = Filter {
        session,
        after: 0,
        last,
    };
    let mut printed = Ok(());
    let mut sieve = Sieve::default();
    each(db, &filter, |row| {
        printed = sieve.pass(row).and_then(|row| match json {
            true => output::json(&row),
            false => output::line(line(&row)),
        });
        match printed {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    sieve.tell();
    printed
}

/// Keeps keys of known formats out of what is printed: rows may be older than the leak scan, and a model may
/// have written one into its call. The record is not changed; what verifies it reads the file.
struct Sieve {
    scanner: Scanner,
    /// The numbers of rows that are printed without something.
    rows: Vec<u64>,
}

impl Default for Sieve {
    fn default() -> Self {
        Self {
            scanner: Scanner::of_formats(),
            rows: Vec::new(),
        }
    }
}

impl Sieve {
    /// The row without secrets.
    fn pass(&mut self, row: Row) -> Result<Row, Fault> {
        let unreadable = |error: serde_json::Error| Fault::Refused(error.to_string());
        let mut event = serde_json::to_value(&row.event).map_err(unreadable)?;
        if !self.clean(&mut event) {
            return Ok(row);
        }
        // What has a form of its own (a name, a digest, a signature) is no free text, and only looks like a key.
        let Ok(event) = serde_json::from_value(event) else {
            return Ok(row);
        };
        self.rows.push(row.row.0);
        Ok(Row { event, ..row })
    }

    /// Whether something was taken out.
    fn clean(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => {
                let findings = self.scanner.scan(text);
                if !findings.is_empty() {
                    *text = redact(text, &findings);
                }
                !findings.is_empty()
            }
            // Each of them, also after one that held something.
            Value::Array(values) => values
                .iter_mut()
                .fold(false, |any, it| self.clean(it) | any),
            Value::Object(values) => values
                .values_mut()
                .fold(false, |any, it| self.clean(it) | any),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// Says what is missing.
    fn tell(&self) {
        const NAMED: usize = 10;
        if self.rows.is_empty() {
            return;
        }
        let named: Vec<_> = self.rows.iter().take(NAMED).map(u64::to_string).collect();
        let more = match self.rows.len() > NAMED {
            true => ", ...",
            false => "",
        };
        eprintln!(
            "bulkhead: what looks like a secret was left out of {} rows ({}{more}); the record itself still has it",
            self.rows.len(),
            named.join(", ")
        );
    }
}

fn each(db: &Path, filter: &Filter, with: impl FnMut(Row) -> ControlFlow<()>) -> Result<(), Fault> {
    let unreadable = |error: ledger::read::ReadError| Fault::Refused(format!("{db:?}: {error}"));
    let reader = Reader::open(db).map_err(unreadable)?;
    reader.each(filter, with).map_err(unreadable)
}

/// Row, time, where it belongs, kind, and what happened.
fn line(row: &Row) -> String {
    let place = match events::place(&row.event) {
        events::Place::Session => row.session.to_string(),
        events::Place::Turn(turn) => format!("{}/{turn}", row.session),
        events::Place::Call(turn, call) => format!("{}/{turn}/{call}", row.session),
    };
    format!(
        "{:>6}  {}  {place:<20}  {:<17}  {}",
        row.row.0,
        cards::shown(row.time),
        events::kind(&row.event),
        harmless_line(&events::summary(&row.event)),
    )
}

fn show(db: &Path, number: u64, json: bool) -> Result<(), Fault> {
    let missing = || Fault::Refused(format!("there is no row {number}"));
    let filter = Filter {
        session: None,
        after: number.checked_sub(1).ok_or_else(missing)?,
        last: None,
    };
    let mut found = None;
    each(db, &filter, |row| {
        found = Some(row);
        ControlFlow::Break(())
    })?;
    let row = found
        .filter(|row| row.row.0 == number)
        .ok_or_else(missing)?;
    let mut sieve = Sieve::default();
    let row = sieve.pass(row)?;
    sieve.tell();
    if json {
        return output::json(&row);
    }
    let event = serde_json::to_string_pretty(&row.event)
        .map_err(|error| Fault::Refused(error.to_string()))?;
    output::line(format!("row      {}", row.row))?;
    output::line(format!("time     {}", row.time.rfc3339()))?;
    output::line(format!("session  {}", row.session))?;
    output::line(format!("hash     {}", row.hash))?;
    output::line(crate::terminal::harmless(&event))
}

fn check(db: &Path, key: &Path, json: bool) -> Result<(), Fault> {
    let public = key::read_public(key).map_err(|error| Fault::Refused(error.to_string()))?;
    let report = verify(db, &public);
    if json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    if report.ok { Ok(()) } else { Err(Fault::Said) }
}

fn print(report: &verify::Report) -> Result<(), Fault> {
    for problem in &report.problems {
        let place = match (&problem.row, &problem.session) {
            (Some(row), Some(session)) => format!("row {row}, session {session}: "),
            (Some(row), None) => format!("row {row}: "),
            (None, Some(session)) => format!("session {session}: "),
            (None, None) => String::new(),
        };
        output::line(format!("PROBLEM  {place}{}", harmless_line(&problem.what)))?;
    }
    let verdict = match report.ok {
        true => "The record is whole",
        false => "The record is NOT whole",
    };
    output::line(format!(
        "{verdict}: {} rows in {} sessions.",
        report.rows, report.sessions
    ))?;
    if let Some(head) = &report.head {
        output::line(format!("Head over {} rows: {head}", report.tree_size))?;
    }
    if report.unsigned > 0 {
        output::line(format!(
            "{} of the newest rows are not signed yet; a turn is signed when it is over.",
            report.unsigned
        ))?;
    }
    if report.unknown > 0 {
        output::line(format!(
            "{} tool calls or undos have an unknown outcome: a program ended while they ran.",
            report.unknown
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(reply: &str) -> Row {
        let row = serde_json::json!({
            "row": 7, "time": 9, "session": "s1", "hash": "0".repeat(64),
            "event": {"kind": "reply", "turn": 1, "text": reply},
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn what_is_printed_of_a_row_holds_no_key_and_other_rows_are_as_they_were() {
        let mut sieve = Sieve::default();
        // Invented.
        let token = ["glpat-", "x7Kq2mWz9RtB4vNc8YpL"].concat();
        let passed = sieve
            .pass(row(&format!("it is {token}, so there")))
            .unwrap();
        assert_eq!(passed, row("it is [redacted: gitlab_token], so there"));
        assert_eq!(sieve.pass(row("nothing")).unwrap(), row("nothing"));
        assert_eq!(sieve.rows, [7]);
    }
}
