//! `vault.key`: the key of the secrets, bare or wrapped under something that is kept elsewhere.
//!
//! The key itself stays the same when it is kept otherwise: only this file is replaced, whole.
//! So after a crash the vault opens in the old way or in the new one. Whoever copied the bare
//! file before can still open what they copied with it.

use std::path::Path;

use protocol::ids::{Digest, hex, unhex};
use protocol::vault::{KeySource, Protection, SecretText, Unlocking};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::fault::StoreError;
use crate::place::{Place, read_ours};
use crate::seal::{MasterKey, Sealed, put};
use crate::stretch::{self, Stretch};

/// Its name in the folder.
pub(crate) const KEY: &str = "vault.key";

/// The longest key file in bytes.
const MAX_FILE: u64 = 4096;

const DOMAIN: &[u8] = b"bulkhead/vault-key/v1";
const OUTER_DOMAIN: &[u8] = b"bulkhead/vault-key-of-elsewhere/v1";

/// How the key is kept.
pub(crate) enum Keeping {
    /// Bare, in its file.
    Bare,
    /// Under something else.
    Wrapped(Wrapped),
}

/// The key as it stands in its file, under another one.
pub(crate) struct Wrapped {
    with: With,
    sealed: Sealed,
}

/// What opens it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum With {
    Passphrase { stretch: Stretch },
    Keyring { entry: String },
    Credential {},
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    with: With,
    nonce: String,
    ciphertext: String,
}

/// What a key file holds.
pub(crate) enum Found {
    /// The key.
    Bare(MasterKey),
    /// The key, wrapped.
    Wrapped(Wrapped),
}

/// Reads the key file; none if there is none.
pub(crate) fn read(place: &Place) -> Result<Option<Found>, StoreError> {
    if !place.has(KEY)? {
        return Ok(None);
    }
    let path = place.path(KEY);
    let bytes = place.read(KEY, MAX_FILE)?;
    found(&path, &bytes).map(Some)
}

fn found(path: &Path, bytes: &[u8]) -> Result<Found, StoreError> {
    let malformed = || StoreError::KeyMalformed(path.to_owned());
    let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
    if !text.starts_with('{') {
        let key = MasterKey::parse(text.trim_end_matches('\n'))?;
        return key.map(Found::Bare).ok_or_else(malformed);
    }
    let form: Form = serde_json::from_str(text).map_err(|_| malformed())?;
    let nonce = unhex(&form.nonce).and_then(|bytes| bytes.try_into().ok());
    let (1, Some(nonce), Some(ciphertext)) = (form.version, nonce, unhex(&form.ciphertext)) else {
        return Err(malformed());
    };
    Ok(Found::Wrapped(Wrapped {
        with: form.with,
        sealed: Sealed { nonce, ciphertext },
    }))
}

/// How the key of the vault in this folder is kept; none if it has no key yet.
///
/// # Errors
///
/// The file cannot be read, others can read it, or it is not a key.
pub fn key_source(dir: &Path) -> Result<Option<KeySource>, StoreError> {
    let path = dir.join(KEY);
    if !path.try_exists().map_err(StoreError::io(&path))? {
        return Ok(None);
    }
    let bytes = read_ours(&path, MAX_FILE)?;
    Ok(Some(match found(&path, &bytes)? {
        Found::Bare(_) => KeySource::KeyFile,
        Found::Wrapped(wrapped) => wrapped.source(),
    }))
}

