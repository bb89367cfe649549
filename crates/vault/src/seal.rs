//! Sealing: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) under the master key.
//!
//! What belongs to a secret, its name, who may use it and since when it is, is the
//! authenticated data of its ciphertext. So a ciphertext put under another name, or a
//! subject changed in the file, does not open.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use protocol::ids::{NoRandom, SecretName, hex, random, unhex};
use protocol::time::Millis;
use protocol::vault::{SecretText, Subject};
use zeroize::{Zeroize as _, Zeroizing};

const ENTRY_DOMAIN: &[u8] = b"bulkhead/vault-entry/v1";

/// The length of a nonce in bytes.
pub(crate) const NONCE: usize = 24;

/// It does not open: another key, or a changed byte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tampered;

/// The key over all secrets. Has no Debug, Display, Clone or Serialize; wiped when dropped.
pub(crate) struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// A new one from the kernel's random bytes.
    pub(crate) fn generate() -> Result<Self, NoRandom> {
        Ok(Self(Zeroizing::new(random()?)))
    }

    /// Reads the form that [`Self::hex`] writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(unhex(text)?);
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    /// For its file.
    pub(crate) fn hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex(self.0.as_slice()))
    }

    /// Seals bytes together with what belongs to them.
    pub(crate) fn seal(&self, bound: &[u8], clear: &[u8]) -> Result<Sealed, NoRandom> {
        let nonce = random::<NONCE>()?;
        let payload = Payload {
            msg: clear,
            aad: bound,
        };
        let ciphertext = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            // The cipher refuses only messages over 256 GiB.
            .expect("a secret is far shorter than the cipher's limit");
        Ok(Sealed { nonce, ciphertext })
    }

    /// Opens what was sealed with exactly this belonging to it.
    pub(crate) fn open(&self, bound: &[u8], sealed: &Sealed) -> Result<SecretText, Tampered> {
        let payload = Payload {
            msg: &sealed.ciphertext,
            aad: bound,
        };
        let clear = self
            .cipher()
            .decrypt(&XNonce::from(sealed.nonce), payload)
            .map_err(|_| Tampered)?;
        String::from_utf8(clear)
            .map(SecretText::new)
            .map_err(|error| {
                error.into_bytes().zeroize();
                Tampered
            })
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(<&Key>::from(&*self.0))
    }
}

/// Bytes that only the master key opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) nonce: [u8; NONCE],
    pub(crate) ciphertext: Vec<u8>,
}

/// The canonical form of what belongs to a secret: each field has a fixed length or carries it.
pub(crate) fn belonging(name: &SecretName, subject: &Subject, created: Millis) -> Vec<u8> {
    let mut bytes = ENTRY_DOMAIN.to_vec();
    put(&mut bytes, name.as_str().as_bytes());
    put(&mut bytes, subject.to_string().as_bytes());
    bytes.extend(created.0.to_be_bytes());
    bytes
}

/// A field with its length in front.
pub(crate) fn put(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.extend((field.len() as u64).to_be_bytes());
    bytes.extend(field);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(name: &str, subject: Subject, created: u64) -> Vec<u8> {
        belonging(&SecretName::parse(name).unwrap(), &subject, Millis(created))
    }

    #[test]
    fn a_secret_opens_only_with_its_key_name_subject_and_date() {
        let key = MasterKey::generate().unwrap();
        let right = bound("a", Subject::Model, 1);
        let sealed = key.seal(&right, b"hush").unwrap();
        assert_eq!(key.open(&right, &sealed).unwrap().expose(), "hush");
        let telegram = Subject::Channel("telegram".parse().unwrap());
        for wrong in [
            bound("b", Subject::Model, 1),
            bound("a", telegram, 1),
            bound("a", Subject::Model, 2),
        ] {
            assert!(key.open(&wrong, &sealed).is_err());
        }
        assert!(
            MasterKey::generate()
                .unwrap()
                .open(&right, &sealed)
                .is_err()
        );
        for at in 0..sealed.ciphertext.len() {
            let mut changed = sealed.clone();
            changed.ciphertext[at] ^= 1;
            assert!(key.open(&right, &changed).is_err());
        }
    }

    #[test]
    fn fields_do_not_run_into_one_another() {
        let channel = |name: &str| Subject::Channel(name.parse().unwrap());
        assert_ne!(bound("ab", channel("c"), 1), bound("a", channel("bc"), 1));
        assert_ne!(
            bound("a", channel("model"), 1),
            bound("a", Subject::Model, 1)
        );
    }

    #[test]
    fn the_key_goes_there_and_back_and_nothing_else_is_a_key() {
        let key = MasterKey::generate().unwrap();
        assert!(MasterKey::parse(&key.hex()).unwrap().0 == key.0);
        assert!(MasterKey::parse("00").is_none());
        assert!(MasterKey::parse(&"g".repeat(64)).is_none());
    }
}
