//! The operator's connection: first the proof, then what only the operator may do.

use std::mem;

use protocol::frame::LinkError;
use protocol::identity::proves;
use protocol::ids::{Nonce, SecretName};
use protocol::time::Millis;
use protocol::vault::{VaultChange, VaultReply, VaultRequest, VaultState};
use zeroize::Zeroizing;

use crate::backup::MAX_BACKUP;
use crate::client::vault_identity;
use crate::fault::StoreError;
use crate::handle::{Journal, Refusal, Seen, Vault};
use crate::record::Record;
use crate::store::Store;

/// How much of a backup goes into one frame, in bytes.
pub(crate) const PART: usize = 1024 * 1024;

/// How far the operator's connection is.
pub(crate) enum Operator {
    /// Has to answer this.
    Challenged(Nonce),
    /// Has proven to hold the operator key.
    Proven(Desk),
}

/// What lies between two requests of one connection; sealed, all of it.
#[derive(Default)]
pub(crate) struct Desk {
    /// A backup on its way out.
    outgoing: String,
    /// One on its way in.
    incoming: String,
}

impl Vault {
    /// A request over the operator's connection, and the phase after it; without one the
    /// connection ends.
    pub(crate) fn operator(
        &self,
        phase: Operator,
        request: VaultRequest,
    ) -> Result<(Option<Operator>, VaultReply), LinkError> {
        match phase {
            Operator::Challenged(nonce) => self.prove(nonce, request),
            Operator::Proven(mut desk) => {
                let reply = self.manage(&mut desk, request)?;
                Ok((
                    Some(Operator::Proven(desk)),
                    reply.unwrap_or_else(Refusal::reply),
                ))
            }
        }
    }

    fn prove(
        &self,
        nonce: Nonce,
        request: VaultRequest,
    ) -> Result<(Option<Operator>, VaultReply), LinkError> {
        let VaultRequest::Prove { signature } = request else {
            return Err(LinkError::OutOfOrder {
                expected: "prove",
                got: request.name(),
            });
        };
        if proves(&self.operator, &vault_identity(), nonce, &signature) {
            return Ok((Some(Operator::Proven(Desk::default())), VaultReply::Done));
        }
        protocol::log!("bulkhead-vault: somebody without the operator key tried to connect");
        let reason = "this is not the operator key that the vault knows".to_owned();
        Ok((None, VaultReply::Refused { reason }))
    }

    fn manage(
        &self,
        desk: &mut Desk,
        request: VaultRequest,
    ) -> Result<Result<VaultReply, Refusal>, LinkError> {
        Ok(match request {
            VaultRequest::Add {
                name,
                subject,
                terms,
                value,
            } => self.change(VaultChange::Added, Some(name.clone()), |store| {
                store.add(name, subject, terms, &value)
            }),
            VaultRequest::Rotate {
                name,
                value,
                expires,
                rotate_by,
            } => self.change(VaultChange::Rotated, Some(name.clone()), |store| {
                store.rotate(name, &value, expires, rotate_by)
            }),
            VaultRequest::Remove { name } => {
                self.change(VaultChange::Removed, Some(name.clone()), |store| {
                    store.remove(&name)
                })
            }
            VaultRequest::Protect { with } => {
                self.change(VaultChange::Protected, None, |store| store.protect(&with))
            }
            VaultRequest::List => self.list(),
            VaultRequest::State => Ok(self.state()),
            VaultRequest::Marks { after } => self.marks(after),
            VaultRequest::Unlock { with } => self.unlock(&with),
            VaultRequest::Lock => self.lock(),
            VaultRequest::Backup { passphrase } => self.backup(desk, &passphrase),
            VaultRequest::BackupPart { from } => Ok(desk.part(from)),
            VaultRequest::RestorePart { part } => desk.take(&part),
            VaultRequest::Restore { passphrase } => {
                let text = Zeroizing::new(mem::take(&mut desk.incoming));
                self.adopt(VaultChange::Restored, |store, last| {
                    store.restore(&text, &passphrase, last)
                })
            }
            VaultRequest::Accept => match self.journal {
                Journal::Record(_) => self.adopt(VaultChange::Accepted, Store::accept),
                Journal::Later => Err(Refusal::because(
                    "only the record says what the vault was; start Bulkhead first with `bulkhead up`",
                )),
            },
            VaultRequest::Open { .. } | VaultRequest::OpenFor { .. } => Err(Refusal::because(
                "no command prints a secret; only whom it is bound to can open it",
            )),
            VaultRequest::Prove { .. } => {
                return Err(LinkError::OutOfOrder {
                    expected: "a command",
                    got: "prove",
                });
            }
        })
    }

