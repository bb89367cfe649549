//! The real `bulkhead-vault`, with the test as its supervisor, ledger, channel and operator.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_vault::{Store, VaultClient, VaultError, client};
use protocol::control::{Control, NoConfig, Peer, Report, SupervisorEnd};
use protocol::event::Event;
use protocol::frame::{self, Link};
use protocol::identity::IdentityKey;
use protocol::ids::{ChannelId, RowId, SecretName};
use protocol::record::{LedgerReply, LedgerRequest};
use protocol::vault::{SecretText, Subject, VaultReply, VaultRequest};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

fn name(text: &str) -> SecretName {
    SecretName::parse(text).unwrap()
}

fn telegram() -> ChannelId {
    ChannelId::parse("telegram").unwrap()
}

fn secret(text: &str) -> SecretText {
    SecretText::new(text.to_owned())
}

/// The program, and everything that a supervisor would hold.
struct Vault {
    home: TempDir,
    key: IdentityKey,
    child: Child,
    control: SupervisorEnd<NoConfig>,
}

impl Vault {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let (key, _) = IdentityKey::generate().unwrap();
        fs::write(
            home.path().join("operator.pub"),
            format!("{}\n", key.public()),
        )
        .unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        let child = command(home.path())
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        let control = SupervisorEnd::new(ours);
        Self {
            home,
            key,
            child,
            control,
        }
    }

    fn ready() -> Self {
        let vault = Self::start();
        vault
            .control
            .send(&Control::Start {
                config: NoConfig {},
            })
            .unwrap();
        assert_eq!(vault.control.receive().unwrap().0, Report::Ready);
        let path = vault.home.path().join("vault.sock");
        let listener = UnixListener::bind(path).unwrap();
        vault
            .control
            .send_with(&Control::Listener, listener.into())
            .unwrap();
        vault
    }

    fn link(&self, peer: Peer) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        self.control
            .send_with(&Control::Link { peer }, theirs.into())
            .unwrap();
        ours
    }

    fn operator(&self) -> VaultClient {
        client::operator(self.connect(), &self.key).unwrap()
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.home.path().join("vault.sock")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Adds two secrets as the operator.
    fn fill(&self) {
        let mut operator = self.operator();
        operator
            .add(name("bot"), Subject::Channel(telegram()), secret("token-1"))
            .unwrap();
        operator
            .add(name("model-key"), Subject::Model, secret("sk-2"))
            .unwrap();
    }

    fn stop(mut self) {
        self.control.send(&Control::Stop).unwrap();
        assert!(ended(&mut self.child).success());
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        // Gone already where the test stopped it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-vault"));
    command.arg("--dir").arg(home.join("vault"));
    command
        .arg("--operator-key-pub")
        .arg(home.join("operator.pub"));
    command
}

fn ended(child: &mut Child) -> std::process::ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < LIMIT, "it did not end");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A ledger that takes rows and hands out their events.
fn ledger(stream: UnixStream) -> std::sync::mpsc::Receiver<Event> {
    let (sender, events) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let link = Link::<LedgerReply, LedgerRequest>::new(stream);
        let mut next = 1;
        while let Ok(LedgerRequest::Append { rows }) = link.receive() {
            let first = RowId(next);
            next += rows.len() as u64;
            for row in rows {
                assert_eq!(row.session.as_str(), "system");
                sender.send(row.event).unwrap();
            }
            link.send(&LedgerReply::Appended { first }).unwrap();
        }
    });
    events
}

