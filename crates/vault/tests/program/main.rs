//! The real `bulkhead-vault`, with the test as its supervisor, ledger, channel and operator.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

mod rig;
mod rollback;
mod terms;
mod unlocking;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_vault::{Store, VaultClient, client};
use protocol::control::{Control, Peer};
use protocol::event::Event;
use protocol::frame::{self, Link};
use protocol::identity::IdentityKey;
use protocol::ids::{ChannelId, RowId};
use protocol::record::{LedgerReply, LedgerRequest};
use protocol::vault::{Protection, Purpose, Subject, Terms, Unlocking, VaultReply, VaultRequest};

use rig::{LIMIT, SAME, Vault, ended, name, once, refused, second_vault, secret, telegram};

#[test]
fn a_secret_goes_to_its_subject_only_and_each_use_is_recorded_first() {
    let vault = Vault::filled();
    let before = vault.record.len();
    let mut bot = vault.bot();
    assert_eq!(bot.open(&name("bot")).unwrap().expose(), "token-1-token");
    let mut egress = vault.egress();
    let key = egress.open_for(&name("model-key"), Purpose::Model, "api.example.com");
    assert_eq!(key.unwrap().expose(), "sk-2-secret");
    let used = |what, subject| Event::SecretUsed {
        name: name(what),
        subject,
    };
    let rows = [
        used("bot", Subject::Channel(telegram())),
        used("model-key", Subject::Model),
    ];
    assert_eq!(vault.record.after(before), rows);

    let web = ChannelId::parse("web").unwrap();
    let mut web = VaultClient::new(vault.link(Peer::Channel(web)));
    let others = refused(web.open(&name("bot")));
    let missing = refused(web.open(&name("tob")));
    assert_eq!(
        others.replace("`bot`", "`tob`"),
        missing,
        "which names exist does not show"
    );
    refused(egress.open_for(&name("bot"), Purpose::Model, "api.example.com"));
    refused(egress.open_for(&name("model-key"), Purpose::Tool, "api.example.com"));
    refused(egress.open(&name("model-key")));
    refused(bot.open(&name("model-key")));
    refused(bot.open_for(&name("model-key"), Purpose::Model, "api.example.com"));
    refused(bot.marks());
    assert_eq!(vault.record.len(), before + 2, "a refusal is no use");

    let list = vault.operator().list().unwrap();
    let dates: Vec<_> = list
        .iter()
        .map(|e| (e.name.as_str(), e.last_used.is_some()))
        .collect();
    assert_eq!(dates, [("bot", true), ("model-key", true)]);
    vault.stop();
}

#[test]
fn without_a_record_no_secret() {
    let vault = Vault::filled();
    vault.record.die();
    let mut bot = vault.bot();
    refused(bot.open(&name("bot")));
    assert!(refused(vault.operator().remove(name("bot"))).contains("record"));

    // A ledger that says no.
    let full = Link::<LedgerReply, LedgerRequest>::new(vault.link(Peer::Ledger));
    let saying = thread::spawn(move || {
        full.receive().unwrap();
        full.send(&LedgerReply::Failed {
            reason: "disk full".to_owned(),
        })
        .unwrap();
        full
    });
    refused(bot.open(&name("bot")));
    // One that is gone.
    drop(saying.join().unwrap());
    refused(bot.open(&name("bot")));

    // One that does not answer, then does: late answers do not count for later questions.
    let hanging = vault.link(Peer::Ledger);
    let start = Instant::now();
    refused(bot.open(&name("bot")));
    let waited = start.elapsed();
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(8)).contains(&waited),
        "{waited:?}"
    );
    let reply = frame::encode(&LedgerReply::Appended { first: RowId(1) }).unwrap();
    (&hanging).write_all(&reply[..7]).unwrap();
    let rest = reply[7..].to_vec();
    let answering = thread::spawn(move || {
        assert!(frame::read::<LedgerRequest>(&hanging).is_ok());
        (&hanging).write_all(&rest).unwrap();
        assert!(frame::read::<LedgerRequest>(&hanging).is_ok());
        let failed = LedgerReply::Failed {
            reason: "disk full".to_owned(),
        };
        frame::write(&hanging, &failed).unwrap();
        hanging
    });
    refused(bot.open(&name("bot")));
    drop(answering.join().unwrap());

    // A new one.
    vault.attach_record();
    let before = vault.record.len();
    assert_eq!(bot.open(&name("bot")).unwrap().expose(), "token-1-token");
    assert_eq!(vault.record.len(), before + 1);
    vault.stop();
}

