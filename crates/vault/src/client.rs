//! Asking the vault: from a channel's program, from egress, and from `bulkhead`.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use protocol::frame::LinkError;
use protocol::identity::IdentityKey;
use protocol::ids::{ChannelId, SecretName};
use protocol::vault::{SecretEntry, SecretText, Subject, VaultReply, VaultRequest};

use crate::frames::Exchange;

/// How long a reply may take; longer than the vault itself waits for the record.
const LIMIT: Duration = Duration::from_secs(10);

/// The name under which the operator proves to hold the key.
pub(crate) fn vault_identity() -> ChannelId {
    // The text has only letters.
    ChannelId::parse("vault").expect("`vault` is a channel name")
}

/// Why the vault did not do it.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The vault's decision.
    #[error("{0}")]
    Refused(String),
    /// The vault is gone, does not answer within ten seconds, or sent what is not a reply.
    #[error("the vault does not answer: {0}")]
    Link(#[from] LinkError),
    /// The vault answered something else than what was asked.
    #[error("the vault answered {got} to {asked}")]
    OutOfStep {
        /// What was asked.
        asked: &'static str,
        /// The kind of reply.
        got: &'static str,
    },
}

/// One link to the vault. Blocks; each call waits at most ten seconds.
pub struct VaultClient(Exchange);

impl VaultClient {
    /// Over a link that the supervisor handed over; who asks is known by it.
    pub fn new(stream: UnixStream) -> Self {
        Self(Exchange::new(stream))
    }

    /// Opens a secret that is bound to this side of the link.
    pub fn open(&mut self, name: &SecretName) -> Result<SecretText, VaultError> {
        match self.ask(&VaultRequest::Open { name: name.clone() })? {
            VaultReply::Opened { value } => Ok(value),
            other => Err(out_of_step("open", &other)),
        }
    }

    /// Keeps a new secret; durable when this returns. Operator only, as are all below.
    pub fn add(
        &mut self,
        name: SecretName,
        subject: Subject,
        value: SecretText,
    ) -> Result<(), VaultError> {
        self.done(
            "add",
            &VaultRequest::Add {
                name,
                subject,
                value,
            },
        )
    }

    /// Replaces the value of a secret.
    pub fn rotate(&mut self, name: SecretName, value: SecretText) -> Result<(), VaultError> {
        self.done("rotate", &VaultRequest::Rotate { name, value })
    }

    /// Forgets a secret.
    pub fn remove(&mut self, name: SecretName) -> Result<(), VaultError> {
        self.done("remove", &VaultRequest::Remove { name })
    }

    /// All secrets by name, without their values.
    pub fn list(&mut self) -> Result<Vec<SecretEntry>, VaultError> {
        match self.ask(&VaultRequest::List)? {
            VaultReply::Entries { entries } => Ok(entries),
            other => Err(out_of_step("list", &other)),
        }
    }

    fn done(&mut self, asked: &'static str, request: &VaultRequest) -> Result<(), VaultError> {
        match self.ask(request)? {
            VaultReply::Done => Ok(()),
            other => Err(out_of_step(asked, &other)),
        }
    }

    fn ask(&mut self, request: &VaultRequest) -> Result<VaultReply, VaultError> {
        match self.0.ask(request, LIMIT)? {
            VaultReply::Refused { reason } => Err(VaultError::Refused(reason)),
            reply => Ok(reply),
        }
    }
}

/// Proves on a fresh connection to the operator's socket that this is the operator.
pub fn operator(stream: UnixStream, key: &IdentityKey) -> Result<VaultClient, VaultError> {
    let mut client = VaultClient::new(stream);
    let nonce = match client.0.hear(LIMIT)? {
        VaultReply::Challenge { nonce } => nonce,
        VaultReply::Refused { reason } => return Err(VaultError::Refused(reason)),
        other => return Err(out_of_step("connect", &other)),
    };
    let signature = key.prove(&vault_identity(), nonce);
    client.done("prove", &VaultRequest::Prove { signature })?;
    Ok(client)
}

fn out_of_step(asked: &'static str, reply: &VaultReply) -> VaultError {
    let got = match reply {
        VaultReply::Challenge { .. } => "a challenge",
        VaultReply::Opened { .. } => "a secret",
        VaultReply::Done => "done",
        VaultReply::Entries { .. } => "a list",
        VaultReply::Refused { .. } => "a refusal",
    };
    VaultError::OutOfStep { asked, got }
}
