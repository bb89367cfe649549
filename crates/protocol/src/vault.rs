//! The link to the vault. Who asks is known by the connection, never by the request.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use crate::ids::{ChannelId, Nonce, SecretName, Signature};
use crate::time::Millis;

/// Who may use a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A channel's program.
    Channel(ChannelId),
    /// Egress, to attach it to requests for the model.
    Model,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(channel) => write!(f, "channel:{channel}"),
            Self::Model => f.write_str("model"),
        }
    }
}

/// Bytes of a secret on their way. No Debug that shows them, no Display, no Clone; wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The one place where it is opened.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// From a channel's program, from egress, or from the operator (who proves it first).
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum VaultRequest {
    /// The operator's answer to [`VaultReply::Challenge`]; only on the operator's socket, first.
    Prove {
        /// Over the challenge, as channel `vault`.
        signature: Signature,
    },
    /// Open a secret. Only for the subject it is bound to.
    Open {
        /// Which.
        name: SecretName,
    },
    /// Keep a new secret. Operator only.
    Add {
        /// A name not yet taken.
        name: SecretName,
        /// Who may use it.
        subject: Subject,
        /// The secret.
        value: SecretText,
    },
    /// Replace the value of a secret. Operator only.
    Rotate {
        /// Which.
        name: SecretName,
        /// The new value.
        value: SecretText,
    },
    /// Forget a secret. Operator only.
    Remove {
        /// Which.
        name: SecretName,
    },
    /// All secrets without their values. Operator only.
    List,
}

/// From the vault.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum VaultReply {
    /// First on the operator's socket: prove that you hold the operator key.
    Challenge {
        /// To be signed.
        nonce: Nonce,
    },
    /// The secret.
    Opened {
        /// Its value.
        value: SecretText,
    },
    /// Done and durable.
    Done,
    /// What the vault holds.
    Entries {
        /// By name.
        entries: Vec<SecretEntry>,
    },
    /// Not done.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// What may be known of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretEntry {
    /// Its name.
    pub name: SecretName,
    /// Who may use it.
    pub subject: Subject,
    /// When it was added or last rotated.
    pub created: Millis,
    /// When it was last opened.
    pub last_used: Option<Millis>,
}
