//! The vault's folder: `vault.json` with the sealed entries, `vault.key`, `vault.lock`.
//!
//! Both files are only ever replaced whole: written beside, synced, renamed over. Each
//! entry is sealed by itself, and the list as a whole carries a seal of its own, so that
//! an entry that was taken away, put back from an older copy or given another date of last
//! use is found. What is not found is an older copy of the whole file with its seal.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::ids::{NoRandom, SecretName, hex, unhex};
use protocol::time::Millis;
use protocol::vault::{SecretEntry, SecretText, Subject};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::seal::{MasterKey, Sealed, belonging, put};

/// The longest secret in bytes.
pub const MAX_VALUE: usize = 64 * 1024;

/// The most secrets.
pub const MAX_ENTRIES: usize = 1000;

/// The longest `vault.json` that is read, in bytes: all entries at their longest in hexadecimal.
const MAX_FILE: u64 = (MAX_ENTRIES * (2 * MAX_VALUE + 1024)) as u64;

const FILE_DOMAIN: &[u8] = b"bulkhead/vault-file/v1";
const SECRETS: &str = "vault.json";
const KEY: &str = "vault.key";
const LOCK: &str = "vault.lock";

/// How long to wait for another process to let go of the vault.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Why the vault cannot be used, or why it did not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("{path:?}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Another process has it.
    #[error("another process is using the vault in {0:?}; stop it with `bulkhead down`")]
    InUse(PathBuf),
    /// Somebody else could read a file that is only for the vault.
    #[error("others can read {0:?}; run: chmod go= {0:?}")]
    OpenToOthers(PathBuf),
    /// There are secrets and no key to open them.
    #[error(
        "{0:?} is missing, and without it no secret opens; restore it from a backup, or remove {SECRETS} and add the secrets again"
    )]
    KeyMissing(PathBuf),
    /// The key's file does not hold a key.
    #[error("{0:?} does not hold a key of 64 hexadecimal digits; restore it from a backup")]
    KeyMalformed(PathBuf),
    /// The secrets' file is not one.
    #[error("{path:?} is not a vault: {what}; restore it from a backup")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong, without its content.
        what: String,
    },
    /// The seal does not match.
    #[error(
        "{0:?} was changed by somebody else, or {KEY} is not its key; restore both from one backup"
    )]
    Tampered(PathBuf),
    /// No random bytes.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// There is no such secret.
    #[error("there is no secret `{0}`; `bulkhead vault list` shows the names")]
    Unknown(SecretName),
    /// The name is taken.
    #[error("there is a secret `{0}` already; `bulkhead vault rotate {0}` replaces its value")]
    Taken(SecretName),
    /// No room.
    #[error("the vault is full with {MAX_ENTRIES} secrets; remove one first")]
    Full,
    /// Nothing in it, or too much.
    #[error("a secret has from 1 to {MAX_VALUE} bytes")]
    BadLength,
}

/// Where the master key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file beside the secrets: whoever can copy the folder has everything in it.
    KeyFile,
}

impl KeySource {
    /// Where the key of the vault in this folder comes from; none if it has no key yet.
    pub fn of(dir: &Path) -> Result<Option<Self>, StoreError> {
        Ok(exists(&dir.join(KEY))?.then_some(Self::KeyFile))
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyFile => f.write_str(
                "a key file beside the secrets; whoever can copy the folder can open them",
            ),
        }
    }
}

/// The secrets, and the only handle that writes them.
pub struct Store {
    dir: PathBuf,
    key: MasterKey,
    entries: BTreeMap<SecretName, Entry>,
    // Held for as long as this lives.
    _lock: File,
}

#[derive(Clone)]
struct Entry {
    subject: Subject,
    created: Millis,
    last_used: Option<Millis>,
    sealed: Sealed,
}

