//! The files of identity keys: `NAME.key` (seed, for its owner alone) and `NAME.pub`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

use protocol::identity::IdentityKey;
use protocol::ids::{ChannelId, PublicKey, hex, unhex};

use crate::Home;

/// The name under which `bulkhead` proves itself for the owner's commands.
pub const OPERATOR: &str = "operator";

/// The name under which `bulkhead ask` and `chat` prove themselves.
pub const TERMINAL: &str = "terminal";

/// The identities that every installation has.
pub const IDENTITIES: [&str; 3] = [OPERATOR, TERMINAL, "web"];

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error("the key file {path:?}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Its content is not a key.
    #[error(
        "the key file {0:?} does not hold 64 hexadecimal digits; restore it from a backup, or remove both its halves to have a new one made"
    )]
    Malformed(PathBuf),
    /// Somebody else could read it.
    #[error("the key file {0:?} can be read by others; run: chmod 600 {0:?}")]
    OpenToOthers(PathBuf),
    /// No random bytes.
    #[error(transparent)]
    NoRandom(#[from] protocol::ids::NoRandom),
}

/// Makes the key of this name if there is none, and gives its public half.
pub fn ensure_key(home: &Home, name: &ChannelId) -> Result<PublicKey, KeyError> {
    let path = home.keys().join(format!("{name}.key"));
    if path.exists() {
        let public = read_key(home, name)?.public();
        write(
            home.keys().join(format!("{name}.pub")),
            0o644,
            &public.to_string(),
        )?;
        return Ok(public);
    }
    let (key, seed) = IdentityKey::generate()?;
    write(path, 0o600, &hex(&seed))?;
    write(
        home.keys().join(format!("{name}.pub")),
        0o644,
        &key.public().to_string(),
    )?;
    Ok(key.public())
}

/// Reads the private half.
pub fn read_key(home: &Home, name: &ChannelId) -> Result<IdentityKey, KeyError> {
    let path = home.keys().join(format!("{name}.key"));
    let mode = fs::metadata(&path)
        .map_err(|error| KeyError::Io {
            path: path.clone(),
            error,
        })?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(KeyError::OpenToOthers(path));
    }
    let seed = read(&path)?;
    Ok(IdentityKey::from_seed(&seed))
}

/// Reads the public half.
pub fn read_public(home: &Home, name: &ChannelId) -> Result<PublicKey, KeyError> {
    read(&home.keys().join(format!("{name}.pub"))).map(PublicKey)
}

fn read(path: &PathBuf) -> Result<[u8; 32], KeyError> {
    let mut text = String::new();
    let failed = |error| KeyError::Io {
        path: path.clone(),
        error,
    };
    // One byte more than a key and its newline, so that a longer file is seen as such.
    File::open(path)
        .map_err(failed)?
        .take(66)
        .read_to_string(&mut text)
        .map_err(failed)?;
    unhex(text.trim_end())
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| KeyError::Malformed(path.clone()))
}

/// Writes beside the file, syncs, and renames over it, so that it is never half there.
fn write(path: PathBuf, mode: u32, text: &str) -> Result<(), KeyError> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| {
            writeln!(file, "{text}")?;
            file.sync_all()?;
            fs::rename(&beside, &path)
        });
    written.map_err(|error| KeyError::Io { path, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("h")).unwrap();
        home.create().unwrap();
        let name = ChannelId::parse("web").unwrap();
        let public = ensure_key(&home, &name).unwrap();
        assert_eq!(ensure_key(&home, &name).unwrap(), public);
        assert_eq!(read_public(&home, &name).unwrap(), public);
        assert_eq!(read_key(&home, &name).unwrap().public(), public);
        let file = home.keys().join("web.key");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            read_key(&home, &name),
            Err(KeyError::OpenToOthers(_))
        ));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "00").unwrap();
        assert!(matches!(
            ensure_key(&home, &name),
            Err(KeyError::Malformed(_))
        ));
    }
}
