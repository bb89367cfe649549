//! Starts the program and plays supervisor, ledger, programs and operator.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_vault::{VaultClient, VaultError, client};
use protocol::control::{Control, NoConfig, Peer, Report, SupervisorEnd};
use protocol::event::Event;
use protocol::frame::Link;
use protocol::identity::IdentityKey;
use protocol::ids::{ChannelId, Digest, RowId, SecretName};
use protocol::record::{LedgerReply, LedgerRequest, Row, vault_session};
use protocol::time::Millis;
use protocol::vault::{NewDate, SecretText, Subject, Terms};
use tempfile::TempDir;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const SAME: NewDate = NewDate::SameSpan;

pub(crate) fn name(text: &str) -> SecretName {
    SecretName::parse(text).unwrap()
}

pub(crate) fn telegram() -> ChannelId {
    ChannelId::parse("telegram").unwrap()
}

pub(crate) fn secret(text: &str) -> SecretText {
    SecretText::new(text.to_owned())
}

/// Terms with these hosts.
pub(crate) fn to(hosts: &[&str]) -> Terms {
    Terms {
        hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        ..Terms::default()
    }
}

/// The program, and everything that a supervisor would hold.
pub(crate) struct Vault {
    pub(crate) home: TempDir,
    pub(crate) key: IdentityKey,
    pub(crate) child: Child,
    pub(crate) control: SupervisorEnd<NoConfig>,
    /// What the ledger of [`Vault::with_record`] took, over all starts.
    pub(crate) record: Record,
    /// Arguments beyond the usual ones.
    also: Vec<PathBuf>,
}

impl Vault {
    /// Ready, without a record.
    pub(crate) fn ready() -> Self {
        Self::ready_with(Vec::new())
    }

    /// Ready, with these arguments too.
    pub(crate) fn ready_with(also: Vec<PathBuf>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (key, _) = IdentityKey::generate().unwrap();
        fs::write(
            home.path().join("operator.pub"),
            format!("{}\n", key.public()),
        )
        .unwrap();
        let (child, control) = start(home.path(), &also);
        let vault = Self {
            home,
            key,
            child,
            control,
            record: Record::default(),
            also,
        };
        vault.make_ready();
        vault
    }

    /// Ready, with a record.
    pub(crate) fn with_record() -> Self {
        let vault = Self::ready();
        vault.attach_record();
        vault
    }

    /// Ready, with a record and two secrets.
    pub(crate) fn filled() -> Self {
        let vault = Self::with_record();
        vault.fill();
        vault
    }

    fn make_ready(&self) {
        self.control
            .send(&Control::Start {
                config: NoConfig {},
            })
            .unwrap();
        assert_eq!(self.control.receive().unwrap().0, Report::Ready);
        let path = self.home.path().join("vault.sock");
        // Of an earlier start.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        self.control
            .send_with(&Control::Listener, listener.into())
            .unwrap();
    }

    /// Links it with the record of this test.
    pub(crate) fn attach_record(&self) {
        self.record.serve(self.link(Peer::Ledger));
    }

