//! The programs, the files and the record.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, FreezeMark, Home, IDENTITIES, KeyError, read_key};
use ledger::{key, verify};
use protocol::freeze::Frozen;
use protocol::ids::{ChannelId, SecretName};
use protocol::supervisor::{ProgramState, SupervisorReply, SupervisorRequest};
use protocol::vault::{KeySource, LockState};
use vault::StoreError;

use super::Check;
use crate::commands::vault::{in_words, reminders};
use crate::connect::Supervisor;
use crate::fault::Fault;
use crate::frozen;
use crate::programs as beside;
use crate::vault_link::VaultLink;

/// Below this much room, the record may soon not be written, and then nothing runs.
const LITTLE_ROOM: u64 = 1 << 30;

/// Below this much, it is a matter of days.
const NO_ROOM: u64 = 64 << 20;

pub(super) fn programs() -> Check {
    let missing: Vec<&str> = beside::ALL
        .into_iter()
        .filter(|name| beside::path(name).is_err())
        .collect();
    match missing.is_empty() {
        true => Check::ok("programs", format!("all {} are there", beside::ALL.len())),
        false => Check::fail(
            "programs",
            format!("missing beside `bulkhead`: {}", missing.join(", ")),
            "cargo build --release --workspace --bins, or install all programs into one folder",
        ),
    }
}

pub(super) fn config(home: &Home, config: Result<&Config, &ConfigError>) -> Check {
    match config {
        Ok(_) => Check::ok("config", format!("{:?}", home.config_file())),
        Err(error) => Check::fail(
            "config",
            error.to_string(),
            "bulkhead setup, or correct the file",
        ),
    }
}

pub(super) fn folders(home: &Home) -> Check {
    let folders = [
        home.keys(),
        home.ledger(),
        home.vault(),
        home.gateway(),
        home.history(),
        home.telegram(),
        home.log(),
        home.run().to_owned(),
    ];
    let mode = |path: &PathBuf| match fs::metadata(path) {
        Ok(metadata) => Some(metadata.permissions().mode()),
        // `up` makes it.
        Err(_) => None,
    };
    let open: Vec<String> = folders
        .iter()
        .filter(|path| mode(path).is_some_and(|mode| mode & 0o077 != 0))
        .map(|path| format!("{path:?}"))
        .collect();
    match open.is_empty() {
        true => Check::ok("folders", "for their owner alone"),
        false => Check::fail(
            "folders",
            format!("open to others: {}", open.join(", ")),
            format!("chmod 700 {}", open.join(" ")),
        ),
    }
}

pub(super) fn keys(home: &Home) -> Check {
    let mut missing = Vec::new();
    for name in IDENTITIES {
        let Ok(channel) = ChannelId::parse(name) else {
            continue;
        };
        match read_key(home, &channel) {
            Ok(_) => {}
            Err(KeyError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(name);
            }
            Err(error) => {
                return Check::fail("keys", error.to_string(), "see above");
            }
        }
    }
    match missing.is_empty() {
        true => Check::ok("keys", "there, and for their owner alone"),
        false => Check::warn(
            "keys",
            format!("not made yet: {}", missing.join(", ")),
            "nothing; `bulkhead up` makes them",
        ),
    }
}

/// What a running vault says of itself and of what it holds.
pub(super) fn vault(home: &Home) -> Check {
    let seen = VaultLink::running(home).and_then(|mut link| {
        let state = link.state()?;
        match state.lock {
            LockState::Locked => Ok((state, Vec::new())),
            LockState::Open => Ok((state, link.ask(|vault| vault.list())?)),
        }
    });
    let (state, entries) = match seen {
        Ok(seen) => seen,
        Err(Fault::NotUp) => {
            return Check::ok(
                "vault",
                "Bulkhead is down; its dates are looked at while it is up",
            );
        }
        Err(fault) => return Check::fail("vault", fault.to_string(), "see `bulkhead status`"),
    };
    let (expired, due) = reminders(&entries);
    let names = |names: &[SecretName]| {
        let names: Vec<&str> = names.iter().map(SecretName::as_str).collect();
        names.join(", ")
    };
    let words = in_words(&state).join(". ");
    if state.rolled_back.is_some() {
        return Check::fail("vault", words, "bulkhead vault restore FILE, with a backup");
    }
    if state.lock == LockState::Locked {
        return Check::warn("vault", words, "bulkhead vault unlock");
    }
    match (expired.as_slice(), due.as_slice()) {
        ([], []) => Check::ok(
            "vault",
            format!("{words}. {} secrets, none due", entries.len()),
        ),
        ([], due) => Check::warn(
            "vault",
            format!("due for rotation: {}", names(due)),
            "bulkhead vault rotate NAME",
        ),
        (expired, due) => Check::fail(
            "vault",
            format!(
                "expired: {}; due for rotation: {}",
                names(expired),
                names(due)
            ),
            "bulkhead vault rotate NAME --expires DATE",
        ),
    }
}

pub(super) fn vault_key(home: &Home) -> Check {
    let key = home.vault().join("vault.key");
    match vault::key_source(&home.vault()) {
        Ok(None) => Check::ok("vault-key", "no vault yet"),
        Ok(Some(source @ KeySource::KeyFile)) => Check::warn(
            "vault-key",
            format!("{source}: {key:?}"),
            "bulkhead vault protect --with passphrase (or keyring, or credential); until then leave the vault's \
             folder out of backups that others can read, and encrypt the disk",
        ),
        Ok(Some(source)) => Check::ok("vault-key", format!("kept under {source}")),
        Err(StoreError::OpenToOthers(_)) => Check::fail(
            "vault-key",
            format!("{key:?} can be read by others"),
            format!("chmod 600 {key:?}; then rotate every secret, since somebody may have read it"),
        ),
        Err(error) => Check::fail("vault-key", error.to_string(), "put its file right"),
    }
}