#[test]
fn only_the_operator_manages_and_nobody_prints() {
    let vault = Vault::filled();
    let mut operator = vault.operator();
    operator
        .rotate(name("bot"), secret("token-3"), SAME, SAME)
        .unwrap();
    let terms = Terms::default();
    let taken = operator.add(name("bot"), Subject::Model, terms, secret("x"));
    assert!(refused(taken).contains("rotate"));
    assert!(refused(operator.remove(name("none"))).contains("bulkhead vault list"));
    refused(operator.open(&name("bot")));
    refused(operator.open_for(&name("model-key"), Purpose::Model, "a.example"));
    operator.remove(name("model-key")).unwrap();
    assert_eq!(operator.list().unwrap().len(), 1);

    for peer in [Peer::Channel(telegram()), Peer::Egress, Peer::Gateway] {
        let mut link = VaultClient::new(vault.link(peer));
        let (channel, terms) = (Subject::Channel(telegram()), Terms::default());
        refused(link.add(name("mine"), channel, terms, secret("x")));
        refused(link.rotate(name("bot"), secret("x"), SAME, SAME));
        refused(link.remove(name("bot")));
        refused(link.list());
        refused(link.state());
        refused(link.lock());
        refused(link.accept());
        refused(link.protect(Protection::KeyFile));
        refused(link.backup(secret("a long passphrase")));
        refused(link.restore("{}", secret("a long passphrase")));
        let passphrase = secret("a long passphrase");
        refused(link.unlock(Unlocking::Passphrase { passphrase }));
    }
    let mut bot = vault.bot();
    assert_eq!(bot.open(&name("bot")).unwrap().expose(), "token-3");
    vault.stop();
}

#[test]
fn a_forged_proof_and_frames_out_of_order_end_the_connection() {
    let vault = Vault::filled();
    let (stranger, _) = IdentityKey::generate().unwrap();
    assert!(
        refused(client::operator(vault.connect(), &stranger).map(drop)).contains("operator key")
    );

    // A proof for one challenge is none for another.
    let challenge = |stream: &UnixStream| match frame::read(stream).unwrap() {
        VaultReply::Challenge { nonce } => nonce,
        other => panic!("{other:?}"),
    };
    let (first, second) = (vault.connect(), vault.connect());
    challenge(&second);
    let signature = vault
        .key
        .prove(&ChannelId::parse("vault").unwrap(), challenge(&first));
    frame::write(&second, &VaultRequest::Prove { signature }).unwrap();
    assert!(matches!(
        frame::read(&second).unwrap(),
        VaultReply::Refused { .. }
    ));
    assert!(frame::read::<VaultReply>(&second).is_err());
    frame::write(&first, &VaultRequest::Prove { signature }).unwrap();
    assert!(matches!(frame::read(&first).unwrap(), VaultReply::Done));
    frame::write(&first, &VaultRequest::Prove { signature }).unwrap();
    assert!(
        frame::read::<VaultReply>(&first).is_err(),
        "a second proof is out of order"
    );

    for request in [
        VaultRequest::List,
        VaultRequest::Open { name: name("bot") },
        VaultRequest::Remove { name: name("bot") },
        VaultRequest::Rotate {
            name: name("bot"),
            value: secret("x"),
            expires: SAME,
            rotate_by: SAME,
        },
        VaultRequest::State,
        VaultRequest::Lock,
        VaultRequest::Accept,
        VaultRequest::Marks { after: 0 },
        VaultRequest::Add {
            name: name("x"),
            subject: Subject::Model,
            terms: Terms::default(),
            value: secret("x"),
        },
    ] {
        let stream = vault.connect();
        challenge(&stream);
        frame::write(&stream, &request).unwrap();
        assert!(frame::read::<VaultReply>(&stream).is_err(), "{request:?}");
    }
    let stream = vault.connect();
    challenge(&stream);
    (&stream).write_all(b"\0\0\0\x04nope").unwrap();
    assert!(frame::read::<VaultReply>(&stream).is_err());

    let channel = vault.link(Peer::Channel(telegram()));
    frame::write(&channel, &VaultRequest::Prove { signature }).unwrap();
    assert!(frame::read::<VaultReply>(&channel).is_err());
    for peer in [Peer::Sandbox, Peer::Workspace, Peer::Vault] {
        let other = vault.link(peer);
        frame::write(&other, &VaultRequest::Open { name: name("bot") }).unwrap_or_default();
        assert!(
            frame::read::<VaultReply>(&other).is_err(),
            "others have no business here"
        );
    }
    assert_eq!(
        vault.operator().list().unwrap().len(),
        2,
        "nothing happened"
    );
    vault.stop();
}

