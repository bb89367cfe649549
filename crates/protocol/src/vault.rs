//! The link to the vault. Who asks is known by the connection, never by the request.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use crate::ids::{ChannelId, Nonce, SecretName, Signature};
use crate::marks::Marks;
use crate::time::Millis;

/// Who may use a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A channel's program.
    Channel(ChannelId),
    /// Egress, to attach it to requests for the model.
    Model,
    /// Egress, to attach it to requests of tools.
    Tool,
}

/// For whose request egress wants a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The model's.
    Model,
    /// A tool's.
    Tool,
}

impl From<Purpose> for Subject {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Model => Self::Model,
            Purpose::Tool => Self::Tool,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(channel) => write!(f, "channel:{channel}"),
            Self::Model => f.write_str("model"),
            Self::Tool => f.write_str("tool"),
        }
    }
}

impl FromStr for Subject {
    type Err = BadSubject;

    /// Reads what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, BadSubject> {
        match text.split_once(':') {
            None if text == "model" => Ok(Self::Model),
            None if text == "tool" => Ok(Self::Tool),
            Some(("channel", name)) => ChannelId::parse(name)
                .map(Self::Channel)
                .map_err(|_| BadSubject),
            Some(_) | None => Err(BadSubject),
        }
    }
}

/// Nobody who could use a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is `model`, `tool` or `channel:NAME`")]
pub struct BadSubject;

/// A host that a secret may be sent to: a name, all names below one (`*.example.com`), or a
/// loopback or private address as it stands in the configuration. In small ASCII letters, as egress
/// compares it; a name in another writing is given in its `xn--` form (RFC 5891).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BoundHost(String);

/// The longest name in bytes (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;

/// Not a host that a secret can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a host is a name like `api.example.com`, `*.example.com` for all names below it, or an address; without scheme, port and path"
)]
pub struct BadHost;

impl BoundHost {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`BadHost`] for everything that is not in its one form, so that two texts are never the same host.
    pub fn parse(text: &str) -> Result<Self, BadHost> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return (address.to_string() == text)
                .then(|| Self(text.to_owned()))
                .ok_or(BadHost);
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // Numbers only would be an address in one of its odd forms.
        let numeric = name
            .rsplit('.')
            .next()
            .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x"));
        let whole = text == name || name.contains('.');
        if name.len() <= MAX_HOST && name.split('.').all(label) && !numeric && whole {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadHost)
        }
    }

    /// Whether this host is meant: a name or an address as egress compares it, in small letters.
    pub fn covers(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(below) => host.len() > below.len() && host.ends_with(below),
            None => self.0 == host,
        }
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BoundHost {
    type Error = BadHost;

    fn try_from(text: String) -> Result<Self, BadHost> {
        Self::parse(&text)
    }
}

impl From<BoundHost> for String {
    fn from(host: BoundHost) -> Self {
        host.0
    }
}

impl FromStr for BoundHost {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        Self::parse(text)
    }
}

impl fmt::Display for BoundHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a secret is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretKind {
    /// Something that opens something.
    #[default]
    Secret,
    /// A decoy: nobody has a reason to touch it, so whoever does is an intruder.
    Honeytoken,
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret => "secret",
            Self::Honeytoken => "honeytoken",
        })
    }
}

/// Under which terms a secret is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// The hosts it may be sent to, at most [`MAX_HOSTS`]. A tool's has at least one; a
    /// channel's none, since its program has its platform's only; a model's may have none, which
    /// is the model that the configuration names.
    pub hosts: Vec<BoundHost>,
    /// What it is.
    pub kind: SecretKind,
    /// From then on it stays closed.
    pub expires: Option<Millis>,
    /// From then on the owner is reminded to replace it.
    pub rotate_by: Option<Millis>,
}

/// The most hosts of one secret.
pub const MAX_HOSTS: usize = 16;

/// What becomes of a date when a secret is rotated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewDate {
    /// As far off as it was when the secret was added or last rotated; none where there was none.
    #[default]
    SameSpan,
    /// None any more.
    Never,
    /// This one.
    At(Millis),
}

/// How the vault's key is kept from somebody who copies its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// Not at all: it is a file beside the secrets.
    KeyFile,
    /// Under a passphrase, stretched by Argon2id (RFC 9106).
    Passphrase,
    /// Under a key in the keyring of the desktop.
    Keyring,
    /// Under a credential that systemd hands to the service (systemd.exec(5), `LoadCredential=`).
    Credential,
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyFile => {
                "a key file beside the secrets; whoever can copy the folder can open them"
            }
            Self::Passphrase => "a passphrase",
            Self::Keyring => "the keyring of the desktop",
            Self::Credential => "a credential of systemd",
        })
    }
}