impl Store {
    /// Makes the folder if it is missing; nothing is read or written in it yet.
    pub fn create_folder(dir: &Path) -> Result<(), StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(io_at(dir))
    }

    /// Opens the vault in this folder, or makes an empty one with a new key.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        only_ours(dir)?;
        let lock = lock(&dir.join(LOCK))?;
        let secrets = dir.join(SECRETS);
        let key = match read_key(&dir.join(KEY))? {
            Some(key) => key,
            None if exists(&secrets)? => return Err(StoreError::KeyMissing(dir.join(KEY))),
            None => {
                let key = MasterKey::generate()?;
                let line = Zeroizing::new(format!("{}\n", *key.hex()));
                replace(dir, KEY, line.as_bytes())?;
                key
            }
        };
        let entries = if exists(&secrets)? {
            load(&secrets, &key)?
        } else {
            BTreeMap::new()
        };
        Ok(Self {
            dir: dir.to_owned(),
            key,
            entries,
            _lock: lock,
        })
    }

    /// Who may use this secret; none if there is no such secret.
    pub fn subject(&self, name: &SecretName) -> Option<&Subject> {
        self.entries.get(name).map(|entry| &entry.subject)
    }

    /// Opens a secret. That the one who asks may have it is the caller's to see to.
    pub fn reveal(&self, name: &SecretName) -> Result<SecretText, StoreError> {
        let entry = self.entry(name)?;
        self.key
            .open(
                &belonging(name, &entry.subject, entry.created),
                &entry.sealed,
            )
            .map_err(|_| StoreError::Tampered(self.dir.join(SECRETS)))
    }

    /// Notes that a secret was used now; durable when this returns.
    pub fn touch(&mut self, name: &SecretName) -> Result<(), StoreError> {
        let mut entry = self.entry(name)?.clone();
        entry.last_used = Some(Millis::now());
        self.put(name.clone(), entry)
    }

    /// Keeps a new secret; durable when this returns.
    pub fn add(
        &mut self,
        name: SecretName,
        subject: Subject,
        value: &SecretText,
    ) -> Result<(), StoreError> {
        if self.entries.contains_key(&name) {
            return Err(StoreError::Taken(name));
        }
        if self.entries.len() >= MAX_ENTRIES {
            return Err(StoreError::Full);
        }
        let entry = self.seal(&name, subject, value)?;
        self.put(name, entry)
    }

    /// Replaces the value of a secret; durable when this returns.
    pub fn rotate(&mut self, name: SecretName, value: &SecretText) -> Result<(), StoreError> {
        let subject = self.entry(&name)?.subject.clone();
        let entry = self.seal(&name, subject, value)?;
        self.put(name, entry)
    }

    /// Forgets a secret; durable when this returns.
    pub fn remove(&mut self, name: &SecretName) -> Result<(), StoreError> {
        self.entry(name)?;
        let mut next = self.entries.clone();
        next.remove(name);
        self.commit(next)
    }

    /// All secrets by name, without their values.
    pub fn list(&self) -> Vec<SecretEntry> {
        let public = |(name, entry): (&SecretName, &Entry)| SecretEntry {
            name: name.clone(),
            subject: entry.subject.clone(),
            created: entry.created,
            last_used: entry.last_used,
        };
        self.entries.iter().map(public).collect()
    }

    fn entry(&self, name: &SecretName) -> Result<&Entry, StoreError> {
        self.entries
            .get(name)
            .ok_or_else(|| StoreError::Unknown(name.clone()))
    }

    fn seal(
        &self,
        name: &SecretName,
        subject: Subject,
        value: &SecretText,
    ) -> Result<Entry, StoreError> {
        let clear = value.expose().as_bytes();
        if clear.is_empty() || clear.len() > MAX_VALUE {
            return Err(StoreError::BadLength);
        }
        let created = Millis::now();
        let sealed = self.key.seal(&belonging(name, &subject, created), clear)?;
        Ok(Entry {
            subject,
            created,
            last_used: None,
            sealed,
        })
    }

    fn put(&mut self, name: SecretName, entry: Entry) -> Result<(), StoreError> {
        let mut next = self.entries.clone();
        next.insert(name, entry);
        self.commit(next)
    }

    /// What is in memory follows what is on disk, never the other way round.
    fn commit(&mut self, next: BTreeMap<SecretName, Entry>) -> Result<(), StoreError> {
        let path = self.dir.join(SECRETS);
        let file = FileForm::of(&next, &self.key)?;
        let mut bytes =
            serde_json::to_vec_pretty(&file).map_err(|error| StoreError::Malformed {
                path,
                what: error.to_string(),
            })?;
        bytes.push(b'\n');
        replace(&self.dir, SECRETS, &bytes)?;
        self.entries = next;
        Ok(())
    }
}