pub(super) fn disk(home: &Home) -> Check {
    let ledger = home.ledger();
    // The nearest folder that exists is on the disk where the record will be.
    let Some(folder) = ledger.ancestors().find(|path| path.is_dir()) else {
        return Check::fail(
            "disk",
            format!("{ledger:?} cannot be looked at"),
            "choose another --home",
        );
    };
    match rustix::fs::statvfs(folder) {
        Ok(stat) => room(folder, stat.f_bavail.saturating_mul(stat.f_frsize)),
        Err(error) => Check::fail(
            "disk",
            format!("{folder:?}: {error}"),
            "choose another --home",
        ),
    }
}

fn room(folder: &Path, free: u64) -> Check {
    let detail = format!("{} MiB free at {folder:?}", free >> 20);
    let fix = "make room; without it the record cannot be written, and then nothing runs";
    match free {
        ..NO_ROOM => Check::fail("disk", detail, fix),
        NO_ROOM..LITTLE_ROOM => Check::warn("disk", detail, fix),
        LITTLE_ROOM.. => Check::ok("disk", detail),
    }
}

pub(super) fn ledger(home: &Home) -> Check {
    let db = home.ledger().join("ledger.db");
    if !db.exists() {
        return Check::ok("ledger", "no record yet");
    }
    let fix =
        "`bulkhead audit verify` names every problem; keep a copy of the file before anything else";
    match key::read_public(&home.ledger().join(key::PUBLIC_FILE)) {
        Ok(public) => {
            let report = verify(&db, &public);
            match report.ok {
                true => Check::ok("ledger", format!("{} rows, whole", report.rows)),
                false => {
                    let count = report.problems.len();
                    Check::fail(
                        "ledger",
                        format!("{count} problems in {} rows", report.rows),
                        fix,
                    )
                }
            }
        }
        Err(error) => Check::fail("ledger", error.to_string(), fix),
    }
}

pub(super) fn running(home: &Home) -> Check {
    let status = Supervisor::connect(home).and_then(|it| it.ask(&SupervisorRequest::Status));
    match status {
        Ok(SupervisorReply::Status {
            frozen: Some(freeze),
            ..
        }) => frozen_check(&freeze.frozen),
        Ok(SupervisorReply::Status { programs, .. }) => {
            let not_up: Vec<&str> = programs
                .iter()
                .filter(|program| !matches!(program.state, ProgramState::Running { .. }))
                .map(|program| program.name.as_str())
                .collect();
            match not_up.is_empty() {
                true => Check::ok("running", format!("{} programs", programs.len())),
                false => Check::fail(
                    "running",
                    format!("not running: {}", not_up.join(", ")),
                    "bulkhead status says why",
                ),
            }
        }
        Ok(reply) => Check::fail(
            "running",
            frozen::refusal(reply).to_string(),
            "bulkhead down",
        ),
        Err(Fault::NotUp) => match FreezeMark::of(home).read() {
            Some(freeze) => frozen_check(&freeze),
            None => Check::warn("running", "Bulkhead is not running", "bulkhead up"),
        },
        Err(fault) => Check::fail("running", fault.to_string(), "bulkhead down, bulkhead up"),
    }
}

fn frozen_check(freeze: &Frozen) -> Check {
    Check::fail(
        "running",
        format!("frozen {}", frozen::line(freeze)),
        "when you know what happened: bulkhead resume (after bulkhead up, if it does not run)",
    )
}

#[cfg(test)]
mod tests {
    use config::ensure_key;

    use super::*;
    use crate::checks::Status;

    #[test]
    fn a_new_home_is_no_failure_and_open_files_are() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("h")).unwrap();
        assert_eq!(folders(&home).status, Status::Ok);
        assert_eq!(keys(&home).status, Status::Warn);
        assert_eq!(vault_key(&home).status, Status::Ok);
        assert_eq!(ledger(&home).status, Status::Ok);
        assert_eq!(running(&home).status, Status::Warn);
        home.create().unwrap();
        for name in IDENTITIES {
            ensure_key(&home, &ChannelId::parse(name).unwrap()).unwrap();
        }
        assert_eq!(keys(&home).status, Status::Ok);

        let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        open(&home.keys().join("web.key"), 0o644).unwrap();
        assert_eq!(keys(&home).status, Status::Fail);
        open(&home.ledger(), 0o750).unwrap();
        assert!(folders(&home).fix.contains("chmod 700"));
        fs::write(home.vault().join("vault.key"), "0".repeat(64)).unwrap();
        open(&home.vault().join("vault.key"), 0o600).unwrap();
        assert_eq!(vault_key(&home).status, Status::Warn);
        open(&home.vault().join("vault.key"), 0o604).unwrap();
        assert_eq!(vault_key(&home).status, Status::Fail);
    }

    #[test]
    fn room_runs_out_in_two_steps() {
        let at = |free| room(Path::new("/"), free).status;
        assert_eq!(at(2 << 30), Status::Ok);
        assert_eq!(at(1 << 29), Status::Warn);
        assert_eq!(at(1 << 20), Status::Fail);
    }

    #[test]
    fn a_record_that_is_none_fails() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("h")).unwrap();
        home.create().unwrap();
        fs::write(home.ledger().join("ledger.db"), "not a database").unwrap();
        assert_eq!(ledger(&home).status, Status::Fail);
    }
}
