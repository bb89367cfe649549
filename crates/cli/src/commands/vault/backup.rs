//! Backups of the vault, and what to do where an older copy was put in its place.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::fault::Fault;
use crate::vault_link::VaultLink;
use crate::{output, secrets};

/// The longest backup that is read, in bytes.
const MAX_BACKUP: u64 = 256 * 1024 * 1024;

/// What can be said with `vault backup`.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The new file.
    file: PathBuf,
    /// Read the backup's own passphrase from this file instead of asking for it.
    #[arg(long, value_name = "FILE")]
    backup_passphrase_file: Option<PathBuf>,
}

/// What can be said with `vault restore`.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The backup.
    #[arg(required_unless_present = "as_it_is")]
    file: Option<PathBuf>,
    /// Read the backup's own passphrase from this file instead of asking for it.
    #[arg(long, value_name = "FILE")]
    backup_passphrase_file: Option<PathBuf>,
    /// Take the vault as it is for right, although the record knows of another. Secrets that were rotated since
    /// have their old values then.
    #[arg(long, conflicts_with_all = ["file", "backup_passphrase_file"])]
    as_it_is: bool,
}

pub(super) fn backup(to: &Backup, link: &mut VaultLink, json: bool) -> Result<(), Fault> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let passphrase = secrets::new_passphrase(to.backup_passphrase_file.as_deref(), "the backup")?;
    let text = link.ask(|vault| vault.backup(passphrase))?;
    let path = &to.file;
    options
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
        })
        .map_err(Fault::io(format!("write the new file {path:?}")))?;
    let words = format!("written to {path:?}; it opens with its passphrase only");
    let facts = json!({ "done": "backed_up", "file": path, "bytes": text.len() });
    output::done(json, &words, &facts)
}

pub(super) fn restore(from: &Restore, link: &mut VaultLink, json: bool) -> Result<(), Fault> {
    let Some(path) = &from.file else {
        link.ask(|vault| vault.accept())?;
        let words = "the vault counts as right as it is; that is on the record";
        return output::done(json, words, &json!({ "done": "accepted" }));
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BACKUP).read_to_string(&mut text))
        .map_err(Fault::io(format!("read {path:?}")))?;
    let file = from.backup_passphrase_file.as_deref();
    let passphrase = secrets::of(file, "Passphrase of the backup (not shown): ")?;
    link.ask(|vault| vault.restore(&text, passphrase))?;
    let words = "all secrets are those of the backup; channels use them after `bulkhead down` and `bulkhead up`";
    output::done(json, words, &json!({ "done": "restored", "file": path }))
}
