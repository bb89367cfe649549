//! The gateway's hold on the record: no row, no effect.

use std::os::unix::net::UnixStream;

use ledger::client::{LedgerClient, LedgerError, Recorded};
use protocol::event::Event;
use protocol::ids::{RowId, SessionId};
use protocol::operator::RecordStatus;
use protocol::record::{NewRow, Recordable, Row};

use super::Gateway;

/// The record did not take it. Nothing that depends on it may happen.
#[derive(Debug, thiserror::Error)]
#[error("the record cannot be written: {0}")]
pub(super) struct RecordLost(String);

/// The link to the ledger, while there is one.
#[derive(Default)]
pub(super) struct Record {
    client: Option<LedgerClient>,
    lost: bool,
}

impl Record {
    /// A new link came.
    pub(super) fn linked(&mut self, stream: UnixStream) {
        self.client = Some(LedgerClient::new(stream));
    }

    /// Whether there is a link that still works.
    pub(super) fn is_linked(&self) -> bool {
        self.client.as_ref().is_some_and(LedgerClient::is_connected)
    }

    /// Whether the last row was written.
    fn status(&self) -> RecordStatus {
        match (&self.client, self.lost) {
            (Some(_), false) => RecordStatus::Ok,
            _ => RecordStatus::Unavailable,
        }
    }

    /// Writes rows of one session, all or none.
    pub(super) fn write(
        &mut self,
        session: &SessionId,
        events: Vec<Event>,
    ) -> Result<(), RecordLost> {
        let rows = rows(session, events);
        self.with(|client| client.append(rows)).map(drop)
    }

    /// Writes rows of one session and has the head of its chain signed.
    pub(super) fn write_and_sign(
        &mut self,
        session: &SessionId,
        events: Vec<Event>,
    ) -> Result<(), RecordLost> {
        let (rows, session) = (rows(session, events), session.clone());
        self.with(|client| client.append_and_sign(rows, session))
            .map(drop)
    }

    /// Writes these rows and then the thing itself; the proof is what may be acted upon.
    pub(super) fn record<T: Recordable>(
        &mut self,
        session: &SessionId,
        before: Vec<Event>,
        thing: T,
    ) -> Result<Recorded<T>, RecordLost> {
        let before = rows(session, before);
        self.with(|client| client.record_with(thing, before))
    }

    /// All rows of a session.
    pub(super) fn read(&mut self, session: &SessionId) -> Result<Vec<Row>, RecordLost> {
        let mut all: Vec<Row> = Vec::new();
        loop {
            let after = all.last().map_or(RowId(0), |row| row.row);
            let page = self.with(|client| client.read(session, after, 200))?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// The sessions with a turn that started and did not end.
    pub(super) fn unfinished(&mut self) -> Result<Vec<SessionId>, RecordLost> {
        self.with(|client| client.unfinished())
    }

    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut LedgerClient) -> Result<T, LedgerError>,
    ) -> Result<T, RecordLost> {
        let result = match &mut self.client {
            Some(client) => work(client).map_err(|error| RecordLost(error.to_string())),
            None => Err(RecordLost("its program is not there".to_owned())),
        };
        self.lost = result.is_err();
        result
    }
}

impl Gateway {
    /// Whether messages are taken. The record alone does not tell: they stand in the gateway's own
    /// database as well, which may lie on the same full disk and notice first.
    pub(super) fn record_status(&self) -> RecordStatus {
        match self.state.takes_messages() {
            true => self.record.status(),
            false => RecordStatus::Unavailable,
        }
    }
}

fn rows(session: &SessionId, events: Vec<Event>) -> Vec<NewRow> {
    events
        .into_iter()
        .map(|event| NewRow {
            session: session.clone(),
            event,
        })
        .collect()
}
