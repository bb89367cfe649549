//! A vault whose key is kept elsewhere: locked at first, opened by the right thing only, and
//! slower with each wrong one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_vault::{VaultClient, VaultError, client};
use protocol::control::Peer;
use protocol::vault::{KeySource, LockState, Protection, Purpose, Unlocking};

use crate::rig::{LIMIT, Vault, command, ended, name, once, refused, secret};

const WORDS: &str = "correct horse battery";

fn passphrase(text: &str) -> Unlocking {
    Unlocking::Passphrase {
        passphrase: secret(text),
    }
}

fn key(text: &str) -> Unlocking {
    Unlocking::Key { key: secret(text) }
}

fn protected(with: Protection) -> Vault {
    let vault = Vault::filled();
    vault.operator().protect(with).unwrap();
    vault
}

fn by_passphrase() -> Vault {
    protected(Protection::Passphrase {
        passphrase: secret(WORDS),
    })
}

fn locked<T: std::fmt::Debug>(result: Result<T, VaultError>) {
    assert!(matches!(result, Err(VaultError::Locked)), "{result:?}");
}

#[test]
fn with_a_passphrase_it_starts_locked_and_opens_for_nothing_else() {
    let vault = by_passphrase();
    // It is open yet, and goes on.
    assert!(vault.bot().open(&name("bot")).is_ok());
    let vault = vault.again(|dir| {
        let file = fs::read_to_string(dir.join("vault.key")).unwrap();
        assert!(
            file.contains("passphrase") && !file.contains(WORDS),
            "{file}"
        );
    });
    locked(vault.bot().open(&name("bot")));
    locked(
        vault
            .egress()
            .open_for(&name("model-key"), Purpose::Model, "a.example"),
    );
    locked(vault.egress().marks());
    let mut operator = vault.operator();
    locked(operator.list());
    locked(operator.remove(name("bot")));
    locked(operator.backup(secret("a long passphrase")));
    locked(operator.protect(Protection::KeyFile));
    let state = operator.state().unwrap();
    assert_eq!(
        (state.key, state.lock),
        (KeySource::Passphrase, LockState::Locked)
    );

    refused(operator.unlock(passphrase("wrong horse battery")));
    assert!(refused(operator.unlock(key(&"0".repeat(64)))).contains("not protected with that"));
    locked(vault.bot().open(&name("bot")));
    operator.unlock(passphrase(WORDS)).unwrap();
    assert_eq!(
        vault.bot().open(&name("bot")).unwrap().expose(),
        "token-1-token"
    );
    assert_eq!(operator.state().unwrap().wrong_attempts, 0);
    assert!(refused(operator.unlock(passphrase(WORDS))).contains("not locked"));

    // A link that was refused while it was locked goes on when it is open, and the other way round.
    let mut bot = vault.bot();
    operator.lock().unwrap();
    locked(bot.open(&name("bot")));
    operator.unlock(passphrase(WORDS)).unwrap();
    assert!(bot.open(&name("bot")).is_ok());
    vault.stop();
}

#[test]
fn wrong_passphrases_are_slowed_also_over_a_restart() {
    let vault = by_passphrase().again(|_| {});
    let mut operator = vault.operator();
    for _ in 0..3 {
        assert!(refused(operator.unlock(passphrase("wrong horse"))).contains("does not open"));
    }
    assert_eq!(operator.state().unwrap().wrong_attempts, 3);
    // Until the wait is eight seconds, so that a busy machine does not sit it out by itself.
    let mut slowed = 0;
    while operator.state().unwrap().wrong_attempts < 6 {
        if refused(operator.unlock(passphrase("wrong horse"))).contains("wrong attempts") {
            slowed += 1;
            thread::sleep(Duration::from_millis(200));
        }
    }
    assert!(slowed >= 3, "{slowed}");
    // Neither another connection nor another start begins anew, and what is right waits too.
    assert!(refused(vault.operator().unlock(passphrase(WORDS))).contains("after 6"));
    let vault = vault.again(|_| {});
    let begun = Instant::now();
    let early = refused(vault.operator().unlock(passphrase(WORDS)));
    assert!(early.contains("after 6 wrong attempts"), "{early}");
    thread::sleep(Duration::from_millis(8100).saturating_sub(begun.elapsed()));
    vault.operator().unlock(passphrase(WORDS)).unwrap();
    assert!(vault.bot().open(&name("bot")).is_ok());
    vault.stop();
}

#[test]
fn a_key_of_the_keyring_or_of_systemd_opens_it_and_another_does_not() {
    let outer = "c3VyZWx5LXRoaXJ0eS10d28tYnl0ZXMtYXQtbGVhc3Q=";
    let vault = protected(Protection::Keyring {
        entry: "bulkhead-1".to_owned(),
        key: secret(outer),
    })
    .again(|_| {});
    let mut operator = vault.operator();
    let state = operator.state().unwrap();
    assert_eq!(state.key, KeySource::Keyring);
    assert_eq!(state.keyring_entry.as_deref(), Some("bulkhead-1"));
    refused(operator.unlock(key(&"0".repeat(64))));
    refused(operator.unlock(passphrase(outer)));
    operator.unlock(key(outer)).unwrap();
    for bad in ["", "a b", "../x", &"x".repeat(65)] {
        let entry = bad.to_owned();
        refused(operator.protect(Protection::Keyring {
            entry,
            key: secret(outer),
        }));
    }
    refused(operator.protect(Protection::Credential {
        key: secret("short"),
    }));
    refused(operator.protect(Protection::Passphrase {
        passphrase: secret("short"),
    }));
    assert_eq!(
        operator.state().unwrap().key,
        KeySource::Keyring,
        "nothing was changed"
    );

    // Back to a file: what opened it before is not asked for any more.
    operator.protect(Protection::KeyFile).unwrap();
    assert!(refused(operator.lock()).contains("nothing to lock"));
    let vault = vault.again(|_| {});
    assert!(vault.bot().open(&name("bot")).is_ok());
    vault.stop();
}