/// What opens a locked vault.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "with", rename_all = "snake_case", deny_unknown_fields)]
pub enum Unlocking {
    /// What the owner remembers.
    Passphrase {
        /// From [`MIN_PASSPHRASE`] bytes on.
        passphrase: SecretText,
    },
    /// What the keyring or systemd keeps.
    Key {
        /// The content of that entry.
        key: SecretText,
    },
}

/// What is to open the vault from now on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "with", rename_all = "snake_case", deny_unknown_fields)]
pub enum Protection {
    /// A key file beside the secrets.
    KeyFile,
    /// A passphrase.
    Passphrase {
        /// The new one.
        passphrase: SecretText,
    },
    /// A key that is in the keyring already.
    Keyring {
        /// Under which name.
        entry: String,
        /// The key.
        key: SecretText,
    },
    /// A credential that systemd has already.
    Credential {
        /// Its content, from 32 bytes on.
        key: SecretText,
    },
}

/// The fewest bytes of a passphrase.
pub const MIN_PASSPHRASE: usize = 8;

/// How the vault stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultState {
    /// How its key is kept.
    pub key: KeySource,
    /// The keyring's entry, where it is that.
    pub keyring_entry: Option<String>,
    /// Whether its secrets can be opened.
    pub lock: LockState,
    /// Wrong attempts to unlock it since the last right one.
    pub wrong_attempts: u32,
    /// When the next attempt is taken; none if at once.
    pub next_attempt: Option<Millis>,
    /// The number of its last change.
    pub generation: u64,
    /// Whether the record knows of a later change than this vault has: an older copy was put back.
    pub rolled_back: Option<u64>,
}

/// Whether the secrets can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockState {
    /// They can.
    Open,
    /// `bulkhead vault unlock` comes first.
    Locked,
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
    /// Open a secret. Only for the channel it is bound to.
    Open {
        /// Which.
        name: SecretName,
    },
    /// Open a secret to attach it to one request. Only for egress.
    OpenFor {
        /// Which.
        name: SecretName,
        /// For whose request; has to be what it is bound to.
        purpose: Purpose,
        /// The host of that request, as egress connects to it; has to be among those it is bound to.
        host: String,
    },
    /// What finds the secrets in a text without holding them. Only for egress and the gateway, and for the operator.
    Marks {
        /// The generation of those at hand; 0 for none.
        after: u64,
    },
    /// Keep a new secret. Operator only.
    Add {
        /// A name not yet taken.
        name: SecretName,
        /// Who may use it.
        subject: Subject,
        /// Under which terms.
        terms: Terms,
        /// The secret.
        value: SecretText,
    },
    /// Replace the value of a secret. Operator only.
    Rotate {
        /// Which.
        name: SecretName,
        /// The new value.
        value: SecretText,
        /// The new date of expiry.
        expires: NewDate,
        /// The new date by which to rotate it again.
        rotate_by: NewDate,
    },
    /// Forget a secret. Operator only.
    Remove {
        /// Which.
        name: SecretName,
    },
    /// All secrets without their values. Operator only.
    List,
    /// How the vault stands. Operator only.
    State,
    /// Open the vault. Operator only. Wrong attempts have to wait, longer each time.
    Unlock {
        /// With what.
        with: Unlocking,
    },
    /// Forget the key until the next [`Self::Unlock`]. Operator only.
    Lock,
    /// Keep the vault's key otherwise. Operator only; durable, and old or new after a crash.
    Protect {
        /// How.
        with: Protection,
    },
    /// Seal all secrets under a passphrase of their own. Operator only.
    Backup {
        /// The passphrase.
        passphrase: SecretText,
    },
    /// A further piece of the backup that this connection asked for. Operator only.
    BackupPart {
        /// From this byte on.
        from: u64,
    },
    /// A piece of a backup to be restored, in order. Operator only.
    RestorePart {
        /// As text.
        part: String,
    },
    /// Replace all secrets by those of the pieces sent. Operator only.
    Restore {
        /// The backup's passphrase.
        passphrase: SecretText,
    },
    /// Take the vault as it is for right, although the record knows of later changes. Operator only.
    Accept,
}

