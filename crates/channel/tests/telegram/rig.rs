//! Starts the program and plays supervisor, gateway, egress and vault.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use protocol::channel::{ChannelEvent, ChannelRequest};
use protocol::control::{ChannelConfig, Control, ControlEnd, Peer, Report, Scheme, SupervisorEnd};
use protocol::egress::{EgressFault, TunnelReply, TunnelRequest};
use protocol::frame::Link;
use protocol::identity::{IdentityKey, proves};
use protocol::ids::{ChannelId, ConversationId, MessageId, Nonce, SecretName, SessionId, TurnId};
use protocol::vault::{SecretText, VaultReply, VaultRequest};
use tempfile::TempDir;
use testkit::telegram::{BotMessage, Chat, TelegramServer};

pub(crate) const TOKEN: &str = "4242:correct-horse_battery-staple";
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const OWNER: i64 = 7;

/// The gateway's end of the link.
pub(crate) type GatewayEnd = Link<ChannelEvent, ChannelRequest>;

/// The program, and everything around it. Dropped, it ends the program and sees to it that the
/// token stands nowhere.
pub(crate) struct Rig {
    pub(crate) server: TelegramServer,
    pub(crate) vault: Arc<Mutex<String>>,
    pub(crate) supervisor: SupervisorEnd<ChannelConfig>,
    scheme: Scheme,
    child: Child,
    home: TempDir,
    tokens: Vec<String>,
}

impl Rig {
    /// The program with links to egress and the vault, not yet to the gateway.
    pub(crate) fn new() -> Self {
        Self::with(TOKEN, Scheme::Http)
    }

    /// Likewise, where the vault holds this as the token.
    pub(crate) fn with_vault(held: &str) -> Self {
        Self::with(held, Scheme::Http)
    }

    /// Likewise, where the configuration wants TLS.
    pub(crate) fn with_tls() -> Self {
        Self::with(TOKEN, Scheme::Https)
    }

    fn with(held: &str, scheme: Scheme) -> Self {
        let server = TelegramServer::start(TOKEN).unwrap();
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("telegram.key"), "07".repeat(32)).unwrap();
        fs::create_dir(home.path().join("telegram")).unwrap();
        let vault = Arc::new(Mutex::new(held.to_owned()));
        let (child, supervisor) = start(&home, scheme, server.address().port(), &vault);
        Self {
            server,
            vault,
            supervisor,
            scheme,
            child,
            home,
            tokens: vec![TOKEN.to_owned()],
        }
    }

    /// The program with all links, and a user who has written before.
    pub(crate) fn with_gateway() -> (Self, GatewayEnd) {
        let rig = Self::new();
        let gateway = rig.gateway();
        (rig, gateway)
    }

    /// Gives the program a new link to the gateway, and lets it prove itself.
    pub(crate) fn gateway(&self) -> GatewayEnd {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.supervisor
            .send_with(
                &Control::Link {
                    peer: Peer::Gateway,
                },
                theirs.into(),
            )
            .unwrap();
        let end = GatewayEnd::new(ours);
        end.set_timeout(Some(LIMIT)).unwrap();
        let nonce = Nonce([5; 16]);
        end.send(&ChannelEvent::Challenge { nonce }).unwrap();
        let ChannelRequest::Prove { channel, signature } = end.receive().unwrap() else {
            panic!("no proof")
        };
        let key = IdentityKey::from_seed(&[7; 32]).public();
        assert!(proves(&key, &channel, nonce, &signature));
        end.send(&ChannelEvent::Welcome).unwrap();
        end
    }

    /// Kills the program in the middle of whatever it does, and starts it again.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let (child, supervisor) = start(
            &self.home,
            self.scheme,
            self.server.address().port(),
            &self.vault,
        );
        (self.child, self.supervisor) = (child, supervisor);
    }

    /// Telegram takes only this token from now on.
    pub(crate) fn rotate_at_telegram(&mut self, token: &str) {
        self.server.rotate(token);
        self.tokens.push(token.to_owned());
    }

    /// A private text of a user.
    pub(crate) fn writes(&self, user: i64, text: &str) -> i64 {
        self.server.user_writes(user, &Chat::private(user), text)
    }

    /// Waits until the bot has sent so many messages.
    pub(crate) fn messages(&self, count: usize) -> Vec<BotMessage> {
        let enough = |server: &TelegramServer| {
            Some(server.messages()).filter(|messages| messages.len() >= count)
        };
        self.server.wait(LIMIT, enough).unwrap_or_else(|| {
            panic!(
                "not {count} messages but {:?}; it says:\n{}",
                self.server.messages(),
                self.stderr()
            )
        })
    }

    /// Waits until something holds.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&TelegramServer) -> bool) {
        let waited = self
            .server
            .wait(LIMIT, |server| holds(server).then_some(()));
        assert!(
            waited.is_some(),
            "not within the limit: {what}; it says:\n{}",
            self.stderr()
        );
    }

    /// What the program wrote for the log.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.home.path().join("stderr")).unwrap()
    }

    /// Waits until the program wrote this for the log.
    pub(crate) fn until_logged(&self, text: &str) {
        self.until(text, |_| self.stderr().contains(text));
    }

    /// Waits for the program's end; its exit code.
    pub(crate) fn exit(&mut self) -> Option<i32> {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "the program does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            return;
        }
        let mut seen = self.stderr();
        for file in fs::read_dir(self.home.path().join("telegram")).unwrap() {
            seen += &fs::read_to_string(file.unwrap().path()).unwrap();
        }
        for request in self.server.requests() {
            seen += &format!("{:?}", request.parameters);
        }
        for token in &self.tokens {
            let (_, secret) = token.split_once(':').unwrap();
            assert!(!seen.contains(secret), "the token got out");
        }
        assert!(!seen.contains("panicked"), "{seen}");
    }
}