#[test]
fn the_credential_that_systemd_hands_over_opens_it_at_each_start() {
    let folder = tempfile::tempdir().unwrap();
    let credential = folder.path().join("bulkhead-vault");
    let content = "c3VyZWx5LXRoaXJ0eS10d28tYnl0ZXMtYXQtbGVhc3Q=";
    fs::write(&credential, format!("{content}\n")).unwrap();
    fs::set_permissions(&credential, fs::Permissions::from_mode(0o400)).unwrap();
    let vault = Vault::ready_with(vec!["--credential".into(), credential.clone()]);
    vault.attach_record();
    vault.fill();
    let key = secret(content);
    vault
        .operator()
        .protect(Protection::Credential { key })
        .unwrap();
    let vault = vault.again(|_| {});
    assert!(vault.bot().open(&name("bot")).is_ok());
    let vault = vault.again(|_| {
        fs::remove_file(&credential).unwrap();
        fs::write(&credential, "x".repeat(40)).unwrap();
        fs::set_permissions(&credential, fs::Permissions::from_mode(0o400)).unwrap();
    });
    locked(vault.bot().open(&name("bot")));
    vault.stop();
}

#[test]
fn killed_while_its_key_is_put_elsewhere_it_opens_in_the_old_way_or_the_new_one() {
    let vault = Vault::filled();
    let home = vault.home.path().to_owned();
    let vault = vault.stopped(|vault| {
        for round in 0..12_u64 {
            let (mut child, stream) = once(&home);
            let mut operator = client::operator(stream, &vault.key).unwrap();
            let before = open(&mut operator);
            let killer = thread::spawn(move || {
                // Stretching takes most of the time; what is written is written after it.
                thread::sleep(Duration::from_millis(40 * round));
                child.kill().unwrap();
                child.wait().unwrap();
            });
            let next = match before {
                KeySource::KeyFile => Protection::Passphrase {
                    passphrase: secret(WORDS),
                },
                _ => Protection::KeyFile,
            };
            // Whether it was in time does not matter.
            let _ = operator.protect(next);
            killer.join().unwrap();
        }
        let (_child, stream) = once(&home);
        open(&mut client::operator(stream, &vault.key).unwrap());
    });
    let mut operator = vault.operator();
    open(&mut operator);
    assert_eq!(
        vault.bot().open(&name("bot")).unwrap().expose(),
        "token-1-token"
    );
    vault.stop();
}

/// Opens it if it is locked; how its key is kept.
fn open(operator: &mut VaultClient) -> KeySource {
    let state = operator.state().unwrap();
    if state.lock == LockState::Locked {
        operator.unlock(passphrase(WORDS)).unwrap();
    }
    assert_eq!(operator.list().unwrap().len(), 2);
    state.key
}

/// A number of KiB that the kernel tells of a process.
fn kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn its_key_and_what_passes_through_it_are_kept_out_of_the_swap() {
    let vault = Vault::filled();
    let pid = vault.child.id();
    let before = kib(pid, "VmLck:");
    assert!(before >= 4, "the key's page");
    let mut operator = vault.operator();
    let long = secret(&"x".repeat(60_000));
    let terms = protocol::vault::Terms::default();
    operator
        .add(name("long"), protocol::vault::Subject::Model, terms, long)
        .unwrap();
    let after = kib(pid, "VmLck:");
    assert!(after > before, "{after} after {before}");
    // A passphrase's memory goes back.
    let passphrase = secret(WORDS);
    operator
        .protect(Protection::Passphrase { passphrase })
        .unwrap();
    let size = kib(pid, "VmRSS:");
    assert!(size < 32 * 1024, "{size} KiB");
    vault.stop();
}

#[test]
fn where_memory_cannot_be_locked_it_does_not_start_and_says_why() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("operator.pub"), "").unwrap();
    let vault = command(home.path());
    // Whoever may raise the limit would; `setpriv` takes that away.
    let mut limited = Command::new("setpriv");
    limited
        .args([
            "--bounding-set=-all",
            "--inh-caps=-all",
            "sh",
            "-c",
            "ulimit -l 64; exec \"$@\"",
            "sh",
        ])
        .arg(vault.get_program())
        .args(vault.get_args())
        .arg("--once");
    let out = limited.output().unwrap();
    let words = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{words}");
    assert!(words.contains("ulimit -l"), "{words}");
}

#[test]
fn while_it_is_locked_the_gateway_and_egress_are_told_so_and_no_more() {
    let vault = by_passphrase().again(|_| {});
    for peer in [Peer::Gateway, Peer::Egress] {
        locked(VaultClient::new(vault.link(peer)).marks());
    }
    let mut vault = vault;
    vault
        .control
        .send(&protocol::control::Control::Stop)
        .unwrap();
    let start = Instant::now();
    assert!(ended(&mut vault.child).success());
    assert!(start.elapsed() < LIMIT);
}