fn refused<T: std::fmt::Debug>(result: Result<T, VaultError>) -> String {
    match result {
        Err(VaultError::Refused(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_secret_goes_to_its_subject_only_and_each_use_is_recorded_first() {
    let vault = Vault::ready();
    vault.fill();
    let events = ledger(vault.link(Peer::Ledger));
    let mut bot = VaultClient::new(vault.link(Peer::Channel(telegram())));
    assert_eq!(bot.open(&name("bot")).unwrap().expose(), "token-1");
    let used = Event::SecretUsed {
        name: name("bot"),
        subject: Subject::Channel(telegram()),
    };
    assert_eq!(events.recv_timeout(LIMIT).unwrap(), used);
    let mut egress = VaultClient::new(vault.link(Peer::Egress));
    assert_eq!(egress.open(&name("model-key")).unwrap().expose(), "sk-2");
    let used = Event::SecretUsed {
        name: name("model-key"),
        subject: Subject::Model,
    };
    assert_eq!(events.recv_timeout(LIMIT).unwrap(), used);

    let web = ChannelId::parse("web").unwrap();
    let mut web = VaultClient::new(vault.link(Peer::Channel(web)));
    let others = refused(web.open(&name("bot")));
    let missing = refused(web.open(&name("tob")));
    assert_eq!(
        others.replace("`bot`", "`tob`"),
        missing,
        "which names exist does not show"
    );
    refused(egress.open(&name("bot")));
    refused(bot.open(&name("model-key")));
    assert!(events.try_recv().is_err(), "a refusal is no use");

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
    let vault = Vault::ready();
    vault.fill();
    let mut bot = VaultClient::new(vault.link(Peer::Channel(telegram())));
    refused(bot.open(&name("bot")));

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
    let events = ledger(vault.link(Peer::Ledger));
    assert_eq!(bot.open(&name("bot")).unwrap().expose(), "token-1");
    assert!(events.recv_timeout(LIMIT).is_ok());
    vault.stop();
}

#[test]
fn only_the_operator_manages_and_nobody_prints() {
    let vault = Vault::ready();
    vault.fill();
    let mut operator = vault.operator();
    operator.rotate(name("bot"), secret("token-3")).unwrap();
    assert!(refused(operator.add(name("bot"), Subject::Model, secret("x"))).contains("rotate"));
    assert!(refused(operator.remove(name("none"))).contains("bulkhead vault list"));
    refused(operator.open(&name("bot")));
    operator.remove(name("model-key")).unwrap();
    assert_eq!(operator.list().unwrap().len(), 1);

    let mut bot = VaultClient::new(vault.link(Peer::Channel(telegram())));
    refused(bot.add(name("mine"), Subject::Channel(telegram()), secret("x")));
    refused(bot.rotate(name("bot"), secret("x")));
    refused(bot.remove(name("bot")));
    refused(bot.list());
    let _events = ledger(vault.link(Peer::Ledger));
    assert_eq!(bot.open(&name("bot")).unwrap().expose(), "token-3");
    vault.stop();
}

#[test]
fn a_forged_proof_and_frames_out_of_order_end_the_connection() {
    let vault = Vault::ready();
    vault.fill();
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
        },
        VaultRequest::Add {
            name: name("x"),
            subject: Subject::Model,
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
    let agent = vault.link(Peer::Gateway);
    frame::write(&agent, &VaultRequest::Open { name: name("bot") }).unwrap_or_default();
    assert!(
        frame::read::<VaultReply>(&agent).is_err(),
        "others have no business here"
    );
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
    let vault = Vault::ready();
    vault.fill();
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

/// Starts another vault over the same folder and returns what it complains about.
fn second_vault(home: &Path) -> String {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(LIMIT)).unwrap();
    let mut child = command(home).stdin(OwnedFd::from(theirs)).spawn().unwrap();
    let control = SupervisorEnd::<NoConfig>::new(ours);
    let report = control.receive().unwrap().0;
    assert_eq!(ended(&mut child).code(), Some(1));
    match report {
        Report::Failed { reason } => reason,
        other => panic!("{other:?}"),
    }
}

/// Runs the program for one operator; returns its end of the link.
fn once(home: &Path) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = command(home)
        .arg("--once")
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    (child, ours)
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
        .add(name("bot"), Subject::Channel(telegram()), secret("t"))
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
        .add(name("n"), Subject::Model, secret("0"))
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
            match operator.rotate(name("n"), secret(&tried.to_string())) {
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
