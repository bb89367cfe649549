//! An older copy of the vault, put back; a backup, which is the right way.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bulkhead_vault::client;
use protocol::event::Event;
use protocol::vault::{Purpose, Subject, Terms, VaultChange};

use crate::rig::{SAME, Vault, name, once, refused, secret};

/// A copy of everything in a folder.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// A vault whose older copy lies beside it: in the copy, `bot` is as it was at first.
fn with_older_copy() -> (Vault, PathBuf) {
    let vault = Vault::filled();
    let older = vault.home.path().join("older");
    let vault = vault.again(|dir| copy(dir, &older));
    vault
        .operator()
        .rotate(name("bot"), secret("token-2-token"), SAME, SAME)
        .unwrap();
    (vault, older)
}

/// What the record was told of changes.
fn changes(vault: &Vault) -> Vec<VaultChange> {
    let change = |event| match event {
        Event::VaultChanged { change, .. } => Some(change),
        _ => None,
    };
    vault
        .record
        .after(0)
        .into_iter()
        .filter_map(change)
        .collect()
}

#[test]
fn an_older_copy_of_the_whole_folder_is_refused_until_the_owner_takes_it() {
    let (vault, older) = with_older_copy();
    let vault = vault.again(|dir| copy(&older, dir));
    let mut bot = vault.bot();
    let used = vault.record.len();
    let reason = refused(bot.open(&name("bot")));
    assert!(
        reason.contains("older copy") && reason.contains("vault restore"),
        "{reason}"
    );
    refused(
        vault
            .egress()
            .open_for(&name("model-key"), Purpose::Model, "a.example"),
    );
    let mut operator = vault.operator();
    let terms = Terms::default();
    refused(operator.add(name("new"), Subject::Model, terms, secret("x")));
    refused(operator.rotate(name("bot"), secret("x"), SAME, SAME));
    refused(operator.remove(name("bot")));
    refused(operator.backup(secret("a long passphrase")));
    assert_eq!(operator.state().unwrap().rolled_back, Some(3));
    assert_eq!(vault.record.len(), used, "nothing was done");

    operator.accept().unwrap();
    assert_eq!(operator.state().unwrap().rolled_back, None);
    assert_eq!(bot.open(&name("bot")).unwrap().expose(), "token-1-token");
    assert_eq!(changes(&vault).last(), Some(&VaultChange::Accepted));
    // What the owner took is right also after the next start, and the copy is not.
    let vault = vault.again(|_| {});
    assert!(vault.bot().open(&name("bot")).is_ok());
    let vault = vault.again(|dir| copy(&older, dir));
    refused(vault.bot().open(&name("bot")));
    vault.stop();
}

#[test]
fn changes_made_to_an_older_copy_while_nothing_runs_do_not_make_it_newer() {
    let (vault, older) = with_older_copy();
    let home = vault.home.path().to_owned();
    // More changes than the record knows of.
    let vault = vault.stopped(|vault| {
        copy(&older, &vault.dir());
        for round in 0..5 {
            let (_child, stream) = once(&home);
            let mut operator = client::operator(stream, &vault.key).unwrap();
            let value = secret(&format!("offline-value-{round}"));
            operator.rotate(name("bot"), value, SAME, SAME).unwrap();
        }
    });
    assert!(refused(vault.bot().open(&name("bot"))).contains("older copy"));
    vault.stop();
}

#[test]
fn what_was_changed_while_nothing_ran_is_told_to_the_record_at_the_next_start() {
    let vault = Vault::filled();
    let home = vault.home.path().to_owned();
    let vault = vault.stopped(|vault| {
        for value in ["offline-value-1", "offline-value-2"] {
            let (_child, stream) = once(&home);
            let mut operator = client::operator(stream, &vault.key).unwrap();
            assert!(refused(operator.accept()).contains("bulkhead up"));
            operator
                .rotate(name("bot"), secret(value), SAME, SAME)
                .unwrap();
        }
    });
    assert_eq!(
        vault.bot().open(&name("bot")).unwrap().expose(),
        "offline-value-2"
    );
    assert_eq!(changes(&vault).last(), Some(&VaultChange::CaughtUp));
    let vault = vault.again(|_| {});
    assert!(vault.bot().open(&name("bot")).is_ok());
    vault.stop();
}

#[test]
fn an_empty_vault_in_the_place_of_a_full_one_is_refused() {
    let vault = Vault::filled();
    let vault = vault.again(|dir| {
        for file in ["vault.json", "vault.key"] {
            fs::remove_file(dir.join(file)).unwrap();
        }
    });
    let mut operator = vault.operator();
    let terms = Terms::default();
    let added = operator.add(name("new"), Subject::Model, terms, secret("x"));
    assert!(refused(added).contains("older copy or another one"));
    vault.stop();
}

#[test]
fn a_backup_brings_everything_back_and_opens_with_its_passphrase_only() {
    let vault = Vault::filled();
    let mut operator = vault.operator();
    let long = "x".repeat(60_000);
    for number in 0..30 {
        let terms = Terms::default();
        let big = name(&format!("big-{number}"));
        operator
            .add(big, Subject::Model, terms, secret(&long))
            .unwrap();
    }
    assert!(refused(operator.backup(secret("short"))).contains("passphrase"));
    let text = operator.backup(secret("the backup's passphrase")).unwrap();
    assert!(
        text.len() > 2 * 1024 * 1024,
        "it came in pieces: {}",
        text.len()
    );
    for clear in ["token-1-token", "sk-2-secret", &long[..100]] {
        assert!(!text.contains(clear));
        assert!(!text.contains(&protocol::ids::hex(clear.as_bytes())));
    }
    operator
        .rotate(name("bot"), secret("token-2-token"), SAME, SAME)
        .unwrap();
    operator.remove(name("model-key")).unwrap();

    refused(operator.restore(&text, secret("not the passphrase")));
    refused(operator.restore(&text[..text.len() / 2], secret("the backup's passphrase")));
    refused(operator.restore("{}", secret("the backup's passphrase")));
    let changed = text.replacen("\"passes\":3", "\"passes\":4", 1);
    assert!(changed != text);
    refused(operator.restore(&changed, secret("the backup's passphrase")));
    let cheaper = text.replacen("\"memory\":65536", "\"memory\":64", 1);
    assert!(cheaper != text);
    refused(operator.restore(&cheaper, secret("the backup's passphrase")));
    assert_eq!(
        vault.bot().open(&name("bot")).unwrap().expose(),
        "token-2-token"
    );

    operator
        .restore(&text, secret("the backup's passphrase"))
        .unwrap();
    assert_eq!(
        vault.bot().open(&name("bot")).unwrap().expose(),
        "token-1-token"
    );
    assert_eq!(operator.list().unwrap().len(), 32);
    assert_eq!(changes(&vault).last(), Some(&VaultChange::Restored));

    // Over an older copy, and on a machine that never saw it.
    let (vault, older) = with_older_copy();
    let vault = vault.again(|dir| copy(&older, dir));
    let mut operator = vault.operator();
    operator
        .restore(&text, secret("the backup's passphrase"))
        .unwrap();
    let vault = vault.again(|_| {});
    assert_eq!(
        vault.bot().open(&name("bot")).unwrap().expose(),
        "token-1-token"
    );
    vault.stop();
}
