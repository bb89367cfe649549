//! `vault.json`: the sealed entries, and the seal over all of them.
//!
//! Each entry is sealed by itself, and the list as a whole carries a seal of its own, so that
//! an entry that was taken away, put back from an older copy or given another date of last
//! use is found. An older copy of the whole file is found by its generation: the record has
//! the last one, and what was sealed then.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::ids::{Digest, SecretName, hex, unhex};
use protocol::time::Millis;
use protocol::vault::{SecretText, Subject, Terms};
use serde::{Deserialize, Serialize};

use crate::fault::StoreError;
use crate::place::Place;
use crate::seal::{MasterKey, Sealed, Tampered, belonging, belonging_1, put, put_date};
use crate::store::{MAX_ENTRIES, MAX_VALUE};

/// Its name in the folder.
pub(crate) const SECRETS: &str = "vault.json";

/// The longest file that is read, in bytes: all entries at their longest in hexadecimal.
const MAX_FILE: u64 = (MAX_ENTRIES * (2 * MAX_VALUE + 8192)) as u64;

const FILE_DOMAIN_1: &[u8] = b"bulkhead/vault-file/v1";
const FILE_DOMAIN: &[u8] = b"bulkhead/vault-file/v2";
const STATE_DOMAIN: &[u8] = b"bulkhead/vault-state/v1";

/// A secret as it is kept.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) subject: Subject,
    pub(crate) created: Millis,
    pub(crate) last_used: Option<Millis>,
    pub(crate) terms: Terms,
    pub(crate) sealed: Sealed,
}

impl Entry {
    /// Seals a value.
    pub(crate) fn seal(
        key: &MasterKey,
        name: &SecretName,
        subject: Subject,
        created: Millis,
        terms: Terms,
        value: &SecretText,
    ) -> Result<Self, StoreError> {
        let clear = value.expose().as_bytes();
        if clear.is_empty() || clear.len() > MAX_VALUE {
            return Err(StoreError::BadLength);
        }
        let sealed = key.seal(&belonging(name, &subject, created, &terms), clear)?;
        Ok(Self {
            subject,
            created,
            last_used: None,
            terms,
            sealed,
        })
    }

    /// Opens the value.
    pub(crate) fn open(&self, key: &MasterKey, name: &SecretName) -> Result<SecretText, Tampered> {
        let bound = belonging(name, &self.subject, self.created, &self.terms);
        key.open(&bound, &self.sealed)
    }
}

/// What a vault is known by in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// How many changes it had.
    pub generation: u64,
    /// Of everything that was sealed in it.
    pub state: Digest,
}

/// All secrets, and how many changes led to them.
#[derive(Clone, Default)]
pub(crate) struct Entries {
    pub(crate) list: BTreeMap<SecretName, Entry>,
    /// How often something was added, rotated or removed, or the whole replaced.
    pub(crate) generation: u64,
    /// What it was before, since it last was what the record knew.
    pub(crate) past: Vec<Recorded>,
}

/// The most changes without a record after which it is still known to be the vault of the record.
pub(crate) const MAX_PAST: usize = 256;

impl Entries {
    /// What the record is told of it: everything but the dates of last use.
    pub(crate) fn state(&self) -> Recorded {
        let mut bytes = STATE_DOMAIN.to_vec();
        bytes.extend(self.generation.to_be_bytes());
        for (name, entry) in &self.list {
            let bound = belonging(name, &entry.subject, entry.created, &entry.terms);
            put(&mut bytes, &bound);
            bytes.extend(entry.sealed.nonce);
            put(&mut bytes, &entry.sealed.ciphertext);
        }
        Recorded {
            generation: self.generation,
            state: Digest::of(bytes),
        }
    }

    /// The canonical form of all of it, which the seal of the file covers.
    fn form(&self) -> Vec<u8> {
        let mut bytes = FILE_DOMAIN.to_vec();
        bytes.extend(self.generation.to_be_bytes());
        bytes.extend((self.past.len() as u64).to_be_bytes());
        for past in &self.past {
            bytes.extend(past.generation.to_be_bytes());
            bytes.extend(past.state.0);
        }
        bytes.extend((self.list.len() as u64).to_be_bytes());
        for (name, entry) in &self.list {
            let bound = belonging(name, &entry.subject, entry.created, &entry.terms);
            put(&mut bytes, &bound);
            put_rest(&mut bytes, entry);
        }
        bytes
    }