/// Keeps the key this way from now on; durable when this returns.
pub(crate) fn keep(
    place: &Place,
    key: &MasterKey,
    how: &Protection,
) -> Result<Keeping, StoreError> {
    let with = match how {
        Protection::KeyFile => {
            let line = Zeroizing::new(format!("{}\n", *key.hex()));
            place.replace(KEY, line.as_bytes())?;
            return Ok(Keeping::Bare);
        }
        Protection::Passphrase { passphrase } => {
            stretch::check(passphrase)?;
            With::Passphrase {
                stretch: Stretch::new()?,
            }
        }
        Protection::Keyring { entry, key } => {
            check_outer(key)?;
            let odd = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
            if entry.is_empty() || entry.len() > 64 || entry.contains(odd) {
                return Err(StoreError::BadEntry);
            }
            With::Keyring {
                entry: entry.clone(),
            }
        }
        Protection::Credential { key } => {
            check_outer(key)?;
            With::Credential {}
        }
    };
    let outer = match (&with, how) {
        (With::Passphrase { stretch }, Protection::Passphrase { passphrase }) => {
            stretched(stretch, passphrase)?
        }
        (_, Protection::Keyring { key, .. } | Protection::Credential { key }) => outer(key)?,
        (_, Protection::KeyFile | Protection::Passphrase { .. }) => {
            return Err(StoreError::OtherKey);
        }
    };
    let sealed = outer.seal(&with.bound(), key.hex().as_bytes())?;
    let form = Form {
        version: 1,
        with: with.clone(),
        nonce: hex(&sealed.nonce),
        ciphertext: hex(&sealed.ciphertext),
    };
    let mut bytes =
        serde_json::to_vec_pretty(&form).map_err(|_| StoreError::KeyMalformed(place.path(KEY)))?;
    bytes.push(b'\n');
    place.replace(KEY, &bytes)?;
    Ok(Keeping::Wrapped(Wrapped { with, sealed }))
}

impl With {
    /// What the wrapped key is bound to: the domain, and all of this.
    fn bound(&self) -> Vec<u8> {
        let mut bytes = DOMAIN.to_vec();
        // Plain enums of texts and numbers always have a JSON form, with their fields in this order.
        put(&mut bytes, &serde_json::to_vec(self).unwrap_or_default());
        bytes
    }
}

impl Wrapped {
    /// What opens it.
    pub(crate) fn source(&self) -> KeySource {
        match self.with {
            With::Passphrase { .. } => KeySource::Passphrase,
            With::Keyring { .. } => KeySource::Keyring,
            With::Credential {} => KeySource::Credential,
        }
    }

    /// The keyring's entry, if it is that.
    pub(crate) fn entry(&self) -> Option<&str> {
        match &self.with {
            With::Keyring { entry } => Some(entry),
            With::Passphrase { .. } | With::Credential {} => None,
        }
    }

    /// The key of the secrets.
    ///
    /// # Errors
    ///
    /// [`StoreError::WrongKey`] if this does not open it, [`StoreError::OtherKey`] if it is not of its kind.
    pub(crate) fn open(&self, with: &Unlocking) -> Result<MasterKey, StoreError> {
        let outer = match (&self.with, with) {
            (With::Passphrase { stretch }, Unlocking::Passphrase { passphrase }) => {
                stretched(stretch, passphrase)?
            }
            (With::Keyring { .. } | With::Credential {}, Unlocking::Key { key }) => outer(key)?,
            (With::Passphrase { .. }, Unlocking::Key { .. })
            | (With::Keyring { .. } | With::Credential {}, Unlocking::Passphrase { .. }) => {
                return Err(StoreError::OtherKey);
            }
        };
        let text = outer
            .open(&self.with.bound(), &self.sealed)
            .map_err(|_| StoreError::WrongKey)?;
        MasterKey::parse(text.expose())?.ok_or(StoreError::WrongKey)
    }
}

fn stretched(stretch: &Stretch, passphrase: &SecretText) -> Result<MasterKey, StoreError> {
    let key = stretch.key(passphrase)?.ok_or(StoreError::WrongKey)?;
    MasterKey::of(&key)
}

fn check_outer(key: &SecretText) -> Result<(), StoreError> {
    match (32..=4096).contains(&key.expose().len()) {
        true => Ok(()),
        false => Err(StoreError::BadKey),
    }
}

/// A key from what the keyring or systemd keeps, which is random and needs no stretching.
fn outer(key: &SecretText) -> Result<MasterKey, StoreError> {
    let mut bytes = Zeroizing::new(OUTER_DOMAIN.to_vec());
    bytes.reserve_exact(key.expose().len());
    bytes.extend(key.expose().as_bytes());
    let digest = Digest::of(&*bytes);
    let bytes = Zeroizing::new(digest.0);
    MasterKey::of(&bytes)
}
