//! A passkey in software: what an authenticator and a browser make together, and what they
//! would make if one of them were wrong or false.

use protocol::ids::{Digest, hex};
use protocol::passkey::{Assertion, Bytes, Enrolment, RP_ID};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

/// Somebody touched it, and was verified.
pub const PRESENT_AND_VERIFIED: u8 = 0b101;

/// Data of an enrolment follow.
const ENROLS: u8 = 1 << 6;

/// What precedes the point in a SubjectPublicKeyInfo of P-256 (RFC 5480), in hexadecimal.
const SPKI: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";

/// A passkey with its private key.
pub struct SoftKey {
    pair: EcdsaKeyPair,
    credential: Vec<u8>,
}

/// What is signed and how; each can be something false.
#[derive(Clone, Debug)]
pub struct Made {
    /// `webauthn.get` or `webauthn.create`.
    pub kind: String,
    /// What is signed.
    pub challenge: Vec<u8>,
    /// The page.
    pub origin: String,
    /// The site.
    pub rp_id: String,
    /// What the authenticator found out.
    pub flags: u8,
    /// How often it was used.
    pub counter: u32,
}

impl Made {
    /// A yes to this approval as it should be.
    pub fn yes(digest: Digest, origin: &str) -> Self {
        Self {
            kind: "webauthn.get".to_owned(),
            challenge: digest.0.to_vec(),
            origin: origin.to_owned(),
            rp_id: RP_ID.to_owned(),
            flags: PRESENT_AND_VERIFIED,
            counter: 1,
        }
    }

    /// An enrolment with this one-time code as it should be.
    pub fn enrolment(code: &str, origin: &str) -> Self {
        Self {
            kind: "webauthn.create".to_owned(),
            flags: PRESENT_AND_VERIFIED | ENROLS,
            counter: 0,
            ..Self::yes(Digest::of(code), origin)
        }
    }

    fn client_data(&self) -> Vec<u8> {
        let challenge = base64url(&self.challenge);
        let data = json!({
            "type": self.kind, "challenge": challenge, "origin": self.origin, "crossOrigin": false,
        });
        data.to_string().into_bytes()
    }

    fn authenticator_data(&self) -> Vec<u8> {
        let mut data = Digest::of(&self.rp_id).0.to_vec();
        data.push(self.flags);
        data.extend(self.counter.to_be_bytes());
        data
    }
}

impl SoftKey {
    /// A new one.
    pub fn generate() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random);
        let credential = Digest::of(document.as_ref()).0[..16].to_vec();
        Self {
            pair: pair.expect("the key just made"),
            credential,
        }
    }

    /// What it is called by.
    pub fn credential(&self) -> Bytes {
        bytes(&self.credential)
    }

    /// Its public key, a point of P-256 in 65 bytes.
    pub fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// What is sent to enrol it.
    pub fn enrol(&self, made: &Made) -> Enrolment {
        let mut authenticator_data = made.authenticator_data();
        authenticator_data.extend([0; 16]);
        let length = u16::try_from(self.credential.len()).expect("a short id");
        authenticator_data.extend(length.to_be_bytes());
        authenticator_data.extend(&self.credential);
        Enrolment {
            credential: self.credential(),
            public_key: Bytes::parse(&format!("{SPKI}{}", hex(self.point()))).expect("a key"),
            authenticator_data: bytes(&authenticator_data),
            client_data: bytes(&made.client_data()),
        }
    }

    /// What is sent to use it.
    pub fn sign(&self, made: &Made) -> Assertion {
        let (data, client) = (made.authenticator_data(), made.client_data());
        let message = [data.as_slice(), &Digest::of(&client).0].concat();
        let signature = self.pair.sign(&SystemRandom::new(), &message);
        Assertion {
            credential: self.credential(),
            authenticator_data: bytes(&data),
            client_data: bytes(&client),
            signature: bytes(signature.expect("a signature").as_ref()),
        }
    }
}

fn bytes(bytes: &[u8]) -> Bytes {
    Bytes::new(bytes.to_vec()).expect("not too many")
}

/// Base64url without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let digit = |bits: &[u8]| {
        let value = (0..6).fold(0_usize, |value, at| {
            value << 1 | usize::from(bits.get(at) == Some(&b'1'))
        });
        char::from(DIGITS[value])
    };
    bits.as_bytes().chunks(6).map(digit).collect()
}
