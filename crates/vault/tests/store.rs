//! The vault's folder: what is on disk, and what somebody who changes it achieves.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use bulkhead_vault::{MAX_VALUE, Store, StoreError, key_source};
use protocol::ids::SecretName;
use protocol::marks::{MarkKey, normal};
use protocol::vault::{KeySource, NewDate, SecretText, Subject, Terms};
use serde_json::Value;
use tempfile::TempDir;

const SAME: NewDate = NewDate::SameSpan;
const HUSH: &str = "123456:hush-hush-token";

fn name(text: &str) -> SecretName {
    SecretName::parse(text).unwrap()
}

fn telegram() -> Subject {
    Subject::Channel("telegram".parse().unwrap())
}

fn secret(text: &str) -> SecretText {
    SecretText::new(text.to_owned())
}

fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    dir
}

/// A folder with two secrets, closed again.
fn filled() -> TempDir {
    let dir = folder();
    let mut store = Store::open(dir.path()).unwrap();
    store
        .add(name("bot"), telegram(), Terms::default(), &secret(HUSH))
        .unwrap();
    store
        .add(
            name("key"),
            Subject::Model,
            Terms::default(),
            &secret("sk-model"),
        )
        .unwrap();
    store.touch(&name("bot")).unwrap();
    dir
}

fn edit(dir: &Path, change: impl FnOnce(&mut Value)) {
    let path = dir.join("vault.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut file);
    fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
}

fn opens(dir: &Path) -> Result<Store, StoreError> {
    Store::open(dir)
}

#[test]
fn secrets_survive_a_restart_and_are_in_no_file() {
    let dir = filled();
    let mut store = opens(dir.path()).unwrap();
    assert_eq!(store.reveal(&name("bot")).unwrap().expose(), HUSH);
    assert_eq!(store.subject(&name("key")).unwrap(), Some(&Subject::Model));
    store
        .rotate(name("bot"), &secret("another-token"), SAME, SAME)
        .unwrap();
    store.remove(&name("key")).unwrap();
    drop(store);

    let store = opens(dir.path()).unwrap();
    assert_eq!(
        store.reveal(&name("bot")).unwrap().expose(),
        "another-token"
    );
    assert_eq!(store.subject(&name("bot")).unwrap(), Some(&telegram()));
    assert!(matches!(
        store.reveal(&name("key")),
        Err(StoreError::Unknown(_))
    ));
    let mut files = 0;
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        for clear in [HUSH, "another-token", "sk-model"] {
            let hexed = protocol::ids::hex(clear.as_bytes());
            assert!(!text.contains(clear) && !text.contains(&hexed), "{path:?}");
        }
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600,
            "{path:?}"
        );
        files += 1;
    }
    assert_eq!(files, 3, "the secrets, the key and the lock");
}

#[test]
fn each_changed_field_is_found() {
    let flip = |value: &mut Value| {
        let text = value.as_str().unwrap();
        let first = if text.starts_with('0') { "1" } else { "0" };
        *value = Value::from(format!("{first}{}", &text[1..]));
    };
    type Change = Box<dyn Fn(&mut Value)>;
    let changes: Vec<(&str, Change)> = vec![
        (
            "name",
            Box::new(|f| f["entries"][0]["name"] = "other".into()),
        ),
        (
            "subject",
            Box::new(|f| f["entries"][0]["subject"] = "model".into()),
        ),
        (
            "created",
            Box::new(|f| f["entries"][0]["created"] = 1.into()),
        ),
        (
            "last_used",
            Box::new(|f| f["entries"][0]["last_used"] = Value::Null),
        ),
        (
            "nonce",
            Box::new(move |f| flip(&mut f["entries"][0]["nonce"])),
        ),
        (
            "ciphertext",
            Box::new(move |f| flip(&mut f["entries"][0]["ciphertext"])),
        ),
        (
            "seal",
            Box::new(move |f| flip(&mut f["seal"]["ciphertext"])),
        ),
        (
            "an entry",
            Box::new(|f| drop(f["entries"].as_array_mut().unwrap().pop())),
        ),
        (
            "swapped ciphertexts",
            Box::new(|f| {
                for field in ["nonce", "ciphertext"] {
                    let first = f["entries"][0][field].take();
                    f["entries"][0][field] = f["entries"][1][field].take();
                    f["entries"][1][field] = first;
                }
            }),
        ),
    ];
    for (what, change) in changes {
        let dir = filled();
        edit(dir.path(), change);
        let opened = opens(dir.path()).map(drop);
        assert!(
            matches!(opened, Err(StoreError::Tampered(_))),
            "{what}: {opened:?}"
        );
    }
}