    /// The same of a file of version 1.
    fn form_1(&self) -> Vec<u8> {
        let mut bytes = FILE_DOMAIN_1.to_vec();
        bytes.extend((self.list.len() as u64).to_be_bytes());
        for (name, entry) in &self.list {
            put(
                &mut bytes,
                &belonging_1(name, &entry.subject, entry.created),
            );
            put_rest(&mut bytes, entry);
        }
        bytes
    }

    /// Writes all of it; durable when this returns.
    pub(crate) fn write(&self, place: &Place, key: &MasterKey) -> Result<(), StoreError> {
        let form = |(name, entry): (&SecretName, &Entry)| {
            let SealedForm { nonce, ciphertext } = SealedForm::of(&entry.sealed);
            EntryForm {
                name: name.clone(),
                subject: entry.subject.clone(),
                created: entry.created,
                last_used: entry.last_used,
                terms: entry.terms.clone(),
                nonce,
                ciphertext,
            }
        };
        let file = FileForm {
            version: 2,
            generation: self.generation,
            past: self.past.clone(),
            entries: self.list.iter().map(form).collect(),
            seal: SealedForm::of(&key.seal(&self.form(), b"")?),
        };
        let mut bytes =
            serde_json::to_vec_pretty(&file).map_err(|error| StoreError::Malformed {
                path: place.path(SECRETS),
                what: error.to_string(),
            })?;
        bytes.push(b'\n');
        place.replace(SECRETS, &bytes)
    }

    /// Reads the file; nothing is in it that was not sealed with this key.
    pub(crate) fn read(place: &Place, key: &MasterKey) -> Result<Self, StoreError> {
        if !place.has(SECRETS)? {
            return Ok(Self::default());
        }
        let path = place.path(SECRETS);
        let bytes = place.read(SECRETS, MAX_FILE)?;
        // The parser's own words could hold a piece of the file; its position cannot.
        let file: FileForm = serde_json::from_slice(&bytes).map_err(|error| {
            malformed(
                &path,
                &format!("line {}, column {}", error.line(), error.column()),
            )
        })?;
        let (version, seal) = (file.version, file.seal.read());
        let seal = seal.map_err(|what| malformed(&path, what))?;
        let entries = file.entries().map_err(|what| malformed(&path, what))?;
        let tampered = |Tampered| StoreError::Tampered(path.clone());
        match version {
            1 => {
                key.open(&entries.form_1(), &seal).map_err(tampered)?;
                let renewed = entries.renewed(key);
                let renewed =
                    renewed.map_err(|fault| fault.unwrap_or_else(|| tampered(Tampered)))?;
                // At once, so that the record is never told of a state that no file has.
                renewed.write(place, key)?;
                Ok(renewed)
            }
            2 => {
                key.open(&entries.form(), &seal).map_err(tampered)?;
                Ok(entries)
            }
            _ => Err(malformed(&path, "its version is neither 1 nor 2")),
        }
    }

    /// The entries of version 1, sealed as those of today: the first change of this vault.
    fn renewed(mut self, key: &MasterKey) -> Result<Self, Option<StoreError>> {
        for (name, entry) in &mut self.list {
            let bound = belonging_1(name, &entry.subject, entry.created);
            let value = key.open(&bound, &entry.sealed).map_err(|_| None)?;
            let (subject, terms) = (entry.subject.clone(), entry.terms.clone());
            let last_used = entry.last_used;
            *entry = Entry::seal(key, name, subject, entry.created, terms, &value).map_err(Some)?;
            entry.last_used = last_used;
        }
        self.past = vec![Self::default().state()];
        self.generation = 1;
        Ok(self)
    }
}

fn put_rest(bytes: &mut Vec<u8>, entry: &Entry) {
    put_date(bytes, entry.last_used);
    bytes.extend(entry.sealed.nonce);
    put(bytes, &entry.sealed.ciphertext);
}

fn malformed(path: &Path, what: &str) -> StoreError {
    StoreError::Malformed {
        path: path.to_owned(),
        what: what.to_owned(),
    }
}

