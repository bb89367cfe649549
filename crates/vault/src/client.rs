//! Asking the vault: from a channel's program, from egress, and from `bulkhead`.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use protocol::frame::LinkError;
use protocol::identity::IdentityKey;
use protocol::ids::{ChannelId, SecretName};
use protocol::marks::Marks;
use protocol::vault::{
    NewDate, Protection, Purpose, SecretEntry, SecretText, Subject, Terms, Unlocking, VaultReply,
    VaultRequest, VaultState,
};

use crate::frames::Exchange;
use crate::manage::PART;

/// How long a reply may take; longer than the vault itself waits for the record.
const LIMIT: Duration = Duration::from_secs(10);

/// The same for what asks the record twice, and for passphrases, which are stretched.
const LONG_LIMIT: Duration = Duration::from_secs(30);

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
    /// Nothing opens before the operator unlocks it; ask again later.
    #[error("the vault is locked; run `bulkhead vault unlock`")]
    Locked,
    /// The vault is gone, does not answer in time, or sent what is not a reply.
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

/// One link to the vault. Blocks; each call waits at most ten seconds, the operator's thirty.
pub struct VaultClient(Exchange);

impl VaultClient {
    /// Over a link that the supervisor handed over; who asks is known by it.
    pub fn new(stream: UnixStream) -> Self {
        Self(Exchange::new(stream))
    }

    /// Opens a secret that is bound to the channel on this side of the link.
    pub fn open(&mut self, name: &SecretName) -> Result<SecretText, VaultError> {
        match self.ask(&VaultRequest::Open { name: name.clone() })? {
            VaultReply::Opened { value } => Ok(value),
            other => Err(out_of_step("open", &other)),
        }
    }

    /// Opens a secret to attach it to one request to this host; egress only. The vault refuses
    /// what is bound to another purpose or host, what has expired, and decoys, which it reports.
    pub fn open_for(
        &mut self,
        name: &SecretName,
        purpose: Purpose,
        host: &str,
    ) -> Result<SecretText, VaultError> {
        let request = VaultRequest::OpenFor {
            name: name.clone(),
            purpose,
            host: host.to_owned(),
        };
        match self.ask(&request)? {
            VaultReply::Opened { value } => Ok(value),
            other => Err(out_of_step("open_for", &other)),
        }
    }

    /// What finds the secrets in a text, and the vault's generation that it is of. Egress, the
    /// gateway and the operator only.
    pub fn marks(&mut self) -> Result<(u64, Marks), VaultError> {
        match self.ask(&VaultRequest::Marks { after: 0 })? {
            VaultReply::Marks { generation, marks } => Ok((generation, marks)),
            other => Err(out_of_step("marks", &other)),
        }
    }

    /// The same if the vault changed since this generation. Those of an earlier start of the vault
    /// do not count: whoever gets a new link asks for all.
    pub fn marks_after(&mut self, generation: u64) -> Result<Option<(u64, Marks)>, VaultError> {
        match self.ask(&VaultRequest::Marks { after: generation })? {
            VaultReply::Marks { generation, marks } => Ok(Some((generation, marks))),
            VaultReply::Unchanged => Ok(None),
            other => Err(out_of_step("marks", &other)),
        }
    }

    /// Keeps a new secret; durable when this returns. Operator only, as are all below.
    pub fn add(
        &mut self,
        name: SecretName,
        subject: Subject,
        terms: Terms,
        value: SecretText,
    ) -> Result<(), VaultError> {
        self.done(
            "add",
            &VaultRequest::Add {
                name,
                subject,
                terms,
                value,
            },
        )
    }

