//! Honeytokens: values that nobody has a reason to use. One is made here and put into a file that
//! an intruder would look for; it goes to that file and to the vault, and is not shown.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use protocol::ids::random;
use protocol::vault::{SecretKind, SecretText};

use crate::fault::Fault;

/// What can be said of a decoy.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// It is a decoy: nobody may use it, and whoever does or sends it somewhere is stopped and reported.
    #[arg(long)]
    honeytoken: bool,
    /// Make up its value and write it to this new file, where an intruder would look. Without it, the value is
    /// read as any other.
    #[arg(
        long,
        value_name = "FILE",
        requires = "honeytoken",
        conflicts_with = "file"
    )]
    plant: Option<PathBuf>,
    /// What the file looks like.
    #[arg(long, value_enum, default_value_t = Like::Aws, requires = "plant")]
    like: Like,
}

/// What a planted file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Like {
    /// `~/.aws/credentials`
    Aws,
    /// `.env` with a key for a model
    Env,
    /// `.netrc` with a password
    Netrc,
}

/// A value, and the file that it was written to.
pub(crate) struct Made {
    pub(crate) value: SecretText,
    pub(crate) file: Planted,
}

/// A file with a decoy in it.
pub(crate) struct Planted(PathBuf);

impl Planted {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it again.
    pub(crate) fn take_back(&self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!(
                "bulkhead: {:?} holds a decoy that the vault does not know; remove it: {error}",
                self.0
            );
        }
    }
}

impl Arguments {
    /// What is kept.
    pub(crate) fn kind(&self) -> SecretKind {
        match self.honeytoken {
            true => SecretKind::Honeytoken,
            false => SecretKind::Secret,
        }
    }

    /// Makes up a value and writes the file, if that is wanted.
    pub(crate) fn plant(&self) -> Result<Option<Made>, Fault> {
        let Some(path) = &self.plant else {
            return Ok(None);
        };
        let (value, text) = self.like.make()?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Fault::Refused(format!(
                    "the folder of {path:?} is not there; make it first (`mkdir -p`), then do it again"
                )),
                _ => Fault::io(format!("write the new file {path:?}"))(error),
            })?;
        let file = Planted(path.clone());
        Ok(Some(Made { value, file }))
    }
}

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

impl Like {
    fn make(self) -> Result<(SecretText, String), Fault> {
        let (value, text) = match self {
            Self::Aws => {
                let (id, value) = (made(16, UPPER)?, made(40, LETTERS)?);
                let text = format!(
                    "[default]\naws_access_key_id = AKIA{}\naws_secret_access_key = {}\n",
                    id, value
                );
                (value, text)
            }
            Self::Env => {
                let value = format!("sk-proj-{}", made(48, LETTERS)?);
                let text = format!("OPENAI_API_KEY={value}\n");
                (value, text)
            }
            Self::Netrc => {
                let value = made(24, LETTERS)?;
                let text = format!("machine backup.internal\nlogin root\npassword {value}\n");
                (value, text)
            }
        };
        Ok((SecretText::new(value), text))
    }
}

/// So many signs of this alphabet, at random.
fn made(len: usize, alphabet: &[u8]) -> Result<String, Fault> {
    let mut text = String::with_capacity(len);
    while text.len() < len {
        for byte in random::<64>()? {
            // Whole rounds of the alphabet only, so that no sign is more likely than another.
            let sign = usize::from(byte);
            if text.len() < len && sign < 256 / alphabet.len() * alphabet.len() {
                text.push(char::from(alphabet[sign % alphabet.len()]));
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoy_looks_like_what_it_plays_and_never_twice_the_same() {
        for like in [Like::Aws, Like::Env, Like::Netrc] {
            let (one, text) = like.make().unwrap();
            let (two, _) = like.make().unwrap();
            assert_ne!(one.expose(), two.expose());
            assert!(text.contains(one.expose()) && one.expose().len() >= 24);
        }
    }

    #[test]
    fn where_there_is_no_folder_it_is_said_to_make_one() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = Arguments {
            honeytoken: true,
            plant: Some(dir.path().join(".aws/credentials")),
            like: Like::Aws,
        };
        let said = wanted.plant().err().unwrap().to_string();
        assert!(said.contains("make it first"), "{said}");
    }

    #[test]
    fn a_file_that_is_there_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let wanted = Arguments {
            honeytoken: true,
            plant: Some(path.clone()),
            like: Like::Aws,
        };
        assert!(wanted.plant().unwrap().is_some());
        let before = std::fs::read(&path).unwrap();
        assert!(wanted.plant().is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
