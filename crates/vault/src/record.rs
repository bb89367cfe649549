//! The vault's link to the ledger.

use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::event::Event;
use protocol::ids::{SecretName, SessionId};
use protocol::record::{LedgerReply, LedgerRequest, NewRow, system_session, vault_session};
use protocol::vault::{Subject, VaultChange};

use crate::entries::Recorded;
use crate::frames::{Exchange, brief, timed_out};

/// How long the ledger may take, and how long its restart may.
const LIMIT: Duration = Duration::from_secs(5);

/// The record as the vault sees it: three kinds of rows, and the last of one of them.
#[derive(Default)]
pub(crate) struct Record {
    link: Mutex<Option<Exchange>>,
    came: Condvar,
}

/// The record did not take the row, or does not answer.
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
        self.append(
            system_session(),
            Event::SecretUsed {
                name: name.clone(),
                subject: subject.clone(),
            },
        )
    }

    /// Records that a decoy was asked for.
    pub(crate) fn touched(&self, name: &SecretName, subject: &Subject) -> Result<(), NotRecorded> {
        self.append(
            system_session(),
            Event::HoneytokenTouched {
                name: name.clone(),
                subject: subject.clone(),
            },
        )
    }

    /// Records that the vault changed, and what it is now; durable when this returns.
    pub(crate) fn changed(
        &self,
        now: Recorded,
        change: VaultChange,
        name: Option<SecretName>,
    ) -> Result<(), NotRecorded> {
        self.append(
            vault_session(),
            Event::VaultChanged {
                generation: now.generation,
                state: now.state,
                change,
                name,
            },
        )
    }

    /// What the record last said of the vault; none if it never said anything.
    pub(crate) fn last_change(&self) -> Result<Option<Recorded>, NotRecorded> {
        match self.ask(&LedgerRequest::LastVaultChange)? {
            LedgerReply::Rows { rows } => match rows.into_iter().next().map(|row| row.event) {
                None => Ok(None),
                Some(Event::VaultChanged {
                    generation, state, ..
                }) => Ok(Some(Recorded { generation, state })),
                Some(_) => Err(refused("the last row of the vault's chain is another one")),
            },
            LedgerReply::Failed { reason } => Err(refused(&reason)),
            LedgerReply::Appended { .. } | LedgerReply::Sessions { .. } => {
                Err(refused("it answered something else"))
            }
        }
    }

    fn append(&self, session: SessionId, event: Event) -> Result<(), NotRecorded> {
        let rows = vec![NewRow { session, event }];
        match self.ask(&LedgerRequest::Append { rows })? {
            LedgerReply::Appended { .. } => Ok(()),
            LedgerReply::Failed { reason } => Err(refused(&reason)),
            LedgerReply::Rows { .. } | LedgerReply::Sessions { .. } => {
                Err(refused("it answered something else"))
            }
        }
    }

    fn ask(&self, request: &LedgerRequest) -> Result<LedgerReply, NotRecorded> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut held = self.wait_for_link(deadline)?;
            let link = held.as_mut().ok_or(NotRecorded)?;
            match link.ask(request, deadline.saturating_duration_since(Instant::now())) {
                Ok(reply) => return Ok(reply),
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
    protocol::log!("bulkhead-vault: the ledger did not do it: {why}");
    NotRecorded
}
