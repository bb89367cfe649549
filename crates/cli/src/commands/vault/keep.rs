//! How the vault's key is kept, and opening and locking it.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use config::Home;
use protocol::vault::{LockState, Protection};
use serde_json::json;

use crate::fault::Fault;
use crate::vault_link::{VaultLink, credential, unlocking};
use crate::{keyring, output, secrets};

/// What can be said with `vault protect`.
#[derive(Debug, Args)]
pub(super) struct Protect {
    /// With what.
    #[arg(long, value_enum)]
    with: With,
    /// Read the new passphrase from this file instead of asking for it.
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// The content of the credential, where this is not the service that gets it.
    #[arg(long, value_name = "FILE")]
    credential_file: Option<PathBuf>,
}

/// What keeps the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum With {
    /// A passphrase that `bulkhead up` asks for.
    Passphrase,
    /// The keyring of the desktop (needs `secret-tool`).
    Keyring,
    /// A credential of systemd: `LoadCredential=bulkhead-vault:FILE` in the service's unit.
    Credential,
    /// A file beside the secrets: weaker, as whoever can copy the folder can open them.
    File,
}

pub(super) fn protect(how: &Protect, link: &mut VaultLink, json: bool) -> Result<(), Fault> {
    let before = link.state()?;
    if before.lock == LockState::Locked {
        return Err(Fault::Refused(
            "the vault is locked; run `bulkhead vault unlock` first".to_owned(),
        ));
    }
    let mut made = None;
    let with = match how.with {
        With::File => Protection::KeyFile,
        With::Passphrase => Protection::Passphrase {
            passphrase: secrets::new_passphrase(how.new_passphrase_file.as_deref(), "the vault")?,
        },
        With::Keyring => {
            let (entry, key) = keyring::keep_new()?;
            made = Some(entry.clone());
            Protection::Keyring { entry, key }
        }
        With::Credential => {
            let file = how.credential_file.clone().or_else(credential);
            let file = file.ok_or_else(|| {
                Fault::Usage(
                    "name the file that LoadCredential= names, with --credential-file".to_owned(),
                )
            })?;
            let key = secrets::of(Some(&file), "")?;
            Protection::Credential { key }
        }
    };
    if let Err(fault) = link.ask(|vault| vault.protect(with)) {
        if let Some(entry) = made {
            keyring::forget(&entry);
        }
        return Err(fault);
    }
    if let Some(entry) = &before.keyring_entry {
        keyring::forget(entry);
    }
    let after = link.state()?;
    let words = format!("its key is kept under: {}", after.key);
    output::done(
        json,
        &words,
        &json!({ "done": "protected", "key": after.key }),
    )?;
    if how.with == With::File {
        eprintln!(
            "bulkhead: that is the weakest way: whoever can copy the vault's folder can open it"
        );
    } else if before.key == protocol::vault::KeySource::KeyFile {
        eprintln!(
            "bulkhead: copies of the old vault.key (backups, snapshots) still open this vault; remove them"
        );
    }
    Ok(())
}

pub(super) fn unlock(home: &Home, passphrase: Option<&Path>, json: bool) -> Result<(), Fault> {
    let mut link = VaultLink::running(home)?;
    let state = link.state()?;
    if state.lock == LockState::Locked {
        let with = unlocking(&state, passphrase)?;
        link.ask(|vault| vault.unlock(with))?;
    }
    output::done(json, "the vault is open", &json!({ "done": "unlocked" }))
}

pub(super) fn lock(home: &Home, json: bool) -> Result<(), Fault> {
    VaultLink::running(home)?.ask(|vault| vault.lock())?;
    let words =
        "the vault is locked; what programs opened before, they keep until they are started again";
    output::done(json, words, &json!({ "done": "locked" }))
}