#[test]
fn silent_connections_do_not_use_it_up() {
    let vault = Vault::ready();
    let silent: Vec<_> = (0..8).map(|_| vault.connect()).collect();
    for stream in &silent {
        assert!(matches!(
            frame::read(stream).unwrap(),
            VaultReply::Challenge { .. }
        ));
    }
    assert!(
        frame::read::<VaultReply>(&vault.connect()).is_err(),
        "the ninth is closed"
    );
    drop(silent);
    let start = Instant::now();
    while client::operator(vault.connect(), &vault.key).is_err() {
        assert!(start.elapsed() < LIMIT);
        thread::sleep(Duration::from_millis(20));
    }
    vault.stop();
}

#[test]
fn a_vault_that_cannot_be_opened_says_why() {
    let vault = Vault::filled();
    let dir = vault.home.path().join("vault");
    let second = second_vault(vault.home.path());
    assert!(
        second.contains("another process is using the vault"),
        "{second}"
    );
    fs::write(dir.join("vault.key"), "0".repeat(64)).unwrap();
    let home = vault.home.path().to_owned();
    vault.control.send(&Control::Stop).unwrap();
    let mut vault = vault;
    assert!(ended(&mut vault.child).success());
    let reason = second_vault(&home);
    assert!(reason.contains("vault.key is not its key"), "{reason}");
    fs::set_permissions(dir.join("vault.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let reason = second_vault(&home);
    assert!(reason.contains("chmod"), "{reason}");
}

#[test]
fn once_serves_one_operator_and_ends() {
    let vault = Vault::ready();
    let home = vault.home.path();
    let (mut child, stream) = once(home);
    let reason = refused(client::operator(stream, &vault.key).map(drop));
    assert!(reason.contains("another process"), "{reason}");
    assert_eq!(ended(&mut child).code(), Some(1));

    vault.control.send(&Control::Stop).unwrap();
    let (mut child, stream) = once(home);
    let mut operator = client::operator(stream, &vault.key).unwrap();
    operator
        .add(name("bot"), Subject::Model, Terms::default(), secret("t"))
        .unwrap();
    drop(operator);
    assert!(ended(&mut child).success());
}

#[test]
fn killed_at_any_moment_it_has_the_old_value_or_the_new() {
    let home = tempfile::tempdir().unwrap();
    let (key, _) = IdentityKey::generate().unwrap();
    fs::write(home.path().join("operator.pub"), key.public().to_string()).unwrap();
    let (mut child, stream) = once(home.path());
    let mut operator = client::operator(stream, &key).unwrap();
    operator
        .add(name("n"), Subject::Model, Terms::default(), secret("0"))
        .unwrap();
    drop(operator);
    assert!(ended(&mut child).success());

    let mut confirmed = 0;
    for round in 0..12_u64 {
        let (mut child, stream) = once(home.path());
        let mut operator = client::operator(stream, &key).unwrap();
        let killer = thread::spawn(move || {
            thread::sleep(Duration::from_micros(700 * round));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let mut tried = confirmed;
        for _ in 0..10_000 {
            tried += 1;
            match operator.rotate(name("n"), secret(&tried.to_string()), SAME, SAME) {
                Ok(()) => confirmed = tried,
                Err(_) => break,
            }
        }
        killer.join().unwrap();
        let store = Store::open(&home.path().join("vault")).unwrap();
        let value: u64 = store.reveal(&name("n")).unwrap().expose().parse().unwrap();
        assert!(
            value == confirmed || value == tried,
            "{value}: {confirmed} or {tried}"
        );
        confirmed = value;
    }
    assert!(confirmed > 0, "nothing was ever written");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let status = Command::new(env!("CARGO_BIN_EXE_bulkhead-vault"))
        .arg("--print")
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2));
}