    /// Does something to a sound vault, and writes it down.
    fn change(
        &self,
        change: VaultChange,
        name: Option<SecretName>,
        act: impl FnOnce(&mut Store) -> Result<(), StoreError>,
    ) -> Result<VaultReply, Refusal> {
        let mut seen = self.seen();
        // Asked anew, so that nothing is changed while there is no record.
        *seen = Seen::NotYet;
        self.check(&mut seen)?;
        act(&mut self.store())?;
        self.write_down(&mut seen, change, name)
    }

    /// Makes the vault the right one, whatever the record said of it, and writes that down.
    fn adopt(
        &self,
        change: VaultChange,
        act: impl FnOnce(&mut Store, Option<crate::entries::Recorded>) -> Result<(), StoreError>,
    ) -> Result<VaultReply, Refusal> {
        let mut seen = self.seen();
        let last = match &self.journal {
            Journal::Record(record) => record.last_change()?,
            Journal::Later => None,
        };
        act(&mut self.store(), last)?;
        self.write_down(&mut seen, change, None)
    }

    fn write_down(
        &self,
        seen: &mut Seen,
        change: VaultChange,
        name: Option<SecretName>,
    ) -> Result<VaultReply, Refusal> {
        let Journal::Record(record) = &self.journal else {
            return Ok(VaultReply::Done);
        };
        let own = self.store().recorded()?;
        match record.changed(own, change, name) {
            Ok(()) => {
                self.store().note_recorded()?;
                *seen = Seen::Sound;
            }
            // It is done and durable; the record hears of it before anything else is done.
            Err(_) => *seen = Seen::NotYet,
        }
        Ok(VaultReply::Done)
    }

    fn list(&self) -> Result<VaultReply, Refusal> {
        let entries = self.store().list()?;
        Ok(VaultReply::Entries { entries })
    }

    fn state(&self) -> VaultReply {
        let mut seen = self.seen();
        // Why it cannot be asked is no part of the answer; whether it is an older copy is.
        let _ = self.check(&mut seen);
        let store = self.store();
        let (wrong_attempts, wait) = store.attempts();
        VaultReply::State {
            state: VaultState {
                key: store.key_source(),
                keyring_entry: store.keyring_entry().map(str::to_owned),
                lock: store.lock_state(),
                wrong_attempts,
                next_attempt: wait.map(|wait| Millis::now().after(wait)),
                generation: store.generation().unwrap_or_default(),
                rolled_back: match *seen {
                    Seen::Behind(last) => Some(last),
                    Seen::NotYet | Seen::Sound => None,
                },
            },
        }
    }

    fn unlock(&self, with: &protocol::vault::Unlocking) -> Result<VaultReply, Refusal> {
        let mut seen = self.seen();
        self.store().unlock(with)?;
        // The files may be others than before.
        *seen = Seen::NotYet;
        Ok(VaultReply::Done)
    }

    fn lock(&self) -> Result<VaultReply, Refusal> {
        let mut seen = self.seen();
        self.store().lock()?;
        *seen = Seen::NotYet;
        Ok(VaultReply::Done)
    }

    fn backup(
        &self,
        desk: &mut Desk,
        passphrase: &protocol::vault::SecretText,
    ) -> Result<VaultReply, Refusal> {
        self.check(&mut self.seen())?;
        desk.outgoing = self.store().backup(passphrase)?;
        Ok(desk.part(0))
    }
}

impl Desk {
    /// A piece of the backup; the text has only ASCII.
    fn part(&self, from: u64) -> VaultReply {
        let len = self.outgoing.len();
        let from = usize::try_from(from).unwrap_or(len).min(len);
        let part = self.outgoing.get(from..(from + PART).min(len));
        VaultReply::Backup {
            part: part.unwrap_or_default().to_owned(),
            len: len as u64,
        }
    }

    fn take(&mut self, part: &str) -> Result<VaultReply, Refusal> {
        if self.incoming.len() + part.len() > MAX_BACKUP {
            self.incoming.clear();
            return Err(Refusal::because("that is longer than any backup"));
        }
        self.incoming.push_str(part);
        Ok(VaultReply::Done)
    }
}

/// A record that is not there yet.
pub(crate) fn no_record_yet() -> Journal {
    Journal::Record(Record::default())
}
