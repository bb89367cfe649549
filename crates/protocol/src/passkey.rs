//! Passkeys (Web Authentication Level 2, W3C Recommendation) as they cross the links: bytes
//! that a browser made, passed on by the page's program and verified by the gateway.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, PrincipalId, Signature, hex, unhex};
use crate::time::Millis;

/// The name under which passkeys are kept by browsers (the RP ID). It is the same for every
/// port of this machine, so the origin is checked too.
pub const RP_ID: &str = "localhost";

/// The most bytes of one part of what a browser made. A credential's id has at most 1,023.
pub const MAX_BYTES: usize = 4096;

/// Bytes from a browser, written as lower-case hexadecimal; at most [`MAX_BYTES`].
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(Vec<u8>);

/// Why bytes are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBytes {
    /// More than [`MAX_BYTES`].
    #[error("at most {MAX_BYTES} bytes are taken")]
    TooLong,
    /// Not pairs of lower-case hexadecimal digits.
    #[error("bytes are written as pairs of lower-case hexadecimal digits")]
    NotHex,
}

impl Bytes {
    /// Checks their number.
    pub fn new(bytes: Vec<u8>) -> Result<Self, BadBytes> {
        match bytes.len() <= MAX_BYTES {
            true => Ok(Self(bytes)),
            false => Err(BadBytes::TooLong),
        }
    }

    /// Reads the hexadecimal form.
    pub fn parse(text: &str) -> Result<Self, BadBytes> {
        if text.len() > 2 * MAX_BYTES {
            return Err(BadBytes::TooLong);
        }
        unhex(text).map(Self).ok_or(BadBytes::NotHex)
    }

    /// The bytes themselves.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<String> for Bytes {
    type Error = BadBytes;
    fn try_from(text: String) -> Result<Self, BadBytes> {
        Self::parse(&text)
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> String {
        hex(&bytes.0)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// What a browser gives when a passkey is made (section 5.2.1, `AuthenticatorAttestationResponse`,
/// without the attestation: who made the authenticator is not asked).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The credential's id.
    pub credential: Bytes,
    /// Its public key as `getPublicKey()` gives it: DER, SubjectPublicKeyInfo.
    pub public_key: Bytes,
    /// What the authenticator says of it, `getAuthenticatorData()`.
    pub authenticator_data: Bytes,
    /// What the browser says of it, `clientDataJSON`.
    pub client_data: Bytes,
}

/// What a browser gives when a passkey is used (section 5.2.2, `AuthenticatorAssertionResponse`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// Which passkey.
    pub credential: Bytes,
    /// What the authenticator says of it.
    pub authenticator_data: Bytes,
    /// What the browser says of it, `clientDataJSON`.
    pub client_data: Bytes,
    /// The authenticator's signature over both.
    pub signature: Bytes,
}

/// What comes with an answer to show that a person gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Proof {
    /// Nothing but the link it comes over. Enough for a no, and for a yes to tier 2.
    #[default]
    Link,
    /// The operator key's signature; see [`crate::identity`].
    Operator {
        /// Over the approval's digest.
        signature: Signature,
    },
    /// A passkey's, with the approval's digest as its challenge.
    Passkey {
        /// As the browser gave it.
        assertion: Assertion,
    },
}

/// A passkey that is enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// Its number.
    pub passkey: u64,
    /// What its owner calls it.
    pub name: String,
    /// Whose yes it is.
    pub principal: PrincipalId,
    /// SHA-256 of its id; the record names it so.
    pub credential: Digest,
    /// Since when.
    pub since: Millis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_and_written_in_one_way() {
        assert_eq!(Bytes::parse("00ff").unwrap().as_slice(), [0, 255]);
        assert_eq!(Bytes::parse("00FF"), Err(BadBytes::NotHex));
        assert_eq!(Bytes::parse("0"), Err(BadBytes::NotHex));
        assert!(Bytes::parse(&"00".repeat(MAX_BYTES)).is_ok());
        assert_eq!(
            Bytes::parse(&"00".repeat(MAX_BYTES + 1)),
            Err(BadBytes::TooLong)
        );
        assert_eq!(Bytes::new(vec![0; MAX_BYTES + 1]), Err(BadBytes::TooLong));
        let proof: Proof = serde_json::from_str(r#"{"by":"link"}"#).unwrap();
        assert_eq!(proof, Proof::Link);
    }
}
