//! The real program, with the test in the place of the supervisor and the gateway.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use protocol::channel::{ChannelEvent, ChannelRequest, TranscriptEntry};
use protocol::control::{ChannelConfig, Control, Peer, Report, SupervisorEnd};
use protocol::frame::Link;
use protocol::identity::{IdentityKey, proves};
use protocol::ids::{ChannelId, ConversationId, Nonce, SenderId, TurnId};

use crate::http::{Method, Reply, Request};

const SEED: [u8; 32] = [7; 32];
const LIMIT: Duration = Duration::from_secs(5);

pub(crate) type GatewayEnd = Link<ChannelEvent, ChannelRequest>;

pub(crate) struct Page {
    pub(crate) port: u16,
    pub(crate) gateway: GatewayEnd,
    control: SupervisorEnd<ChannelConfig>,
    child: Child,
    _home: tempfile::TempDir,
}

/// What a browser holds after its login.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) cookie: String,
    pub(crate) page_key: String,
}

impl Page {
    /// Serving, and proven to the gateway.
    pub(crate) fn up() -> Self {
        let page = Self::started();
        assert!(page.welcome(&IdentityKey::from_seed(&SEED)));
        page
    }

    /// Serving, with a link on which the gateway has said nothing.
    pub(crate) fn started() -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = home.path().join("web.key");
        std::fs::write(&key, "07".repeat(32)).unwrap();
        let (control, stdin) = UnixStream::pair().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_bulkhead-channel-web"))
            .args([PathBuf::from("--key"), key])
            .env_clear()
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(stdin)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        control.set_read_timeout(Some(LIMIT)).unwrap();
        let control = SupervisorEnd::new(control);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        control
            .send(&Control::Start {
                config: ChannelConfig::Web {
                    channel: web(),
                    port,
                },
            })
            .unwrap();
        let gateway = hand_over(&control);
        control
            .send_with(&Control::Listener, listener.into())
            .unwrap();
        assert_eq!(control.receive().unwrap().0, Report::Ready);
        Self {
            port,
            gateway,
            control,
            child,
            _home: home,
        }
    }

    /// A new gateway takes the place of the old one.
    pub(crate) fn restart_gateway(&mut self) {
        self.gateway.close();
        self.gateway = hand_over(&self.control);
        assert!(self.welcome(&IdentityKey::from_seed(&SEED)));
    }

    /// The gateway's part of the handshake, for a gateway that knows this key; whether it
    /// welcomed the program.
    pub(crate) fn welcome(&self, known: &IdentityKey) -> bool {
        let nonce = Nonce([9; 16]);
        self.gateway
            .send(&ChannelEvent::Challenge { nonce })
            .unwrap();
        let ChannelRequest::Prove { channel, signature } = self.gateway.receive().unwrap() else {
            panic!("no proof")
        };
        let proven = proves(&known.public(), &channel, nonce, &signature);
        match proven {
            true => self.gateway.send(&ChannelEvent::Welcome).unwrap(),
            false => self.gateway.close(),
        }
        proven
    }

    /// A browser that is logged in; its requests need no further word of the gateway.
    pub(crate) fn log_in(&self, name: &str) -> Session {
        let reply = self.ask(self.login_with("good"), |gateway| {
            let ChannelRequest::Login { id, token } = gateway.receive().unwrap() else {
                panic!("no login")
            };
            assert_eq!(token, "good");
            gateway.send(&logged_in(id, name)).unwrap();
        });
        assert_eq!(reply.status, 200, "{reply:?}");
        let set = reply.header("set-cookie").unwrap();
        let cookie = set.split(';').next().unwrap().to_owned();
        let page_key = reply.json()["page_key"].as_str().unwrap().to_owned();
        Session { cookie, page_key }
    }

    pub(crate) fn login_with(&self, token: &str) -> Request {
        self.post("/login", &serde_json::json!({ "token": token }))
    }

    /// A request as our own page makes it, without a login.
    pub(crate) fn get(&self, path: &str) -> Request {
        Request::new(self.port, Method::Get, path).header("Sec-Fetch-Site", "same-origin")
    }

    /// Likewise.
    pub(crate) fn post(&self, path: &str, body: &serde_json::Value) -> Request {
        Request::new(self.port, Method::Post, path)
            .header("Origin", &format!("http://127.0.0.1:{}", self.port))
            .header("Sec-Fetch-Site", "same-origin")
            .header("Content-Type", "application/json")
            .body(body.to_string().into_bytes())
    }

    /// Makes a request while the test plays the gateway.
    pub(crate) fn ask(&self, request: Request, gateway: impl FnOnce(&GatewayEnd)) -> Reply {
        std::thread::scope(|scope| {
            let reply = scope.spawn(move || request.send());
            gateway(&self.gateway);
            reply.join().unwrap()
        })
    }

    pub(crate) fn control(&self) -> &SupervisorEnd<ChannelConfig> {
        &self.control
    }

    /// The supervisor is gone.
    pub(crate) fn drop_control(&mut self) {
        let (control, _) = UnixStream::pair().unwrap();
        self.control = SupervisorEnd::new(control);
    }

    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the program did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Session {
    /// The request with both halves of the login.
    pub(crate) fn of(&self, request: Request) -> Request {
        request
            .header("Cookie", &self.cookie)
            .header("X-Bulkhead-Page-Key", &self.page_key)
    }
}

fn hand_over(control: &SupervisorEnd<ChannelConfig>) -> GatewayEnd {
    let (ours, theirs) = UnixStream::pair().unwrap();
    control
        .send_with(
            &Control::Link {
                peer: Peer::Gateway,
            },
            theirs.into(),
        )
        .unwrap();
    let link = Link::new(ours);
    link.set_timeout(Some(LIMIT)).unwrap();
    link
}

pub(crate) fn web() -> ChannelId {
    ChannelId::parse("web").unwrap()
}

pub(crate) fn sender(name: &str) -> SenderId {
    SenderId::parse(format!("sender-{name}")).unwrap()
}

pub(crate) fn conversation(name: &str) -> ConversationId {
    ConversationId::parse(name).unwrap()
}

/// What the gateway gives a browser of this name.
pub(crate) fn secret(name: &str) -> String {
    format!("{:a<32}{:b<32}", name, name)
}

pub(crate) fn logged_in(id: u64, name: &str) -> ChannelEvent {
    ChannelEvent::LoggedIn {
        id,
        cookie: secret(name),
        sender: sender(name),
        conversation: conversation(name),
    }
}

pub(crate) fn transcript(id: u64) -> ChannelEvent {
    let entries = vec![TranscriptEntry::User {
        text: "hello".to_owned(),
    }];
    ChannelEvent::Transcript {
        id,
        entries,
        running: Some(TurnId(3)),
    }
}