/// `vault.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    version: u32,
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
    fn of(entries: &BTreeMap<SecretName, Entry>, key: &MasterKey) -> Result<Self, NoRandom> {
        let seal = SealedForm::of(&key.seal(&list_form(entries), b"")?);
        let form = |(name, entry): (&SecretName, &Entry)| {
            let SealedForm { nonce, ciphertext } = SealedForm::of(&entry.sealed);
            EntryForm {
                name: name.clone(),
                subject: entry.subject.clone(),
                created: entry.created,
                last_used: entry.last_used,
                nonce,
                ciphertext,
            }
        };
        Ok(Self {
            version: 1,
            entries: entries.iter().map(form).collect(),
            seal,
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

/// The canonical form of the whole list, which its seal covers.
fn list_form(entries: &BTreeMap<SecretName, Entry>) -> Vec<u8> {
    let mut bytes = FILE_DOMAIN.to_vec();
    bytes.extend((entries.len() as u64).to_be_bytes());
    for (name, entry) in entries {
        put(&mut bytes, &belonging(name, &entry.subject, entry.created));
        // No date is written as one that no clock shows.
        bytes.extend(
            entry
                .last_used
                .map_or(u64::MAX, |used| used.0)
                .to_be_bytes(),
        );
        bytes.extend(entry.sealed.nonce);
        put(&mut bytes, &entry.sealed.ciphertext);
    }
    bytes
}

fn load(path: &Path, key: &MasterKey) -> Result<BTreeMap<SecretName, Entry>, StoreError> {
    let malformed = |what: &str| StoreError::Malformed {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let bytes = read_ours(path, MAX_FILE)?;
    // The parser's own words could hold a piece of the file; its position cannot.
    let file: FileForm = serde_json::from_slice(&bytes)
        .map_err(|error| malformed(&format!("line {}, column {}", error.line(), error.column())))?;
    if file.version != 1 {
        return Err(malformed("its version is not 1"));
    }
    if file.entries.len() > MAX_ENTRIES {
        return Err(malformed("it has too many entries"));
    }
    let mut entries = BTreeMap::new();
    for form in file.entries {
        let EntryForm {
            name,
            subject,
            created,
            last_used,
            nonce,
            ciphertext,
        } = form;
        let sealed = SealedForm { nonce, ciphertext }.read().map_err(malformed)?;
        let entry = Entry {
            subject,
            created,
            last_used,
            sealed,
        };
        if entries.insert(name, entry).is_some() {
            return Err(malformed("it has a name twice"));
        }
    }
    let seal = file.seal.read().map_err(malformed)?;
    key.open(&list_form(&entries), &seal)
        .map_err(|_| StoreError::Tampered(path.to_owned()))?;
    Ok(entries)
}

fn read_key(path: &Path) -> Result<Option<MasterKey>, StoreError> {
    if !exists(path)? {
        return Ok(None);
    }
    let bytes = read_ours(path, 65)?;
    let key = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| MasterKey::parse(text.trim_end_matches('\n')));
    key.map(Some)
        .ok_or_else(|| StoreError::KeyMalformed(path.to_owned()))
}

/// Reads a file of at most `limit` bytes that nobody else can read.
fn read_ours(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    only_ours(path)?;
    let file = File::open(path).map_err(io_at(path))?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(io_at(path))?;
    if bytes.len() as u64 > limit {
        let what = format!("it is longer than {limit} bytes");
        return Err(StoreError::Malformed {
            path: path.to_owned(),
            what,
        });
    }
    Ok(bytes)
}

fn only_ours(path: &Path) -> Result<(), StoreError> {
    let mode = fs::symlink_metadata(path)
        .map_err(io_at(path))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        Err(StoreError::OpenToOthers(path.to_owned()))
    } else {
        Ok(())
    }
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(io_at(path))
}

/// Replaces a file of the folder whole: after a crash it is the old one or the new one.
fn replace(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let (path, beside) = (dir.join(name), dir.join(format!("{name}.new")));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let opened = match options.open(&beside) {
        // Left by a crash; whoever holds the lock is the only one who writes here.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&beside).and_then(|()| options.open(&beside))
        }
        other => other,
    };
    let mut file = opened.map_err(io_at(&beside))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io_at(&beside))?;
    fs::rename(&beside, &path).map_err(io_at(&path))?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_at(dir))
}

/// Takes the lock that keeps two processes from writing at once; flock(2) ends with its holder.
fn lock(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let file = file.map_err(io_at(path))?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(io_at(path)(error)),
            Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_WAIT => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse(path.with_file_name("")));
            }
        }
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |error| StoreError::Io {
        path: path.to_owned(),
        error,
    }
}
