//! The key that signs the record, and its two files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer as _, SigningKey};
use protocol::ids::{NoRandom, PublicKey, Signature, random};
use zeroize::Zeroizing;

use crate::chain::Head;

/// The secret half: 64 hexadecimal digits, readable by the ledger's user only.
pub const KEY_FILE: &str = "ledger.key";

/// The public half: 64 hexadecimal digits.
pub const PUBLIC_FILE: &str = "ledger.pub";

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system would not read or write a file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// The file does not hold a key.
    #[error("{} does not hold a key (64 hexadecimal digits); restore it from a copy", .0.display())]
    Malformed(PathBuf),
    /// The two files do not belong together.
    #[error("{} is not the public half of the signing key beside it; restore both from a copy", .0.display())]
    NotAPair(PathBuf),
    /// No key could be made.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

/// The signing key. Has no Debug, Display, Clone or Serialize; wiped when dropped.
pub struct LedgerKey(SigningKey);

impl LedgerKey {
    /// Reads the key of a folder; `None` if it has none.
    pub fn load(dir: &Path) -> Result<Option<Self>, KeyError> {
        let path = dir.join(KEY_FILE);
        let Some(text) = read_small(&path)? else {
            return Ok(None);
        };
        let seed = parse_hex(&text).ok_or(KeyError::Malformed(path))?;
        Ok(Some(Self(SigningKey::from_bytes(&seed))))
    }

    /// Makes a key and keeps it. A key that is there is never replaced.
    pub fn create(dir: &Path) -> Result<Self, KeyError> {
        let seed = Zeroizing::new(random()?);
        let text = Zeroizing::new(format!("{}\n", protocol::ids::hex(&*seed)));
        write_new(dir, KEY_FILE, text.as_bytes(), 0o600)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Writes the public half beside the secret one, or checks the one that is there.
    pub fn publish(&self, dir: &Path) -> Result<(), KeyError> {
        let path = dir.join(PUBLIC_FILE);
        match read_small(&path)? {
            None => write_new(
                dir,
                PUBLIC_FILE,
                format!("{}\n", self.public()).as_bytes(),
                0o644,
            ),
            Some(_) if read_public(&path)? == self.public() => Ok(()),
            Some(_) => Err(KeyError::NotAPair(path)),
        }
    }

    /// The half that verifies.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The signature of a head.
    pub fn sign(&self, head: &Head) -> Signature {
        Signature(self.0.sign(&head.statement()).to_bytes())
    }
}

/// Reads a public key's file, `ledger.pub`.
pub fn read_public(path: &Path) -> Result<PublicKey, KeyError> {
    let error = |error| KeyError::File {
        path: path.to_owned(),
        error,
    };
    let text = read_small(path)?.ok_or_else(|| error(io::ErrorKind::NotFound.into()))?;
    let key = parse_hex(&text).ok_or_else(|| KeyError::Malformed(path.to_owned()))?;
    Ok(PublicKey(*key))
}

/// A key's file has one line; more than this is not one.
const MAX_KEY_FILE: u64 = 256;

fn read_small(path: &Path) -> Result<Option<Zeroizing<String>>, KeyError> {
    let error = |error| KeyError::File {
        path: path.to_owned(),
        error,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(error(e)),
    };
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE as usize));
    file.take(MAX_KEY_FILE)
        .read_to_string(&mut text)
        .map_err(error)?;
    Ok(Some(text))
}

/// 64 hexadecimal digits, with or without the end of the line.
fn parse_hex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    PublicKey::parse(text.trim_end())
        .ok()
        .map(|key| Zeroizing::new(key.0))
}

/// Writes a file that is not there yet: whole and synced, or not at all.
fn write_new(dir: &Path, name: &str, content: &[u8], mode: u32) -> Result<(), KeyError> {
    let (path, partial) = (dir.join(name), dir.join(format!("{name}.new")));
    let write = || {
        // Left over from a start that was interrupted; it was never used.
        match fs::remove_file(&partial) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Err(_) | Ok(()) => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&partial, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|error| KeyError::File {
        path: path.clone(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_comes_back_as_it_was_made_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(LedgerKey::load(dir.path()).unwrap().is_none());
        let key = LedgerKey::create(dir.path()).unwrap();
        key.publish(dir.path()).unwrap();
        assert_eq!(
            LedgerKey::load(dir.path()).unwrap().unwrap().public(),
            key.public()
        );
        assert_eq!(
            read_public(&dir.path().join(PUBLIC_FILE)).unwrap(),
            key.public()
        );
        let mode = fs::metadata(dir.path().join(KEY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_start_that_was_interrupted_while_it_made_the_key_is_made_good() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ledger.key.new"), "abc").unwrap();
        LedgerKey::create(dir.path()).unwrap();
        assert!(LedgerKey::load(dir.path()).unwrap().is_some());
    }

    #[test]
    fn a_damaged_key_and_a_foreign_public_key_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = LedgerKey::create(dir.path()).unwrap();
        fs::write(dir.path().join(PUBLIC_FILE), "00".repeat(32)).unwrap();
        assert!(matches!(
            key.publish(dir.path()),
            Err(KeyError::NotAPair(_))
        ));
        fs::write(dir.path().join(KEY_FILE), "no key").unwrap();
        assert!(matches!(
            LedgerKey::load(dir.path()),
            Err(KeyError::Malformed(_))
        ));
    }
}
