//! Passkeys (Web Authentication Level 2, W3C Recommendation): what a browser made is taken for
//! a person's yes only if every byte that it vouches for is as it has to be. Pure.
//!
//! The challenge that a passkey signs is the digest of the approval, which holds the exact call,
//! a nonce and the expiry. Attestation is not asked for: whose passkey it is, its enrolment by a
//! one-time code says.

use protocol::event::Signer;
use protocol::ids::Digest;
use protocol::passkey::{Assertion, Bytes, Enrolment, RP_ID};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;

use crate::consent::Signed;

/// What precedes the point in a SubjectPublicKeyInfo of P-256 (RFC 5480): two algorithm
/// identifiers, and the head of the bit string.
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The longest id of a credential, in bytes (section 4, "Credential ID").
const MAX_CREDENTIAL: usize = 1023;

/// The least of authenticator data (section 6.1): the hash of the RP ID, flags, a counter.
const LEAST_DATA: usize = 37;

/// Somebody touched the authenticator.
const USER_PRESENT: u8 = 1 << 0;

/// It knows who: by finger, face or PIN.
const USER_VERIFIED: u8 = 1 << 2;

/// Data of an enrolment follow.
const ENROLS: u8 = 1 << 6;

/// Extensions follow.
const EXTENDS: u8 = 1 << 7;

/// A passkey as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passkey {
    /// Its id.
    pub credential: Bytes,
    /// Its public key, a point of P-256.
    pub key: Point,
    /// The highest counter seen; 0 with authenticators that do not count.
    pub counter: u32,
}

/// A point of P-256, uncompressed (SEC 1, section 2.3.3), as far as its form tells; whether it
/// lies on the curve is found out with each signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Point([u8; 65]);

impl Point {
    /// Checks length and form.
    pub fn new(bytes: &[u8]) -> Result<Self, BadPasskey> {
        match <[u8; 65]>::try_from(bytes) {
            Ok(point @ [4, ..]) => Ok(Self(point)),
            Ok(_) | Err(_) => Err(BadPasskey::KeyForm),
        }
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", protocol::ids::hex(&self.0))
    }
}

/// A use of a passkey that counts.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// The signature.
    pub signed: Signed,
    /// To be kept before it counts for anything: a lower one is refused from then on.
    pub counter: u32,
}

/// Why what a browser made is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPasskey {
    /// The browser's part is no JSON of the right form.
    #[error("the browser's data cannot be read")]
    ClientData,
    /// It was made for something else.
    #[error("the browser's data are of another kind")]
    Kind,
    /// It signs something else: another approval, or an older one.
    #[error("it was made for another call than the one that is asked about")]
    Challenge,
    /// It was made by another page.
    #[error("it was made by another page; open the page as `bulkhead login` prints it")]
    Origin,
    /// The authenticator's part is too short or too long.
    #[error("the authenticator's data cannot be read")]
    AuthenticatorData,
    /// It was made for another name.
    #[error("it was made for another site")]
    RpId,
    /// Nobody touched it.
    #[error("nobody touched the authenticator")]
    NotPresent,
    /// The authenticator did not find out who touched it.
    #[error("the authenticator did not verify who touched it; it needs a PIN, finger or face")]
    NotVerified,
    /// The counter did not go up, so there may be a copy of it.
    #[error(
        "its counter went from {was} to {is}, as that of a copy would; remove it with `bulkhead passkey remove` unless you know why"
    )]
    Counter {
        /// The highest seen.
        was: u32,
        /// The one that came.
        is: u32,
    },
    /// Another passkey made it.
    #[error("another passkey made it")]
    OtherPasskey,
    /// The signature does not hold.
    #[error("its signature does not hold")]
    Signature,
    /// The key is of another kind than P-256.
    #[error("only passkeys with a P-256 key (ES256) are taken")]
    KeyForm,
    /// The id is empty, too long, or not the one the authenticator names.
    #[error("the passkey's id is not the one that the authenticator names")]
    Credential,
}