impl VaultRequest {
    /// The kind of request, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Prove { .. } => "prove",
            Self::Open { .. } => "open",
            Self::OpenFor { .. } => "open_for",
            Self::Marks { .. } => "marks",
            Self::Add { .. } => "add",
            Self::Rotate { .. } => "rotate",
            Self::Remove { .. } => "remove",
            Self::List => "list",
            Self::State => "state",
            Self::Unlock { .. } => "unlock",
            Self::Lock => "lock",
            Self::Protect { .. } => "protect",
            Self::Backup { .. } => "backup",
            Self::BackupPart { .. } => "backup_part",
            Self::RestorePart { .. } => "restore_part",
            Self::Restore { .. } => "restore",
            Self::Accept => "accept",
        }
    }

    /// What in it is secret, so that the vault keeps it out of the swap.
    pub fn secret(&self) -> Option<&SecretText> {
        match self {
            Self::Add { value, .. } | Self::Rotate { value, .. } => Some(value),
            Self::Unlock { with } => Some(match with {
                Unlocking::Passphrase { passphrase } => passphrase,
                Unlocking::Key { key } => key,
            }),
            Self::Protect { with } => match with {
                Protection::KeyFile => None,
                Protection::Passphrase { passphrase } => Some(passphrase),
                Protection::Keyring { key, .. } | Protection::Credential { key } => Some(key),
            },
            Self::Backup { passphrase } | Self::Restore { passphrase } => Some(passphrase),
            Self::Prove { .. }
            | Self::Open { .. }
            | Self::OpenFor { .. }
            | Self::Marks { .. }
            | Self::Remove { .. }
            | Self::List
            | Self::State
            | Self::Lock
            | Self::BackupPart { .. }
            | Self::RestorePart { .. }
            | Self::Accept => None,
        }
    }
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
    /// The vault is locked; nothing of it opens before the operator unlocks it.
    Locked,
    /// What finds the secrets.
    Marks {
        /// The vault's generation that they are of.
        generation: u64,
        /// Keyed marks of each value.
        marks: Marks,
    },
    /// The marks at hand are those of now.
    Unchanged,
    /// How the vault stands.
    State {
        /// The facts.
        state: VaultState,
    },
    /// A piece of a backup.
    Backup {
        /// As text; empty at the end.
        part: String,
        /// How many bytes there are in all.
        len: u64,
    },
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
    /// Under which terms.
    pub terms: Terms,
}

impl SecretEntry {
    /// Whether it has expired.
    pub fn is_expired(&self, now: Millis) -> bool {
        self.terms.expires.is_some_and(|end| end <= now)
    }

    /// Whether it is time to replace it.
    pub fn is_due(&self, now: Millis) -> bool {
        self.terms.rotate_by.is_some_and(|due| due <= now)
    }
}

/// What changed the vault; for the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VaultChange {
    /// A secret was added.
    Added,
    /// The value of one was replaced.
    Rotated,
    /// One was removed.
    Removed,
    /// The key is kept otherwise.
    Protected,
    /// All were replaced by those of a backup.
    Restored,
    /// The owner took an older copy for right.
    Accepted,
    /// Something was changed while there was no record to write to.
    CaughtUp,
}

impl fmt::Display for VaultChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Rotated => "rotated",
            Self::Removed => "removed",
            Self::Protected => "kept under another key",
            Self::Restored => "restored from a backup",
            Self::Accepted => "taken as it is",
            Self::CaughtUp => "changed while Bulkhead was down",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_form_and_covers_itself_or_what_is_below() {
        let host = |text: &str| BoundHost::parse(text);
        assert!(host("api.example.com").unwrap().covers("api.example.com"));
        assert!(!host("example.com").unwrap().covers("api.example.com"));
        assert!(!host("example.com").unwrap().covers("badexample.com"));
        let below = host("*.example.com").unwrap();
        assert!(below.covers("api.example.com") && below.covers("a.b.example.com"));
        for other in [
            "example.com",
            "badexample.com",
            "example.com.evil.org",
            ".example.com",
        ] {
            assert!(!below.covers(other), "{other}");
        }
        assert!(host("127.0.0.1").unwrap().covers("127.0.0.1"));
        assert!(host("::1").is_ok() && host("localhost").is_ok());
        for bad in [
            "",
            "*",
            "*.",
            "*.com",
            "a..b",
            "A.example",
            "a.example.",
            "http://a",
            "a:443",
            "a/b",
            "1.2.3",
            "0x7f.1",
            "127.1",
            "2130706433",
            "-a.example",
            "0:0:0:0:0:0:0:1",
            "ex ample.com",
            "b\u{fc}cher.example",
        ] {
            assert!(host(bad).is_err(), "{bad:?}");
        }
        let long = format!("{}.example", "a".repeat(64));
        assert!(host(&long).is_err());
    }

    #[test]
    fn subjects_are_read_as_they_are_written() {
        for text in ["model", "tool", "channel:telegram"] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        for bad in ["", "telegram", "channel:", "channel:A", "model:x", "tool:x"] {
            assert!(bad.parse::<Subject>().is_err(), "{bad:?}");
        }
    }
}
