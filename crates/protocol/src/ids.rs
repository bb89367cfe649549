//! Names and numbers as types. Each is checked when it is made, also by serde.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Why a text is not a valid id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadId {
    /// an id must not be empty
    #[error("a {0} must not be empty")]
    Empty(&'static str),
    /// longer than the kind of id allows
    #[error("a {0} has at most {1} bytes")]
    TooLong(&'static str, usize),
    /// holds a character that the kind of id does not allow
    #[error("a {0} must not hold {1:?}")]
    BadCharacter(&'static str, char),
    /// not the hexadecimal form of so many bytes
    #[error("a {0} is {1} lower-case hexadecimal digits")]
    NotHex(&'static str, usize),
}

/// Text ids: at most `$max` bytes, only characters for which `$ok` holds.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $word:literal, $max:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks length and characters.
            pub fn parse(text: impl Into<String>) -> Result<Self, BadId> {
                let text = text.into();
                if text.is_empty() {
                    return Err(BadId::Empty($word));
                }
                if text.len() > $max {
                    return Err(BadId::TooLong($word, $max));
                }
                let ok: fn(char) -> bool = $ok;
                match text.chars().find(|c| !ok(*c)) {
                    Some(c) => Err(BadId::BadCharacter($word, c)),
                    None => Ok(Self(text)),
                }
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn name_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_'
}

fn platform_char(c: char) -> bool {
    !c.is_control() && !c.is_whitespace()
}

text_id!(
    /// A channel: one account on one chat platform, `telegram`, `web`, `terminal`.
    ChannelId, "channel name", 32, name_char);
text_id!(
    /// A person as the gateway knows them; one principal may be several senders.
    PrincipalId, "principal name", 64, name_char);
text_id!(
    /// An agent: what a person talks to. There is one, `main`.
    AgentId, "agent name", 32, name_char);
text_id!(
    /// A session: one conversation of one principal with one agent.
    SessionId, "session id", 32, name_char);
text_id!(
    /// Who sent a message, in the platform's own numbering; means nothing outside its channel.
    SenderId, "sender id", 128, platform_char);
text_id!(
    /// Where a message was sent, in the platform's own numbering.
    ConversationId, "conversation id", 128, platform_char);
text_id!(
    /// A message in the platform's own numbering; the gateway drops a second one with the same id.
    MessageId, "message id", 128, platform_char);
text_id!(
    /// The name of a secret in the vault.
    SecretName, "secret name", 64, name_char);
text_id!(
    /// The name of an egress rule.
    RuleName, "rule name", 64, name_char);
text_id!(
    /// What the model calls a tool.
    ToolName, "tool name", 64, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));

impl AgentId {
    /// The agent that there is.
    pub fn main() -> Self {
        Self("main".to_owned())
    }
}

/// A turn within its session, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TurnId(pub u64);

impl fmt::Display for TurnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A tool call within its turn, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallId(pub u32);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A tool call among all calls: what the record, the logs and the links name it by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallRef {
    /// The session it was asked in.
    pub session: SessionId,
    /// The turn of that session.
    pub turn: TurnId,
    /// The call of that turn.
    pub call: CallId,
}

impl fmt::Display for CallRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.session, self.turn, self.call)
    }
}

/// A row of the record, counted from 1 over all sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowId(pub u64);

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Fixed-size byte strings that are written as lower-case hexadecimal.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $word:literal, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Reads the hexadecimal form.
            pub fn parse(text: &str) -> Result<Self, BadId> {
                let bad = BadId::NotHex($word, $len * 2);
                match unhex(text).and_then(|bytes| bytes.try_into().ok()) {
                    Some(bytes) => Ok(Self(bytes)),
                    None => Err(bad),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                Self::parse(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                hex(&id.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }
    };
}

hex_id!(
    /// SHA-256 (FIPS 180-4) of something.
    Digest, "SHA-256 digest", 32);
hex_id!(
    /// A number used once: in a challenge, in an approval.
    Nonce, "nonce", 16);
hex_id!(
    /// An approval that was asked for.
    ApprovalId, "approval id", 8);
hex_id!(
    /// An Ed25519 public key (RFC 8032).
    PublicKey, "public key", 32);
hex_id!(
    /// An Ed25519 signature (RFC 8032).
    Signature, "signature", 64);

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes.as_ref()).into())
    }
}

/// The kernel gave no random bytes; nothing may go on without them.
#[derive(Debug, thiserror::Error)]
#[error("the kernel gave no random bytes: {0}")]
pub struct NoRandom(getrandom::Error);

/// Bytes that nobody can guess, from the kernel.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(NoRandom)?;
    Ok(bytes)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The bytes of a lower-case hexadecimal text; `None` for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ids_refuse_what_they_do_not_allow() {
        assert_eq!(ChannelId::parse(""), Err(BadId::Empty("channel name")));
        assert_eq!(
            ChannelId::parse("a b"),
            Err(BadId::BadCharacter("channel name", ' '))
        );
        assert_eq!(
            ChannelId::parse("a".repeat(33)),
            Err(BadId::TooLong("channel name", 32))
        );
        assert!(serde_json::from_str::<SessionId>("\"../x\"").is_err());
        assert!(serde_json::from_str::<SenderId>("\"a\\u0000b\"").is_err());
    }

    #[test]
    fn hexadecimal_goes_there_and_back_and_nothing_else_is_read() {
        let digest = Digest::of("abc");
        assert_eq!(
            digest.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
        assert!(Nonce::parse("AB").is_err());
        assert!(Nonce::parse(&"0".repeat(31)).is_err());
        assert!(Nonce::parse(&"é".repeat(16)).is_err());
    }
}
