//! What is done with each request in each phase of each link. No socket is touched here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::frame::LinkError;
use protocol::ids::{ChannelId, PublicKey, SecretName};
use protocol::marks::MarkKey;
use protocol::time::Millis;
use protocol::vault::{
    LockState, SecretEntry, SecretKind, Subject, VaultChange, VaultReply, VaultRequest,
};

use crate::fault::StoreError;
use crate::record::{NotRecorded, Record};
use crate::store::{Standing, Store};

/// What all links share. Locks are taken in the order of the fields.
pub(crate) struct Vault {
    pub(crate) seen: Mutex<Seen>,
    pub(crate) store: Mutex<Store>,
    pub(crate) journal: Journal,
    pub(crate) operator: PublicKey,
    pub(crate) mark_key: MarkKey,
}

/// Where changes are written down.
pub(crate) enum Journal {
    /// In the record.
    Record(Record),
    /// Nowhere: Bulkhead is down, and nothing is handed out. What was changed is told to the
    /// record when it is up again.
    Later,
}

/// What the record was found to say of the vault. Held during each change, so that the rows
/// come in the order of the changes.
pub(crate) enum Seen {
    /// It has not been asked since the secrets were read.
    NotYet,
    /// That the vault is what it was.
    Sound,
    /// That the vault is an older copy, or another one; its last change had this number.
    Behind(u64),
}

/// Who is at the other end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A channel's program.
    Channel(ChannelId),
    /// Egress.
    Egress,
    /// The gateway.
    Gateway,
}

/// Why nothing is done.
pub(crate) enum Refusal {
    /// The vault is locked.
    Locked,
    /// Something else.
    Because(String),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Locked => Self::Locked,
            other => Self::Because(other.to_string()),
        }
    }
}

impl From<NotRecorded> for Refusal {
    fn from(NotRecorded: NotRecorded) -> Self {
        Self::because("the record did not take it, so nothing is done; see `bulkhead status`")
    }
}

impl Refusal {
    pub(crate) fn because(reason: impl Into<String>) -> Self {
        Self::Because(reason.into())
    }

    pub(crate) fn reply(self) -> VaultReply {
        match self {
            Self::Locked => VaultReply::Locked,
            Self::Because(reason) => VaultReply::Refused { reason },
        }
    }
}

impl Vault {
    /// A request over the link of a program.
    pub(crate) fn program(
        &self,
        asker: &Asker,
        request: VaultRequest,
    ) -> Result<VaultReply, LinkError> {
        let done = match (request, asker) {
            (VaultRequest::Open { name }, Asker::Channel(channel)) => {
                self.hand_out(&Subject::Channel(channel.clone()), &name, None)
            }
            (
                VaultRequest::OpenFor {
                    name,
                    purpose,
                    host,
                },
                Asker::Egress,
            ) => self.hand_out(&purpose.into(), &name, Some(&host)),
            (VaultRequest::Marks { after }, Asker::Egress | Asker::Gateway) => self.marks(after),
            (VaultRequest::Open { .. }, Asker::Egress) => Err(Refusal::because(
                "egress opens a secret for one request to one host, and says which",
            )),
            (VaultRequest::Open { .. }, Asker::Gateway)
            | (VaultRequest::OpenFor { .. }, Asker::Channel(_) | Asker::Gateway)
            | (VaultRequest::Marks { .. }, Asker::Channel(_)) => {
                Err(Refusal::because("this program has no use for that"))
            }
            (
                VaultRequest::Add { .. }
                | VaultRequest::Rotate { .. }
                | VaultRequest::Remove { .. }
                | VaultRequest::List
                | VaultRequest::State
                | VaultRequest::Unlock { .. }
                | VaultRequest::Lock
                | VaultRequest::Protect { .. }
                | VaultRequest::Backup { .. }
                | VaultRequest::BackupPart { .. }
                | VaultRequest::RestorePart { .. }
                | VaultRequest::Restore { .. }
                | VaultRequest::Accept,
                _,
            ) => Err(Refusal::because("only the operator can do this")),
            (VaultRequest::Prove { .. }, _) => {
                return Err(LinkError::OutOfOrder {
                    expected: "open",
                    got: "prove",
                });
            }
        };
        Ok(done.unwrap_or_else(Refusal::reply))
    }

