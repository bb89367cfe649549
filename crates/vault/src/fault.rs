//! Why the vault cannot be used, or why it did not do something.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::ids::{NoRandom, SecretName};
use protocol::time::Millis;
use protocol::vault::{MAX_HOSTS, MIN_PASSPHRASE};

use crate::store::{MAX_ENTRIES, MAX_VALUE};

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
        "{0:?} is missing, and without it no secret opens; put it back, or remove vault.json and then run `bulkhead vault restore` with a backup"
    )]
    KeyMissing(PathBuf),
    /// The key's file does not hold a key.
    #[error("{0:?} does not hold a key; put it back from a copy")]
    KeyMalformed(PathBuf),
    /// The secrets' file is not one.
    #[error("{path:?} is not a vault: {what}; put it back from a copy")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong, without its content.
        what: String,
    },
    /// The seal does not match.
    #[error(
        "{0:?} was changed by somebody else, or vault.key is not its key; put both back from one copy"
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
    /// Terms that do not fit whom it is for.
    #[error("{0}")]
    BadTerms(&'static str),
    /// It was valid until then.
    #[error(
        "the secret `{name}` expired on {}; `bulkhead vault rotate {name} --expires DATE` puts in a new one", date(*.at)
    )]
    Expired {
        /// Which.
        name: SecretName,
        /// Since when.
        at: Millis,
    },
    /// Nobody has given the key yet.
    #[error("the vault is locked; run `bulkhead vault unlock`")]
    Locked,
    /// It is open already, or never locked.
    #[error("the vault is not locked")]
    NotLocked,
    /// The key is a file beside it.
    #[error(
        "the vault's key is a file, so there is nothing to lock; `bulkhead vault protect --with passphrase` changes that"
    )]
    NothingToLock,
    /// Not what it was protected with.
    #[error("that does not open the vault")]
    WrongKey,
    /// Another kind of key than the vault is protected with.
    #[error("the vault is not protected with that; `bulkhead vault status` says with what")]
    OtherKey,
    /// Too many wrong attempts.
    #[error("after {wrong} wrong attempts the next one is taken in {} s", seconds(*.wait))]
    Slowed {
        /// How many.
        wrong: u32,
        /// How long yet.
        wait: Duration,
    },
    /// Too easily tried out.
    #[error("a passphrase has from {MIN_PASSPHRASE} to 1024 bytes; several words are best")]
    BadPassphrase,
    /// Likewise.
    #[error(
        "a key to protect the vault with has from 32 to 4096 bytes; make one with: head -c 32 /dev/urandom | base64"
    )]
    BadKey,
    /// The keyring's entry has an odd name.
    #[error("the name of a keyring's entry has from 1 to 64 letters, digits, `-` and `_`")]
    BadEntry,
    /// The memory for Argon2id.
    #[error("there is no memory to stretch the passphrase with; it takes {0} KiB")]
    NoMemory(u32),
    /// What has to stay out of the swap cannot be kept out.
    #[error(
        "memory cannot be locked, so a secret could be written to the swap ({0}); raise RLIMIT_MEMLOCK (`ulimit -l`, `LimitMEMLOCK=`)"
    )]
    Unlockable(io::Error),
    /// Not a backup, or not that passphrase.
    #[error("{0}")]
    BadBackup(&'static str),
}

impl StoreError {
    /// That the system refused something with this file.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io {
            path: path.to_owned(),
            error,
        }
    }
}

/// Too many hosts, as a text that names the number.
pub(crate) const TOO_MANY_HOSTS: &str = {
    assert!(MAX_HOSTS == 16);
    "a secret is bound to at most 16 hosts"
};

fn date(at: Millis) -> String {
    at.rfc3339()[..10].to_owned()
}

fn seconds(wait: Duration) -> u64 {
    wait.as_secs().max(1)
}
