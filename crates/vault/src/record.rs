//! The vault's link to the ledger.

use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::event::Event;
use protocol::ids::SecretName;
use protocol::record::{LedgerReply, LedgerRequest, NewRow, system_session};
use protocol::vault::Subject;

use crate::frames::{Exchange, brief, timed_out};

/// How long the ledger may take, and how long its restart may.
const LIMIT: Duration = Duration::from_secs(5);

/// The record as the vault sees it: one kind of row, and whether it was taken.
#[derive(Default)]
pub(crate) struct Record {
    link: Mutex<Option<Exchange>>,
    came: Condvar,
}

/// The record did not take the row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotRecorded;

impl Record {
    /// Uses this link from now on.
    pub(crate) fn replace(&self, stream: UnixStream) {
        *self.lock() = Some(Exchange::new(stream));
        self.came.notify_all();
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
        let request = LedgerRequest::Append { rows };
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut held = self.wait_for_link(deadline)?;
            let link = held.as_mut().ok_or(NotRecorded)?;
            match link.ask(&request, deadline.saturating_duration_since(Instant::now())) {
                Ok(LedgerReply::Appended { .. }) => return Ok(()),
                Ok(LedgerReply::Failed { reason }) => return Err(refused(&reason)),
                Ok(LedgerReply::Rows { .. } | LedgerReply::Sessions { .. }) => {
                    return Err(refused("it answered something else"));
                }
                Err(error) if timed_out(&error) => {
                    return Err(refused(&brief(&error)));
                }
                // The ledger ended. If it wrote the row before, the record has it twice,
                // which says no more than is true.
                Err(_) => *held = None,
            }
        }
    }

    /// The link, as soon as there is one.
    fn wait_for_link(
        &self,
        deadline: Instant,
    ) -> Result<MutexGuard<'_, Option<Exchange>>, NotRecorded> {
        let left = deadline.saturating_duration_since(Instant::now());
        let (held, wait) = self
            .came
            .wait_timeout_while(self.lock(), left, |link| link.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        if wait.timed_out() {
            return Err(refused("it is down"));
        }
        Ok(held)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Exchange>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(why: &str) -> NotRecorded {
    eprintln!("bulkhead-vault: the ledger did not take the row: {why}");
    NotRecorded
}