    /// No record, no secret; and none of a vault that is not the one of the record.
    fn hand_out(
        &self,
        subject: &Subject,
        name: &SecretName,
        host: Option<&str>,
    ) -> Result<VaultReply, Refusal> {
        let Journal::Record(record) = &self.journal else {
            return Err(Refusal::because("Bulkhead is down"));
        };
        let entry = self.store().entry(name)?;
        if entry.as_ref().is_some_and(is_decoy) {
            protocol::log!("bulkhead-vault: {subject} asked for the decoy `{name}`");
            // It stays closed also where this cannot be written.
            record.touched(name, subject)?;
        }
        may_have(entry.as_ref(), subject, name, host)?;
        self.check(&mut self.seen())?;
        // Not under the store's lock: the record may take its time, the operator need not wait.
        record.secret_used(name, subject)?;
        // An older copy may have been put in its place meanwhile.
        let mut seen = self.seen();
        self.check(&mut seen)?;
        let mut store = self.store();
        // The operator may have removed it, or bound it otherwise, while the row was written.
        may_have(store.entry(name)?.as_ref(), subject, name, host)?;
        if let Err(error) = store.touch(name) {
            // The use is in the record; the date in the list is a convenience.
            protocol::log!(
                "bulkhead-vault: the date of last use of `{name}` was not kept: {error}"
            );
        }
        // Last, so that it is in memory no longer than it has to be.
        let value = store.reveal(name)?;
        Ok(VaultReply::Opened { value })
    }

    /// The marks, unless they are at hand already. Those of an older copy are better than none.
    pub(crate) fn marks(&self, after: u64) -> Result<VaultReply, Refusal> {
        let store = self.store();
        // A generation of 0 is an empty vault, and that of whoever has no marks.
        let generation = store.generation()?;
        if after > 0 && after == generation {
            return Ok(VaultReply::Unchanged);
        }
        let marks = store.marks(&self.mark_key)?;
        Ok(VaultReply::Marks { generation, marks })
    }

    /// Sees to it that the vault is what the record last said it was, and tells the record what
    /// was changed without it.
    pub(crate) fn check(&self, seen: &mut Seen) -> Result<(), Refusal> {
        let Journal::Record(record) = &self.journal else {
            return Ok(());
        };
        match seen {
            Seen::Sound => return Ok(()),
            Seen::Behind(last) => return Err(behind(*last)),
            Seen::NotYet => {}
        }
        if self.store().lock_state() == LockState::Locked {
            return Err(Refusal::Locked);
        }
        let last = record.last_change()?;
        let (standing, own) = {
            let store = self.store();
            (store.standing(last.as_ref())?, store.recorded()?)
        };
        match standing {
            Standing::Sound => {}
            Standing::Ahead => record.changed(own, VaultChange::CaughtUp, None)?,
            Standing::Behind => {
                let last = last.map_or(0, |last| last.generation);
                protocol::log!("bulkhead-vault: this is not the vault that the record knows");
                *seen = Seen::Behind(last);
                return Err(behind(last));
            }
        }
        self.store().note_recorded()?;
        *seen = Seen::Sound;
        Ok(())
    }

    /// The store. A thread that died in the middle left it whole: memory follows the disk.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the record was found to say; taken before the store.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this asker may have it, for this host.
fn may_have(
    entry: Option<&SecretEntry>,
    subject: &Subject,
    name: &SecretName,
    host: Option<&str>,
) -> Result<(), Refusal> {
    let bound = entry.filter(|entry| entry.subject == *subject && !is_decoy(entry));
    let Some(entry) = bound else {
        // A secret of somebody else, a decoy and none at all are told apart by the operator only.
        protocol::log!("bulkhead-vault: {subject} asked for `{name}`, which is not bound to it");
        return Err(Refusal::because(format!(
            "there is no secret `{name}` for {subject}; add it with `bulkhead vault add`"
        )));
    };
    if let Some(at) = entry.terms.expires.filter(|at| *at <= Millis::now()) {
        let name = name.clone();
        return Err(StoreError::Expired { name, at }.into());
    }
    let free = entry.terms.hosts.is_empty() && *subject != Subject::Tool;
    match host {
        Some(host) if !free && !entry.terms.hosts.iter().any(|bound| bound.covers(host)) => {
            protocol::log!(
                "bulkhead-vault: `{name}` was wanted for a host that it is not bound to"
            );
            Err(Refusal::because(format!(
                "the secret `{name}` is not bound to this host; `bulkhead vault list` says to which"
            )))
        }
        Some(_) | None => Ok(()),
    }
}

fn is_decoy(entry: &SecretEntry) -> bool {
    entry.terms.kind == SecretKind::Honeytoken
}

fn behind(last: u64) -> Refusal {
    Refusal::because(format!(
        "this vault is an older copy or another one: the record knows of its change {last}, and this is \
         not what was in it then. Put the right folder back, or with Bulkhead up run `bulkhead vault restore FILE` \
         with a backup, or `bulkhead vault restore --as-it-is` to take it for right"
    ))
}