#[test]
fn an_entry_of_an_older_copy_does_not_come_back() {
    let dir = filled();
    let old: Value =
        serde_json::from_slice(&fs::read(dir.path().join("vault.json")).unwrap()).unwrap();
    let mut store = opens(dir.path()).unwrap();
    store
        .rotate(name("bot"), &secret("new"), SAME, SAME)
        .unwrap();
    drop(store);
    edit(dir.path(), |file| {
        file["entries"][0] = old["entries"][0].clone()
    });
    assert!(matches!(
        opens(dir.path()).map(drop),
        Err(StoreError::Tampered(_))
    ));
}

#[test]
fn what_is_not_a_vault_is_named_and_nothing_is_made_anew() {
    let malformed = |change: fn(&mut Value)| {
        let dir = filled();
        edit(dir.path(), change);
        assert!(matches!(
            opens(dir.path()).map(drop),
            Err(StoreError::Malformed { .. })
        ));
    };
    malformed(|file| file["version"] = 3.into());
    malformed(|file| file["extra"] = 2.into());
    malformed(|file| file["entries"][0]["nonce"] = "00".into());
    malformed(|file| {
        let twice = file["entries"][0].clone();
        file["entries"].as_array_mut().unwrap().push(twice);
    });

    let dir = filled();
    fs::write(dir.path().join("vault.json"), "").unwrap();
    assert!(matches!(
        opens(dir.path()).map(drop),
        Err(StoreError::Malformed { .. })
    ));

    let dir = filled();
    fs::remove_file(dir.path().join("vault.key")).unwrap();
    assert!(matches!(
        opens(dir.path()).map(drop),
        Err(StoreError::KeyMissing(_))
    ));
    assert!(!dir.path().join("vault.key").exists());

    let dir = filled();
    fs::write(dir.path().join("vault.key"), "0".repeat(63)).unwrap();
    assert!(matches!(
        opens(dir.path()).map(drop),
        Err(StoreError::KeyMalformed(_))
    ));

    let dir = filled();
    fs::write(dir.path().join("vault.key"), "0".repeat(64)).unwrap();
    assert!(matches!(
        opens(dir.path()).map(drop),
        Err(StoreError::Tampered(_))
    ));
}

#[test]
fn files_that_others_can_read_or_that_lead_elsewhere_are_refused() {
    for file in [".", "vault.json", "vault.key"] {
        let dir = filled();
        let mode = if file == "." { 0o750 } else { 0o640 };
        fs::set_permissions(dir.path().join(file), fs::Permissions::from_mode(mode)).unwrap();
        assert!(
            matches!(
                opens(dir.path()).map(drop),
                Err(StoreError::OpenToOthers(_))
            ),
            "{file}"
        );
    }
    let dir = filled();
    let key = dir.path().join("vault.key");
    fs::rename(&key, dir.path().join("elsewhere")).unwrap();
    symlink("elsewhere", &key).unwrap();
    assert!(matches!(
        opens(dir.path()).map(drop),
        Err(StoreError::OpenToOthers(_))
    ));
}

#[test]
fn two_do_not_have_it_at_once() {
    let dir = filled();
    let store = opens(dir.path()).unwrap();
    assert!(matches!(
        opens(dir.path()).map(drop),
        Err(StoreError::InUse(_))
    ));
    drop(store);
    assert!(opens(dir.path()).is_ok());
}