fn start(
    home: &TempDir,
    scheme: Scheme,
    port: u16,
    token: &Arc<Mutex<String>>,
) -> (Child, SupervisorEnd<ChannelConfig>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let log = File::options()
        .create(true)
        .append(true)
        .open(home.path().join("stderr"))
        .unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_bulkhead-channel-telegram"))
        .arg("--key")
        .arg(home.path().join("telegram.key"))
        .arg("--dir")
        .arg(home.path().join("telegram"))
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    ours.set_read_timeout(Some(LIMIT)).unwrap();
    let supervisor = SupervisorEnd::new(ours);
    let config = ChannelConfig::Telegram {
        channel: ChannelId::parse("telegram").unwrap(),
        scheme,
        host: "127.0.0.1".to_owned(),
        port,
        token: SecretName::parse("telegram-token").unwrap(),
    };
    supervisor.send(&Control::Start { config }).unwrap();
    give_vault(&supervisor, token);
    give_egress(&supervisor);
    assert_eq!(supervisor.receive().unwrap().0, Report::Ready);
    (child, supervisor)
}

fn give_vault(supervisor: &SupervisorEnd<ChannelConfig>, token: &Arc<Mutex<String>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    supervisor
        .send_with(&Control::Link { peer: Peer::Vault }, theirs.into())
        .unwrap();
    let token = Arc::clone(token);
    std::thread::spawn(move || {
        let link = Link::<VaultReply, VaultRequest>::new(ours);
        while let Ok(VaultRequest::Open { name }) = link.receive() {
            assert_eq!(name.as_str(), "telegram-token");
            let value = SecretText::new(token.lock().unwrap().clone());
            link.send(&VaultReply::Opened { value }).unwrap();
        }
    });
}

fn give_egress(supervisor: &SupervisorEnd<ChannelConfig>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    supervisor
        .send_with(&Control::Link { peer: Peer::Egress }, theirs.into())
        .unwrap();
    std::thread::spawn(move || {
        let link = ControlEnd::<TunnelReply, TunnelRequest>::new(ours);
        while let Ok((TunnelRequest::Open { id, host, port }, None)) = link.receive() {
            let sent = match TcpStream::connect((host.as_str(), port)) {
                Ok(socket) => link.send_with(&TunnelReply::Opened { id }, carried(socket)),
                Err(error) => {
                    let fault = EgressFault::Unreachable {
                        detail: error.to_string(),
                    };
                    link.send(&TunnelReply::Failed { id, fault })
                }
            };
            // The program may have been killed meanwhile.
            if sent.is_err() {
                return;
            }
        }
    });
}

/// A Unix socket whose bytes are carried to and from this connection.
fn carried(server: TcpStream) -> OwnedFd {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (mut from, mut to) = (ours.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        // Either side may break it off at any time.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let (mut from, mut to) = (server, ours);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    theirs.into()
}

pub(crate) fn chat(id: i64) -> ConversationId {
    ConversationId::parse(id.to_string()).unwrap()
}

pub(crate) fn session() -> SessionId {
    SessionId::parse("s1").unwrap()
}

/// The message that the gateway is handed next; its id and its text.
pub(crate) fn inbound(gateway: &GatewayEnd) -> (MessageId, String) {
    match gateway.receive().unwrap() {
        ChannelRequest::Inbound { message, text, .. } => (message, text),
        other => panic!("no message but {other:?}"),
    }
}

pub(crate) fn accept(gateway: &GatewayEnd, message: MessageId) {
    gateway
        .send(&ChannelEvent::Accepted {
            message,
            session: session(),
        })
        .unwrap();
}

pub(crate) fn reply(gateway: &GatewayEnd, delivery: u64, text: &str) {
    let conversation = chat(OWNER);
    let (session, turn, text) = (session(), TurnId(1), text.to_owned());
    gateway
        .send(&ChannelEvent::Reply {
            delivery,
            conversation,
            session,
            turn,
            text,
        })
        .unwrap();
}

pub(crate) fn delivered(gateway: &GatewayEnd) -> u64 {
    match gateway.receive().unwrap() {
        ChannelRequest::Delivered { delivery } => delivery,
        other => panic!("no delivery but {other:?}"),
    }
}

/// A user has written, and the gateway has it: from then on the bot can write to them.
pub(crate) fn opened(user: i64) -> (Rig, GatewayEnd) {
    let (rig, gateway) = Rig::with_gateway();
    rig.writes(user, "hello");
    let (message, _) = inbound(&gateway);
    accept(&gateway, message);
    (rig, gateway)
}