/// Whether this passkey says yes to the approval with this digest, on the page at this origin.
pub fn verify(
    assertion: &Assertion,
    passkey: &Passkey,
    digest: Digest,
    origin: &str,
) -> Result<Used, BadPasskey> {
    if assertion.credential != passkey.credential {
        return Err(BadPasskey::OtherPasskey);
    }
    check_client(&assertion.client_data, "webauthn.get", digest, origin)?;
    let data = Authenticator::read(&assertion.authenticator_data)?;
    data.check_person()?;
    let whole = data.rest.is_empty() || data.flags & EXTENDS != 0;
    if data.flags & ENROLS != 0 || !whole {
        return Err(BadPasskey::AuthenticatorData);
    }
    let mut signed = assertion.authenticator_data.as_slice().to_vec();
    signed.extend(Digest::of(assertion.client_data.as_slice()).0);
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, passkey.key.0)
        .verify(&signed, assertion.signature.as_slice())
        .map_err(|_| BadPasskey::Signature)?;
    let (was, is) = (passkey.counter, data.counter);
    // Section 7.2, step 21: where either counts, it has to go up.
    if (was, is) != (0, 0) && is <= was {
        return Err(BadPasskey::Counter { was, is });
    }
    let by = Signer::Passkey {
        credential: Digest::of(passkey.credential.as_slice()),
    };
    Ok(Used {
        signed: Signed::new(digest, by),
        counter: is,
    })
}

/// Takes a passkey that was made with this challenge on the page at this origin.
pub fn enrol(
    enrolment: &Enrolment,
    challenge: Digest,
    origin: &str,
) -> Result<Passkey, BadPasskey> {
    check_client(&enrolment.client_data, "webauthn.create", challenge, origin)?;
    let data = Authenticator::read(&enrolment.authenticator_data)?;
    data.check_person()?;
    let credential = enrolment.credential.as_slice();
    if credential.is_empty() || credential.len() > MAX_CREDENTIAL {
        return Err(BadPasskey::Credential);
    }
    // Section 6.5.1: the authenticator's model, then the length of the id and the id.
    let named = data.rest.get(16..).and_then(|rest| {
        let (length, rest) = rest.split_first_chunk::<2>()?;
        rest.get(..u16::from_be_bytes(*length).into())
    });
    if data.flags & ENROLS == 0 || named != Some(credential) {
        return Err(BadPasskey::Credential);
    }
    let point = enrolment.public_key.as_slice().strip_prefix(&SPKI);
    Ok(Passkey {
        credential: enrolment.credential.clone(),
        key: Point::new(point.ok_or(BadPasskey::KeyForm)?)?,
        counter: data.counter,
    })
}

/// What a browser says (section 5.8.1). It may say more, which means nothing here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    r#type: String,
    challenge: String,
    origin: String,
    /// Whether the page was within another one.
    #[serde(default)]
    cross_origin: bool,
}

fn check_client(
    data: &Bytes,
    kind: &str,
    challenge: Digest,
    origin: &str,
) -> Result<(), BadPasskey> {
    let data: ClientData =
        serde_json::from_slice(data.as_slice()).map_err(|_| BadPasskey::ClientData)?;
    match () {
        () if data.r#type != kind => Err(BadPasskey::Kind),
        () if data.challenge != base64url(&challenge.0) => Err(BadPasskey::Challenge),
        () if data.origin != origin || data.cross_origin => Err(BadPasskey::Origin),
        () => Ok(()),
    }
}

/// What an authenticator says (section 6.1).
struct Authenticator<'a> {
    site: &'a [u8; 32],
    flags: u8,
    counter: u32,
    rest: &'a [u8],
}

impl<'a> Authenticator<'a> {
    fn read(data: &'a Bytes) -> Result<Self, BadPasskey> {
        let (head, rest) = data
            .as_slice()
            .split_first_chunk::<LEAST_DATA>()
            .ok_or(BadPasskey::AuthenticatorData)?;
        let (site, head) = head
            .split_first_chunk::<32>()
            .ok_or(BadPasskey::AuthenticatorData)?;
        let [flags, counter @ ..] = head else {
            return Err(BadPasskey::AuthenticatorData);
        };
        Ok(Self {
            site,
            flags: *flags,
            counter: counter
                .iter()
                .fold(0, |number, byte| number << 8 | u32::from(*byte)),
            rest,
        })
    }

    /// Whether it was made for this site by somebody the authenticator knows.
    fn check_person(&self) -> Result<(), BadPasskey> {
        match () {
            () if *self.site != Digest::of(RP_ID).0 => Err(BadPasskey::RpId),
            () if self.flags & USER_PRESENT == 0 => Err(BadPasskey::NotPresent),
            () if self.flags & USER_VERIFIED == 0 => Err(BadPasskey::NotVerified),
            () => Ok(()),
        }
    }
}

/// Base64url without padding (RFC 4648, section 5), as browsers write a challenge.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let held = (0..3).fold(0_usize, |held, at| {
            held << 8 | usize::from(group.get(at).copied().unwrap_or(0))
        });
        for at in 0..=group.len() {
            text.push(char::from(DIGITS[held >> (18 - 6 * at) & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_written_as_rfc_4648_has_it() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }
}
