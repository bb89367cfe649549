//! What is done with each request in each phase of each link. No socket is touched here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::frame::LinkError;
use protocol::identity::proves;
use protocol::ids::{Nonce, PublicKey, SecretName};
use protocol::vault::{Subject, VaultReply, VaultRequest};

use crate::client::vault_identity;
use crate::record::Record;
use crate::store::{Store, StoreError};

/// What all links share.
pub(crate) struct Vault {
    pub(crate) store: Mutex<Store>,
    pub(crate) record: Record,
    pub(crate) operator: PublicKey,
}

/// How far the operator's connection is.
pub(crate) enum Operator {
    /// Has to answer this.
    Challenged(Nonce),
    /// Has proven to hold the operator key.
    Proven,
}

impl Vault {
    /// A request over the link of a subject.
    pub(crate) fn subject(
        &self,
        subject: &Subject,
        request: VaultRequest,
    ) -> Result<VaultReply, LinkError> {
        match request {
            VaultRequest::Open { name } => Ok(self.hand_out(subject, &name)),
            VaultRequest::Add { .. }
            | VaultRequest::Rotate { .. }
            | VaultRequest::Remove { .. }
            | VaultRequest::List => Ok(refusal("only the operator can do this")),
            VaultRequest::Prove { .. } => Err(LinkError::OutOfOrder {
                expected: "open",
                got: "prove",
            }),
        }
    }

    /// A request over the operator's connection, and the phase after it; without one the
    /// connection ends.
    pub(crate) fn operator(
        &self,
        phase: Operator,
        request: VaultRequest,
    ) -> Result<(Option<Operator>, VaultReply), LinkError> {
        match phase {
            Operator::Challenged(nonce) => self.prove(nonce, request),
            Operator::Proven => Ok((Some(Operator::Proven), self.manage(request)?)),
        }
    }

    fn prove(
        &self,
        nonce: Nonce,
        request: VaultRequest,
    ) -> Result<(Option<Operator>, VaultReply), LinkError> {
        let expected = |got| {
            Err(LinkError::OutOfOrder {
                expected: "prove",
                got,
            })
        };
        match request {
            VaultRequest::Prove { signature } => {
                if proves(&self.operator, &vault_identity(), nonce, &signature) {
                    return Ok((Some(Operator::Proven), VaultReply::Done));
                }
                eprintln!("bulkhead-vault: somebody without the operator key tried to connect");
                Ok((
                    None,
                    refusal("this is not the operator key that the vault knows"),
                ))
            }
            VaultRequest::Open { .. } => expected("open"),
            VaultRequest::Add { .. } => expected("add"),
            VaultRequest::Rotate { .. } => expected("rotate"),
            VaultRequest::Remove { .. } => expected("remove"),
            VaultRequest::List => expected("list"),
        }
    }

    fn manage(&self, request: VaultRequest) -> Result<VaultReply, LinkError> {
        let done = match request {
            VaultRequest::Add {
                name,
                subject,
                value,
            } => self.store().add(name, subject, &value),
            VaultRequest::Rotate { name, value } => self.store().rotate(name, &value),
            VaultRequest::Remove { name } => self.store().remove(&name),
            VaultRequest::List => {
                return Ok(VaultReply::Entries {
                    entries: self.store().list(),
                });
            }
            VaultRequest::Open { .. } => {
                return Ok(refusal(
                    "no command prints a secret; only whom it is bound to can open it",
                ));
            }
            VaultRequest::Prove { .. } => {
                return Err(LinkError::OutOfOrder {
                    expected: "a command",
                    got: "prove",
                });
            }
        };
        Ok(done.map_or_else(|error| refusal(&error.to_string()), |()| VaultReply::Done))
    }

    /// No record, no secret.
    fn hand_out(&self, subject: &Subject, name: &SecretName) -> VaultReply {
        // A secret of somebody else and none at all are told apart by the operator only.
        let bound = self.store().subject(name) == Some(subject);
        if !bound {
            eprintln!("bulkhead-vault: {subject} asked for `{name}`, which is not bound to it");
            return refusal(&format!(
                "there is no secret `{name}` for {subject}; add it with `bulkhead vault add`"
            ));
        }
        // Not under the store's lock: the record may take its time, the operator need not wait.
        if self.record.secret_used(name, subject).is_err() {
            return refusal(
                "the record did not take it, so the secret stays closed; see `bulkhead status`",
            );
        }
        self.open_recorded(subject, name)
            .unwrap_or_else(|error| refusal(&error.to_string()))
    }

    fn open_recorded(
        &self,
        subject: &Subject,
        name: &SecretName,
    ) -> Result<VaultReply, StoreError> {
        let mut store = self.store();
        // The operator may have removed it, or bound it to another, while the row was written.
        if store.subject(name) != Some(subject) {
            return Err(StoreError::Unknown(name.clone()));
        }
        let value = store.reveal(name)?;
        if let Err(error) = store.touch(name) {
            // The use is in the record; the date in the list is a convenience.
            eprintln!("bulkhead-vault: the date of last use of `{name}` was not kept: {error}");
        }
        Ok(VaultReply::Opened { value })
    }

    /// The store. A thread that died in the middle left it whole: memory follows the disk.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(reason: &str) -> VaultReply {
    VaultReply::Refused {
        reason: reason.to_owned(),
    }
}
