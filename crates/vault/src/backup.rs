//! A backup: all secrets in one file, sealed under a passphrase of its own.
//!
//! It depends on nothing of this vault, so that it opens on another machine. Its header says
//! how the passphrase is stretched, and is authenticated with the rest.

use std::collections::BTreeMap;

use protocol::ids::{SecretName, hex, unhex};
use protocol::time::Millis;
use protocol::vault::{SecretText, Subject, Terms};
use sandbox::memory;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::entries::Entry;
use crate::fault::StoreError;
use crate::seal::{MasterKey, Sealed, put};
use crate::store::MAX_ENTRIES;
use crate::stretch::{self, Stretch};

const DOMAIN: &[u8] = b"bulkhead/vault-backup/v1";

/// What the file says it is.
const KIND: &str = "bulkhead-vault-backup";

/// The longest backup that is read, in bytes.
pub(crate) const MAX_BACKUP: usize = 256 * 1024 * 1024;

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kind: String,
    version: u32,
    made: Millis,
    stretch: Stretch,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    header: Header,
    nonce: String,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    name: SecretName,
    subject: Subject,
    created: Millis,
    last_used: Option<Millis>,
    terms: Terms,
    value: SecretText,
}

/// All of these sealed under the passphrase.
pub(crate) fn seal(
    list: &BTreeMap<SecretName, Entry>,
    key: &MasterKey,
    passphrase: &SecretText,
    tampered: impl Fn() -> StoreError,
) -> Result<String, StoreError> {
    stretch::check(passphrase)?;
    let header = Header {
        kind: KIND.to_owned(),
        version: 1,
        made: Millis::now(),
        stretch: Stretch::new()?,
    };
    // With all its room from the start, so that growing leaves no copies behind.
    let room = list
        .values()
        .map(|entry| 6 * entry.sealed.ciphertext.len() + 8192)
        .sum();
    let mut clear = Zeroizing::new(Vec::with_capacity(room));
    clear.push(b'[');
    for (name, entry) in list {
        let value = entry.open(key, name).map_err(|_| tampered())?;
        let kept = Kept {
            name: name.clone(),
            subject: entry.subject.clone(),
            created: entry.created,
            last_used: entry.last_used,
            terms: entry.terms.clone(),
            value,
        };
        if clear.len() > 1 {
            clear.push(b',');
        }
        serde_json::to_writer(&mut *clear, &kept).map_err(|_| tampered())?;
    }
    clear.push(b']');
    let held = memory::lock(&clear).map_err(StoreError::Unlockable)?;
    let outer = outer(&header, passphrase)?;
    let sealed = outer.seal(&header.bound(), &clear)?;
    clear.zeroize();
    drop(held);
    let file = File {
        header,
        nonce: hex(&sealed.nonce),
        ciphertext: hex(&sealed.ciphertext),
    };
    serde_json::to_string(&file)
        .map(|text| text + "\n")
        .map_err(|_| tampered())
}

/// The secrets of a backup, sealed for the vault with this key.
pub(crate) fn open(
    text: &str,
    passphrase: &SecretText,
    key: &MasterKey,
) -> Result<BTreeMap<SecretName, Entry>, StoreError> {
    let none =
        || StoreError::BadBackup("this file is not a backup of a vault, or only a part of one");
    let file: File = serde_json::from_str(text).map_err(|_| none())?;
    let nonce = unhex(&file.nonce).and_then(|bytes| bytes.try_into().ok());
    let (KIND, Some(nonce), Some(ciphertext)) =
        (file.header.kind.as_str(), nonce, unhex(&file.ciphertext))
    else {
        return Err(none());
    };
    if file.header.version != 1 {
        return Err(StoreError::BadBackup(
            "this backup was made by another version of Bulkhead",
        ));
    }
    let outer = outer(&file.header, passphrase)?;
    let clear = outer
        .open(&file.header.bound(), &Sealed { nonce, ciphertext })
        .map_err(|_| StoreError::BadBackup("that is not its passphrase, or it was changed"))?;
    let _held = memory::lock(clear.expose().as_bytes()).map_err(StoreError::Unlockable)?;
    let kept: Vec<Kept> = serde_json::from_str(clear.expose()).map_err(|_| none())?;
    if kept.len() > MAX_ENTRIES {
        return Err(StoreError::Full);
    }
    let mut list = BTreeMap::new();
    for kept in kept {
        let mut entry = Entry::seal(
            key,
            &kept.name,
            kept.subject,
            kept.created,
            kept.terms,
            &kept.value,
        )?;
        entry.last_used = kept.last_used;
        list.insert(kept.name, entry);
    }
    Ok(list)
}

impl Header {
    fn bound(&self) -> Vec<u8> {
        let mut bytes = DOMAIN.to_vec();
        // Plain structs of texts and numbers always have a JSON form, with their fields in this order.
        put(&mut bytes, &serde_json::to_vec(self).unwrap_or_default());
        bytes
    }
}

fn outer(header: &Header, passphrase: &SecretText) -> Result<MasterKey, StoreError> {
    let key = header.stretch.key(passphrase)?;
    MasterKey::of(&*key.ok_or(StoreError::BadBackup(
        "its passphrase is stretched in a way that is not taken",
    ))?)
}
