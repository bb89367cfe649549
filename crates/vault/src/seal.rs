//! Sealing: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) under the master key.
//!
//! What belongs to a secret, its name, who may use it, since when and under which terms, is
//! the authenticated data of its ciphertext. So a ciphertext put under another name, or a
//! subject or a host changed in the file, does not open.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use protocol::ids::{NoRandom, SecretName, hex, random, unhex};
use protocol::time::Millis;
use protocol::vault::{SecretKind, SecretText, Subject, Terms};
use sandbox::memory;
use zeroize::{Zeroize as _, Zeroizing};

use crate::fault::StoreError;

const ENTRY_DOMAIN_1: &[u8] = b"bulkhead/vault-entry/v1";
const ENTRY_DOMAIN: &[u8] = b"bulkhead/vault-entry/v2";

/// The length of a nonce in bytes.
pub(crate) const NONCE: usize = 24;

/// It does not open: another key, or a changed byte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tampered;

/// A key over secrets. Has no Debug, Display, Clone or Serialize; kept out of the swap; wiped
/// when dropped.
pub(crate) struct MasterKey(Box<Zeroizing<[u8; 32]>>);

impl MasterKey {
    /// A new one from the kernel's random bytes.
    pub(crate) fn generate() -> Result<Self, StoreError> {
        Self::of(&Zeroizing::new(random()?))
    }

    /// These bytes.
    ///
    /// # Errors
    ///
    /// The memory cannot be locked.
    pub(crate) fn of(bytes: &[u8; 32]) -> Result<Self, StoreError> {
        let mut place = Box::new(Zeroizing::new([0; 32]));
        // Its page stays locked: others of such keys may lie in it.
        memory::lock(place.as_slice())
            .map_err(StoreError::Unlockable)?
            .for_good();
        place.copy_from_slice(bytes);
        Ok(Self(place))
    }

    /// Reads the form that [`Self::hex`] writes.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, StoreError> {
        let bytes = unhex(text).map(Zeroizing::new);
        let bytes = bytes.and_then(|bytes| Some(Zeroizing::new(bytes.as_slice().try_into().ok()?)));
        bytes.map(|bytes| Self::of(&bytes)).transpose()
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
        XChaCha20Poly1305::new(<&Key>::from(&**self.0))
    }
}

/// Bytes that only the master key opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) nonce: [u8; NONCE],
    pub(crate) ciphertext: Vec<u8>,
}

/// The canonical form of what belongs to a secret: each field has a fixed length or carries it.
pub(crate) fn belonging(
    name: &SecretName,
    subject: &Subject,
    created: Millis,
    terms: &Terms,
) -> Vec<u8> {
    let mut bytes = ENTRY_DOMAIN.to_vec();
    put(&mut bytes, name.as_str().as_bytes());
    put(&mut bytes, subject.to_string().as_bytes());
    bytes.extend(created.0.to_be_bytes());
    bytes.extend((terms.hosts.len() as u64).to_be_bytes());
    for host in &terms.hosts {
        put(&mut bytes, host.as_str().as_bytes());
    }
    bytes.push(match terms.kind {
        SecretKind::Secret => 0,
        SecretKind::Honeytoken => 1,
    });
    put_date(&mut bytes, terms.expires);
    put_date(&mut bytes, terms.rotate_by);
    bytes
}

/// The same in a file of version 1, whose secrets had no terms.
pub(crate) fn belonging_1(name: &SecretName, subject: &Subject, created: Millis) -> Vec<u8> {
    let mut bytes = ENTRY_DOMAIN_1.to_vec();
    put(&mut bytes, name.as_str().as_bytes());
    put(&mut bytes, subject.to_string().as_bytes());
    bytes.extend(created.0.to_be_bytes());
    bytes
}

/// No date is written as one that no clock shows.
pub(crate) fn put_date(bytes: &mut Vec<u8>, date: Option<Millis>) {
    bytes.extend(date.map_or(u64::MAX, |date| date.0).to_be_bytes());
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
        let name = SecretName::parse(name).unwrap();
        belonging(&name, &subject, Millis(created), &Terms::default())
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
    fn each_of_the_terms_belongs_to_a_secret() {
        let hosts = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let all = [
            Terms::default(),
            Terms {
                hosts: hosts(&["a.example"]),
                ..Terms::default()
            },
            Terms {
                hosts: hosts(&["b.example"]),
                ..Terms::default()
            },
            Terms {
                hosts: hosts(&["a.example", "b.example"]),
                ..Terms::default()
            },
            Terms {
                kind: SecretKind::Honeytoken,
                ..Terms::default()
            },
            Terms {
                expires: Some(Millis(1)),
                ..Terms::default()
            },
            Terms {
                rotate_by: Some(Millis(1)),
                ..Terms::default()
            },
        ];
        let name = SecretName::parse("a").unwrap();
        let forms: std::collections::BTreeSet<_> = all
            .iter()
            .map(|terms| belonging(&name, &Subject::Tool, Millis(1), terms))
            .collect();
        assert_eq!(forms.len(), all.len());
    }

    #[test]
    fn the_key_goes_there_and_back_and_nothing_else_is_a_key() {
        let key = MasterKey::generate().unwrap();
        let read = |text: &str| MasterKey::parse(text).unwrap();
        assert!(read(&key.hex()).unwrap().0 == key.0);
        assert!(read("00").is_none());
        assert!(read(&"g".repeat(64)).is_none());
    }
}