/// `vault.json`. Version 1 had no generation, no past and no terms.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    version: u32,
    #[serde(default)]
    generation: u64,
    #[serde(default)]
    past: Vec<Recorded>,
    entries: Vec<EntryForm>,
    seal: SealedForm,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryForm {
    name: SecretName,
    subject: Subject,
    created: Millis,
    last_used: Option<Millis>,
    #[serde(default)]
    terms: Terms,
    nonce: String,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedForm {
    nonce: String,
    ciphertext: String,
}

impl FileForm {
    fn entries(self) -> Result<Entries, &'static str> {
        if self.entries.len() > MAX_ENTRIES || self.past.len() > MAX_PAST {
            return Err("it has too many entries");
        }
        let mut list = BTreeMap::new();
        for form in self.entries {
            let EntryForm {
                name,
                subject,
                created,
                last_used,
                terms,
                nonce,
                ciphertext,
            } = form;
            let entry = Entry {
                subject,
                created,
                last_used,
                terms,
                sealed: SealedForm { nonce, ciphertext }.read()?,
            };
            if list.insert(name, entry).is_some() {
                return Err("it has a name twice");
            }
        }
        Ok(Entries {
            list,
            generation: self.generation,
            past: self.past,
        })
    }
}

impl SealedForm {
    fn of(sealed: &Sealed) -> Self {
        Self {
            nonce: hex(&sealed.nonce),
            ciphertext: hex(&sealed.ciphertext),
        }
    }

    fn read(&self) -> Result<Sealed, &'static str> {
        let nonce = unhex(&self.nonce).and_then(|bytes| bytes.try_into().ok());
        Ok(Sealed {
            nonce: nonce.ok_or("a nonce is not 48 hexadecimal digits")?,
            ciphertext: unhex(&self.ciphertext).ok_or("a ciphertext is not hexadecimal")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::place::create_folder;

    /// A file as the first version wrote it, with one secret in it.
    fn first_version(key: &MasterKey) -> String {
        let (name, subject, created) =
            (SecretName::parse("bot").unwrap(), Subject::Model, Millis(7));
        let sealed = key
            .seal(&belonging_1(&name, &subject, created), b"hush")
            .unwrap();
        let entry = Entry {
            subject,
            created,
            last_used: Some(Millis(9)),
            terms: Terms::default(),
            sealed: sealed.clone(),
        };
        let entries = Entries {
            list: BTreeMap::from([(name, entry)]),
            ..Entries::default()
        };
        let seal = key.seal(&entries.form_1(), b"").unwrap();
        serde_json::json!({
            "version": 1,
            "entries": [{
                "name": "bot", "subject": "model", "created": 7, "last_used": 9,
                "nonce": hex(&sealed.nonce), "ciphertext": hex(&sealed.ciphertext),
            }],
            "seal": { "nonce": hex(&seal.nonce), "ciphertext": hex(&seal.ciphertext) },
        })
        .to_string()
    }

    #[test]
    fn a_vault_of_the_first_version_is_taken_over_once_and_stays_the_same_then() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("vault");
        create_folder(&dir).unwrap();
        let place = Place::take(&dir).unwrap();
        let key = MasterKey::generate().unwrap();
        let old = first_version(&key);
        let write = |text: &str| {
            fs::write(dir.join(SECRETS), text).unwrap();
            fs::set_permissions(dir.join(SECRETS), fs::Permissions::from_mode(0o600)).unwrap();
        };
        write(&old);
        let first = Entries::read(&place, &key).unwrap();
        let (name, entry) = first.list.iter().next().unwrap();
        assert_eq!(entry.open(&key, name).unwrap().expose(), "hush");
        assert_eq!(
            (entry.created, entry.last_used),
            (Millis(7), Some(Millis(9)))
        );
        assert_eq!(first.generation, 1);
        let again = Entries::read(&place, &key).unwrap();
        assert_eq!(
            again.state(),
            first.state(),
            "what the record is told is what is on the disk"
        );

        for changed in [
            old.replace("\"model\"", "\"tool\""),
            old.replace("\"created\":7", "\"created\":8"),
            old.replace("\"last_used\":9", "\"last_used\":10"),
            old.replace("\"version\":1", "\"version\":2"),
        ] {
            assert_ne!(changed, old);
            write(&changed);
            assert!(matches!(
                Entries::read(&place, &key),
                Err(StoreError::Tampered(_))
            ));
        }
    }
}