    pub(crate) fn link(&self, peer: Peer) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        self.control
            .send_with(&Control::Link { peer }, theirs.into())
            .unwrap();
        ours
    }

    pub(crate) fn egress(&self) -> VaultClient {
        VaultClient::new(self.link(Peer::Egress))
    }

    pub(crate) fn bot(&self) -> VaultClient {
        VaultClient::new(self.link(Peer::Channel(telegram())))
    }

    pub(crate) fn operator(&self) -> VaultClient {
        client::operator(self.connect(), &self.key).unwrap()
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.home.path().join("vault.sock")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Adds two secrets as the operator; takes a record.
    pub(crate) fn fill(&self) {
        let mut operator = self.operator();
        let channel = Subject::Channel(telegram());
        operator
            .add(
                name("bot"),
                channel,
                Terms::default(),
                secret("token-1-token"),
            )
            .unwrap();
        let terms = Terms::default();
        operator
            .add(
                name("model-key"),
                Subject::Model,
                terms,
                secret("sk-2-secret"),
            )
            .unwrap();
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> PathBuf {
        self.home.path().join("vault")
    }

    /// Stops it, does this with its folder, starts it again over the same folder and the same record.
    pub(crate) fn again(self, meanwhile: impl FnOnce(&Path)) -> Self {
        self.stopped(|vault| meanwhile(&vault.dir()))
    }

    /// Stops it, does this while it is down, starts it again likewise.
    pub(crate) fn stopped(mut self, meanwhile: impl FnOnce(&Self)) -> Self {
        self.control.send(&Control::Stop).unwrap();
        assert!(ended(&mut self.child).success());
        meanwhile(&self);
        (self.child, self.control) = start(self.home.path(), &self.also);
        self.make_ready();
        self.attach_record();
        self
    }

    pub(crate) fn stop(mut self) {
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

/// Starts it and tells it nothing.
fn start(home: &Path, also: &[PathBuf]) -> (Child, SupervisorEnd<NoConfig>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(LIMIT)).unwrap();
    let child = command(home)
        .args(also)
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    (child, SupervisorEnd::new(ours))
}

pub(crate) fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead-vault"));
    command.arg("--dir").arg(home.join("vault"));
    command
        .arg("--operator-key-pub")
        .arg(home.join("operator.pub"));
    command
}

pub(crate) fn ended(child: &mut Child) -> std::process::ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < LIMIT, "it did not end");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A ledger that takes rows, hands out their events, and knows the last one of the vault's chain.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    events: Vec<Event>,
    open: Option<UnixStream>,
}

impl Record {
    pub(crate) fn serve(&self, stream: UnixStream) {
        self.0.lock().unwrap().open = Some(stream.try_clone().unwrap());
        let record = self.clone();
        thread::spawn(move || {
            stream.set_read_timeout(None).unwrap();
            let link = Link::<LedgerReply, LedgerRequest>::new(stream);
            while let Ok(request) = link.receive() {
                if link.send(&record.answer(request)).is_err() {
                    return;
                }
            }
        });
    }

    fn answer(&self, request: LedgerRequest) -> LedgerReply {
        let events = &mut self.0.lock().unwrap().events;
        match request {
            LedgerRequest::Append { rows } => {
                let first = RowId(events.len() as u64 + 1);
                for row in rows {
                    let vault = matches!(row.event, Event::VaultChanged { .. });
                    assert_eq!(row.session.as_str(), if vault { "vault" } else { "system" });
                    events.push(row.event);
                }
                LedgerReply::Appended { first }
            }
            LedgerRequest::LastVaultChange => {
                let last = events
                    .iter()
                    .rfind(|event| matches!(event, Event::VaultChanged { .. }));
                let row = |event: &Event| Row {
                    row: RowId(1),
                    time: Millis(1),
                    session: vault_session(),
                    event: event.clone(),
                    hash: Digest([0; 32]),
                };
                LedgerReply::Rows {
                    rows: last.map(row).into_iter().collect(),
                }
            }
            other => panic!("the vault asked the record for {other:?}"),
        }
    }

    /// What came after so many.
    pub(crate) fn after(&self, count: usize) -> Vec<Event> {
        self.0.lock().unwrap().events[count..].to_vec()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().events.len()
    }

    /// The ledger dies.
    pub(crate) fn die(&self) {
        if let Some(stream) = self.0.lock().unwrap().open.take() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, VaultError>) -> String {
    match result {
        Err(VaultError::Refused(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

/// Runs the program for one operator; returns its end of the link.
pub(crate) fn once(home: &Path) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = command(home)
        .arg("--once")
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    (child, ours)
}

/// Starts another vault over the same folder and returns what it complains about.
pub(crate) fn second_vault(home: &Path) -> String {
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
