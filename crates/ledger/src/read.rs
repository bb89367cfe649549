//! Reading the record's file, without the ledger and without any check but that it can be read.

use std::ops::ControlFlow;
use std::path::Path;

use protocol::ids::{Digest, RowId, SessionId};
use protocol::record::Row;
use protocol::time::Millis;
use rusqlite::{Connection, params};

use crate::schema;

/// Why the record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no file, it cannot be opened, or it is damaged.
    #[error("the record cannot be read: {0}")]
    Sql(#[from] rusqlite::Error),
    /// Another file, or one that somebody changed.
    #[error("this is not a record of this version")]
    Foreign,
    /// An event that this version does not know, or that somebody changed.
    #[error("row {0} cannot be read; look at it with `bulkhead audit verify`")]
    Row(u64),
}

/// Which rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this session.
    pub session: Option<SessionId>,
    /// Only after this row; 0 is before the first.
    pub after: u64,
    /// Only the newest so many of those.
    pub last: Option<u32>,
}

/// A record open for reading; the ledger may run meanwhile.
pub struct Reader(Connection);

impl Reader {
    /// Opens `ledger.db`.
    pub fn open(db: &Path) -> Result<Self, ReadError> {
        let db = schema::open_read_only(db)?;
        if schema::differences(&db)?.unreadable {
            Err(ReadError::Foreign)
        } else {
            Ok(Self(db))
        }
    }

    /// Gives these rows to `each`, oldest first, until there are no more or it breaks.
    pub fn each(
        &self,
        filter: &Filter,
        mut each: impl FnMut(Row) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        // With its own text for each case, as only then SQLite walks the index of the session.
        let (which, session) = match &filter.session {
            Some(session) => ("row > ?1 AND session = ?2", session.as_str()),
            None => ("row > ?1 AND ?2 = ''", ""),
        };
        // No row has a number that SQLite could not hold, so there is none after such a number.
        let mut after = i64::try_from(filter.after).unwrap_or(i64::MAX);
        if let Some(last) = filter.last {
            let first = format!(
                "SELECT min(row) - 1 FROM (SELECT row FROM rows WHERE {which} ORDER BY row DESC LIMIT ?3)"
            );
            let first: Option<i64> =
                self.0
                    .query_row(&first, params![after, session, last], |row| row.get(0))?;
            let Some(first) = first else { return Ok(()) };
            after = first;
        }
        let text =
            format!("SELECT row, time, session, event, hash FROM rows WHERE {which} ORDER BY row");
        let mut query = self.0.prepare(&text)?;
        let mut found = query.query(params![after, session])?;
        while let Some(row) = found.next()? {
            let number = row.get(0)?;
            if each(typed(number, row).ok_or(ReadError::Row(number))?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// These rows, oldest first.
    pub fn rows(&self, filter: &Filter) -> Result<Vec<Row>, ReadError> {
        let mut rows = Vec::new();
        self.each(filter, |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }
}

fn typed(number: u64, row: &rusqlite::Row<'_>) -> Option<Row> {
    let session: String = row.get(2).ok()?;
    let event = row.get_ref(3).ok()?;
    Some(Row {
        row: RowId(number),
        time: Millis(row.get(1).ok()?),
        session: SessionId::parse(session).ok()?,
        event: serde_json::from_slice(event.as_bytes().ok()?).ok()?,
        hash: Digest(row.get(4).ok()?),
    })
}
