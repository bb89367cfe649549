//! The programs that the test stands around, and a run in a box with rules.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use protocol::call::Action;
use protocol::control::{
    BoxGroups, Control, ControlEnd, EgressConfig, MemoryPolicy, ModelRoute, Peer, Reach, Report,
    Scheme, SupervisorEnd, TunnelRule,
};
use protocol::egress::{FetchReply, FetchRequest, TunnelReply, TunnelRequest};
use protocol::event::Event;
use protocol::frame::Link;
use protocol::ids::{CallId, CallRef, ChannelId, RowId, SessionId, TurnId};
use protocol::marks::{MarkKey, MarkKind, Marks, marks_of};
use protocol::outbound::EgressRule;
use protocol::record::{LedgerReply, LedgerRequest};
use protocol::rules::{OwnerRules, RulesNews};
use protocol::runner::{Changes, Limits, RunEnd, RunOutcome};
use protocol::vault::{VaultReply, VaultRequest};
use protocol::workspace::{Base, GitFolders, LayerFolders, LayerId, LayerKind};
use sandbox::boxes::{Boxes, Config};
use sandbox::layers::{Layer, Layers};
use sandbox::run::{Job, Killer, Refused, Then};
use sandbox::way::{Egress as EgressLink, Outside};

use crate::world::World;

fn telegram() -> ChannelId {
    ChannelId::parse("telegram").unwrap()
}

/// What the vault holds: invented, and in no format that anybody gives keys out in.
pub(crate) const KEY: &str = "Zq8hT2vXw91LmPc4Rb6Yk3Nd";
/// Its decoy.
pub(crate) const DECOY: &str = "Vd7sJ4nQe02KxHb9Tg5Wm8Lf";

const LIMIT: Duration = Duration::from_secs(30);

/// `bulkhead-egress`, and boxes whose ways out lead to it.
pub(crate) struct System {
    child: Child,
    control: SupervisorEnd<EgressConfig>,
    door: Arc<EgressLink>,
    boxes: Boxes,
    workspace: tempfile::TempDir,
    rows: Arc<Mutex<Vec<Event>>>,
    calls: AtomicU32,
    gateway: Link<FetchRequest, FetchReply>,
}

impl System {
    pub(crate) fn start(world: &World) -> Self {
        let system = Self::without_vault(world);
        vault(system.link(Peer::Vault));
        system
    }