    /// Replaces the value of a secret, and moves its dates.
    pub fn rotate(
        &mut self,
        name: SecretName,
        value: SecretText,
        expires: NewDate,
        rotate_by: NewDate,
    ) -> Result<(), VaultError> {
        let request = VaultRequest::Rotate {
            name,
            value,
            expires,
            rotate_by,
        };
        self.done("rotate", &request)
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

    /// How the vault stands.
    pub fn state(&mut self) -> Result<VaultState, VaultError> {
        match self.ask_long(&VaultRequest::State)? {
            VaultReply::State { state } => Ok(state),
            other => Err(out_of_step("state", &other)),
        }
    }

    /// Opens a locked vault.
    pub fn unlock(&mut self, with: Unlocking) -> Result<(), VaultError> {
        self.done("unlock", &VaultRequest::Unlock { with })
    }

    /// Has the vault forget its key until it is unlocked again.
    pub fn lock(&mut self) -> Result<(), VaultError> {
        self.done("lock", &VaultRequest::Lock)
    }

    /// Has the vault's key kept otherwise; durable when this returns.
    pub fn protect(&mut self, with: Protection) -> Result<(), VaultError> {
        self.done("protect", &VaultRequest::Protect { with })
    }

    /// All secrets, sealed under this passphrase; the text of a file.
    pub fn backup(&mut self, passphrase: SecretText) -> Result<String, VaultError> {
        let mut reply = self.ask_long(&VaultRequest::Backup { passphrase })?;
        let mut text = String::new();
        loop {
            let VaultReply::Backup { part, len } = reply else {
                return Err(out_of_step("backup", &reply));
            };
            text.push_str(&part);
            if text.len() as u64 >= len || part.is_empty() {
                return Ok(text);
            }
            let from = text.len() as u64;
            reply = self.ask_long(&VaultRequest::BackupPart { from })?;
        }
    }

    /// Replaces all secrets by those of a backup; durable when this returns.
    pub fn restore(&mut self, text: &str, passphrase: SecretText) -> Result<(), VaultError> {
        let mut rest = text;
        while !rest.is_empty() {
            let mut end = rest.len().min(PART);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (part, after) = rest.split_at(end);
            let part = part.to_owned();
            self.done("restore_part", &VaultRequest::RestorePart { part })?;
            rest = after;
        }
        self.done("restore", &VaultRequest::Restore { passphrase })
    }

    /// Takes the vault as it is for right, although the record knows of another.
    pub fn accept(&mut self) -> Result<(), VaultError> {
        self.done("accept", &VaultRequest::Accept)
    }

    fn done(&mut self, asked: &'static str, request: &VaultRequest) -> Result<(), VaultError> {
        match self.ask_long(request)? {
            VaultReply::Done => Ok(()),
            other => Err(out_of_step(asked, &other)),
        }
    }

    fn ask(&mut self, request: &VaultRequest) -> Result<VaultReply, VaultError> {
        self.ask_within(request, LIMIT)
    }

    fn ask_long(&mut self, request: &VaultRequest) -> Result<VaultReply, VaultError> {
        self.ask_within(request, LONG_LIMIT)
    }

    fn ask_within(
        &mut self,
        request: &VaultRequest,
        limit: Duration,
    ) -> Result<VaultReply, VaultError> {
        match self.0.ask(request, limit)? {
            VaultReply::Refused { reason } => Err(VaultError::Refused(reason)),
            VaultReply::Locked => Err(VaultError::Locked),
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
        other @ (VaultReply::Opened { .. }
        | VaultReply::Done
        | VaultReply::Locked
        | VaultReply::Marks { .. }
        | VaultReply::Unchanged
        | VaultReply::State { .. }
        | VaultReply::Backup { .. }
        | VaultReply::Entries { .. }) => return Err(out_of_step("connect", &other)),
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
        VaultReply::Locked => "that it is locked",
        VaultReply::Marks { .. } | VaultReply::Unchanged => "marks",
        VaultReply::State { .. } => "its state",
        VaultReply::Backup { .. } => "a backup",
        VaultReply::Entries { .. } => "a list",
        VaultReply::Refused { .. } => "a refusal",
    };
    VaultError::OutOfStep { asked, got }
}