#[test]
fn a_disk_that_takes_nothing_leaves_memory_as_it_was() {
    let dir = filled();
    let mut store = opens(dir.path()).unwrap();
    // A folder in the place of the file beside makes every write fail, for root too.
    let beside = dir.path().join("vault.json.new");
    fs::create_dir(&beside).unwrap();
    assert!(matches!(
        store.add(name("x"), telegram(), Terms::default(), &secret("y")),
        Err(StoreError::Io { .. })
    ));
    assert!(store.remove(&name("bot")).is_err());
    assert_eq!(store.list().unwrap().len(), 2);
    assert_eq!(store.reveal(&name("bot")).unwrap().expose(), HUSH);
    fs::remove_dir(&beside).unwrap();
    store
        .add(name("x"), telegram(), Terms::default(), &secret("y"))
        .unwrap();
    // What a crash left beside is no obstacle.
    fs::write(&beside, "half a fi").unwrap();
    store.remove(&name("x")).unwrap();
    drop(store);
    assert_eq!(opens(dir.path()).unwrap().list().unwrap().len(), 2);
}

#[test]
fn bounds_hold() {
    let dir = folder();
    assert_eq!(key_source(dir.path()).unwrap(), None);
    let mut store = Store::open(dir.path()).unwrap();
    assert_eq!(key_source(dir.path()).unwrap(), Some(KeySource::KeyFile));
    let longest = secret(&"x".repeat(MAX_VALUE));
    let too_long = secret(&"x".repeat(MAX_VALUE + 1));
    store
        .add(name("a"), telegram(), Terms::default(), &longest)
        .unwrap();
    assert!(matches!(
        store.add(name("b"), telegram(), Terms::default(), &too_long),
        Err(StoreError::BadLength)
    ));
    assert!(matches!(
        store.add(name("b"), telegram(), Terms::default(), &secret("")),
        Err(StoreError::BadLength)
    ));
    assert!(matches!(
        store.rotate(name("a"), &too_long, SAME, SAME),
        Err(StoreError::BadLength)
    ));
    assert!(matches!(
        store.add(name("a"), telegram(), Terms::default(), &longest),
        Err(StoreError::Taken(_))
    ));
    assert!(matches!(
        store.rotate(name("b"), &longest, SAME, SAME),
        Err(StoreError::Unknown(_))
    ));
    assert!(matches!(
        store.remove(&name("b")),
        Err(StoreError::Unknown(_))
    ));
    assert!(store.reveal(&name("a")).unwrap().expose() == longest.expose());
}

#[test]
fn parts_of_a_secret_are_marked_that_are_secret_by_themselves() {
    let dir = folder();
    let mut store = Store::open(dir.path()).unwrap();
    // Invented.
    let client = r#"{"refresh_token": "Zq8hT2vXw91LmPc4", "client_id": "a1b2c3d4.example.com",
        "client_secret": "GX-Rb6Yk3Nd"}"#;
    for (secret_name, value) in [
        ("mail", "alice.smith@example.com:Tr0ub4dor&3xQ9"),
        ("client", client),
    ] {
        let terms = Terms {
            hosts: vec!["api.example.com".parse().unwrap()],
            ..Terms::default()
        };
        store
            .add(name(secret_name), Subject::Tool, terms, &secret(value))
            .unwrap();
    }
    let marks = store.marks(&MarkKey::from_bytes([7; 32])).unwrap();
    let marked = |text: &str| {
        let normal: Vec<u8> = text.bytes().filter_map(normal).collect();
        let whole = marks.digest(&normal);
        let found = marks.iter().find(|mark| mark.whole == whole);
        found.map(|mark| mark.name.to_string())
    };
    assert_eq!(marked("Tr0ub4dor&3xQ9").as_deref(), Some("mail"));
    for part in [client, "Zq8hT2vXw91LmPc4", "GX-Rb6Yk3Nd"] {
        assert_eq!(marked(part).as_deref(), Some("client"), "{part}");
    }
    for name in ["alice.smith@example.com", "a1b2c3d4.example.com"] {
        assert_eq!(marked(name), None, "{name} stands in ordinary texts");
    }
}