    /// One that does not know what must not leave.
    pub(crate) fn without_vault(world: &World) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_bulkhead-egress"))
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        let control = SupervisorEnd::<EgressConfig>::new(ours);
        let config = EgressConfig {
            model: ModelRoute {
                name: "none".to_owned(),
                scheme: Scheme::Http,
                host: "127.0.0.1".to_owned(),
                port: 1,
                path: "/".to_owned(),
                reach: Reach::Loopback,
                idle_seconds: 1,
            },
            tunnels: vec![TunnelRule {
                channel: telegram(),
                host: "plain.acme-widgets.com".to_owned(),
                port: 443,
            }],
            rules: Vec::new(),
            extra_roots: vec![world.root.clone()],
        };
        control.send(&Control::Start { config }).unwrap();
        assert_eq!(control.receive().unwrap().0, Report::Ready);
        let link = |peer| link(&control, peer);
        let rows = Arc::new(Mutex::default());
        ledger(link(Peer::Ledger), Arc::clone(&rows));
        let door = Arc::new(EgressLink::default());
        door.link(link(Peer::Sandbox).into());
        let gateway = Link::new(link(Peer::Gateway));
        let workspace = tempfile::tempdir().unwrap();
        std::fs::write(workspace.path().join("ca.pem"), &world.root).unwrap();
        let exe = std::env::current_exe().unwrap();
        let config = Config {
            program: exe.clone(),
            tool_program: exe,
            workspace: workspace.path().to_owned(),
            memory: MemoryPolicy::BestEffort,
            groups: BoxGroups::Own,
        };
        Self {
            child,
            control,
            door,
            boxes: Boxes::start(config, Arc::new(Folders::new())).unwrap(),
            workspace,
            rows,
            calls: AtomicU32::new(0),
            gateway,
        }
    }

    fn link(&self, peer: Peer) -> UnixStream {
        link(&self.control, peer)
    }

    /// What the gateway hears next without having asked.
    pub(crate) fn gateway_hears(&self) -> FetchReply {
        self.gateway.receive().unwrap()
    }

    /// The workspace, as the box sees it before it changes anything.
    pub(crate) fn workspace(&self) -> &std::path::Path {
        self.workspace.path()
    }

    /// What the record took since the last look.
    pub(crate) fn rows(&self) -> Vec<Event> {
        std::mem::take(&mut self.rows.lock().unwrap())
    }

    /// Waits until the record holds something.
    pub(crate) fn wait_for_row(&self, fits: impl Fn(&Event) -> bool) {
        let begun = Instant::now();
        while !self.rows.lock().unwrap().iter().any(&fits) {
            assert!(begun.elapsed() < LIMIT, "{:?}", self.rows.lock().unwrap());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// A tunnel of the channel to its host.
    pub(crate) fn channel_tunnel(&self) -> UnixStream {
        let link = self.link(Peer::Channel(telegram()));
        let channel = ControlEnd::<TunnelRequest, TunnelReply>::new(link);
        let open = TunnelRequest::Open {
            id: 1,
            host: "plain.acme-widgets.com".to_owned(),
            port: 443,
        };
        channel.send(&open).unwrap();
        let (reply, socket) = channel.receive().unwrap();
        assert_eq!(reply, TunnelReply::Opened { id: 1 });
        // The tunnel ends with its link, so that stays open until the test ends.
        std::mem::forget(channel);
        let tunnel = UnixStream::from(socket.unwrap());
        tunnel.set_read_timeout(Some(LIMIT)).unwrap();
        tunnel
    }

    pub(crate) fn egress(&self) -> u32 {
        self.child.id()
    }

    /// What is in bulkhead.toml from now on.
    pub(crate) fn owner_writes(&self, rules: &[EgressRule]) {
        let rules = OwnerRules {
            egress: rules.to_vec(),
            ..OwnerRules::default()
        };
        let news = RulesNews::Changed { rules };
        self.control.send(&Control::Rules { news }).unwrap();
        // It comes over another link than boxes do.
        thread::sleep(Duration::from_millis(100));
    }

    /// Runs it in a box with these rules.
    pub(crate) fn run(&self, rules: &[EgressRule], argv: &[&str]) -> RunOutcome {
        self.run_killable(rules, argv, drop)
    }

    pub(crate) fn run_killable(
        &self,
        rules: &[EgressRule],
        argv: &[&str],
        begun: impl FnOnce(Killer),
    ) -> RunOutcome {
        self.owner_writes(rules);
        let outside = match rules {
            [] => Outside::Nothing,
            _ => Outside::Through {
                door: self.door.clone(),
                run: CallRef {
                    session: SessionId::parse("s1").unwrap(),
                    turn: TurnId(1),
                    call: CallId(self.calls.fetch_add(1, Ordering::SeqCst)),
                },
                rules: rules.to_vec(),
            },
        };
        let job = Job {
            action: Action::Argv {
                argv: argv.iter().map(|it| (*it).to_owned()).collect(),
            },
            limits: Limits {
                wall_seconds: 120,
                ..Limits::default()
            },
            then: Then::Discard,
        };
        self.boxes.run_online(job, &outside, begun).unwrap()
    }

    /// The same, of a shell's text; a shell is a program like any other here.
    pub(crate) fn shell(&self, rules: &[EgressRule], text: &str) -> RunOutcome {
        self.run(rules, &["sh", "-c", text])
    }

    /// It has to succeed; what it printed.
    pub(crate) fn works(&self, rules: &[EgressRule], text: &str) -> String {
        let outcome = self.shell(rules, text);
        assert_eq!(
            outcome.end,
            RunEnd::Exited { code: 0 },
            "{text}: {outcome:?}"
        );
        outcome.stdout
    }

    /// It has to fail; what it printed, errors included.
    pub(crate) fn fails(&self, rules: &[EgressRule], text: &str) -> String {
        let outcome = self.shell(rules, text);
        assert_ne!(
            outcome.end,
            RunEnd::Exited { code: 0 },
            "{text}: {outcome:?}"
        );
        assert_ne!(outcome.end, RunEnd::TimedOut, "{text}: {outcome:?}");
        outcome.stdout + &outcome.stderr
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn link(control: &SupervisorEnd<EgressConfig>, peer: Peer) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    control
        .send_with(&Control::Link { peer }, theirs.into())
        .unwrap();
    ours
}

/// Tells the marks of what it holds, and nothing else.
fn vault(stream: UnixStream) {
    let marks = || {
        let key = MarkKey::from_bytes([7; 32]);
        let mark = |name: &str, kind, value| marks_of(&key, name.parse().unwrap(), kind, value);
        let marks = vec![
            mark("key", MarkKind::Secret, KEY).unwrap(),
            mark("decoy", MarkKind::Honeytoken, DECOY).unwrap(),
        ];
        Marks::new(&key, marks)
    };
    thread::spawn(move || {
        let link = Link::<VaultReply, VaultRequest>::new(stream);
        link.set_timeout(None).unwrap();
        while let Ok(request) = link.receive() {
            let reply = match request {
                VaultRequest::Marks { after: 1 } => VaultReply::Unchanged,
                VaultRequest::Marks { .. } => VaultReply::Marks {
                    generation: 1,
                    marks: marks(),
                },
                other => panic!("{other:?}"),
            };
            if link.send(&reply).is_err() {
                return;
            }
        }
    });
}

/// Takes every row and keeps its event before it says so.
fn ledger(stream: UnixStream, rows: Arc<Mutex<Vec<Event>>>) {
    thread::spawn(move || {
        let link = Link::<LedgerReply, LedgerRequest>::new(stream);
        while let Ok(LedgerRequest::Append { rows: new }) = link.receive() {
            rows.lock()
                .unwrap()
                .extend(new.into_iter().map(|row| row.event));
            if link
                .send(&LedgerReply::Appended { first: RowId(1) })
                .is_err()
            {
                return;
            }
        }
    });
}

/// A rule for a program; `paths` says where on the host, and by that whether it is looked into.
pub(crate) fn rule(name: &str, program: &str, host: &str, more: serde_json::Value) -> EgressRule {
    let mut rule = serde_json::json!({
        "name": name, "subject": format!("exec:{program}"), "host": host, "ports": [443],
        "methods": ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"], "paths": ["/*"],
        "owner": "me", "expires": "2099-01-01", "ask": "never", "credential": null,
        "budgets": {"per_minute": 600, "per_day": "1 GiB", "upload": "1 MiB", "download": "10 MiB"},
        "cleartext": "refused", "reach": "public", "inspect": "no",
    });
    for (key, value) in more.as_object().unwrap() {
        rule[key] = value.clone();
    }
    serde_json::from_value(rule).unwrap()
}

/// Layers as plain folders; nothing in them is kept.
#[derive(Debug)]
struct Folders {
    folder: tempfile::TempDir,
    count: AtomicU64,
}

impl Folders {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sequence"), [0; 8]).unwrap();
        Self {
            folder,
            count: AtomicU64::new(0),
        }
    }

    fn made(&self, id: u64, part: &str) -> PathBuf {
        let path = self.folder.path().join(id.to_string()).join(part);
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Layers for Folders {
    fn begin(&self, kind: LayerKind) -> Result<Layer, Refused> {
        let id = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Layer {
            id: LayerId(id),
            folders: match kind {
                LayerKind::Overlay => LayerFolders::Overlay {
                    upper: self.made(id, "upper"),
                    work: self.made(id, "work"),
                },
                LayerKind::Copy => LayerFolders::Copy {
                    folder: self.made(id, "copy"),
                },
            },
            sequence: self.folder.path().join("sequence"),
        })
    }

    fn keep(
        &self,
        layer: LayerId,
        _: Base,
        _: Option<CallRef>,
        _: GitFolders,
    ) -> Result<Changes, Refused> {
        self.discard(layer)
    }

    fn discard(&self, _: LayerId) -> Result<Changes, Refused> {
        Ok(Changes::default())
    }

    fn forget(&self, _: LayerId) {}
}
