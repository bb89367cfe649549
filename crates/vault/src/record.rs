//! The vault's link to the ledger.

use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use protocol::event::Event;
use protocol::ids::SecretName;
use protocol::record::{LedgerReply, LedgerRequest, NewRow, system_session};
use protocol::vault::Subject;

use crate::frames::Exchange;

/// How long the ledger may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The record as the vault sees it: one kind of row, and whether it was taken.
#[derive(Default)]
pub(crate) struct Record(Mutex<Option<Exchange>>);

/// The record did not take the row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotRecorded;

impl Record {
    /// Uses this link from now on.
    pub(crate) fn replace(&self, stream: UnixStream) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Exchange::new(stream, LIMIT));
    }

    /// Records that a secret is about to be handed out; durable when this returns.
    pub(crate) fn secret_used(
        &self,
        name: &SecretName,
        subject: &Subject,
    ) -> Result<(), NotRecorded> {
        let event = Event::SecretUsed {
            name: name.clone(),
            subject: subject.clone(),
        };
        let rows = vec![NewRow {
            session: system_session(),
            event,
        }];
        let mut link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let link = link.as_mut().ok_or(NotRecorded)?;
        match link.ask(&LedgerRequest::Append { rows }) {
            Ok(LedgerReply::Appended { .. }) => Ok(()),
            Ok(LedgerReply::Failed { reason }) => refused(&reason),
            Ok(LedgerReply::Rows { .. } | LedgerReply::Sessions { .. }) => {
                refused("it answered something else")
            }
            Err(error) => refused(&error.to_string()),
        }
    }
}

fn refused(why: &str) -> Result<(), NotRecorded> {
    eprintln!("bulkhead-vault: the ledger did not take the row: {why}");
    Err(NotRecorded)
}
