//! Boxes that may reach something: one port of their own loopback leads out, to a door that the test keeps.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bulkhead_sandbox::run::Refused;
use bulkhead_sandbox::way::{Door, Outside};
use protocol::box_link::PORT;
use protocol::call::{Action, ToolCall};
use protocol::ids::{CallId, CallRef, SessionId, TurnId};
use protocol::outbound::EgressRule;
use protocol::runner::{RunEnd, RunOutcome};

use crate::Test;
use crate::host::{Host, argv_action, shell};
use crate::inside::TOOL;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_box_with_rules_reaches_its_door_and_nothing_else",
        a_box_with_rules_reaches_its_door_and_nothing_else,
    ),
    (
        "the_environment_of_a_box_leads_to_its_door",
        the_environment_of_a_box_leads_to_its_door,
    ),
    ("a_door_closes_with_its_box", a_door_closes_with_its_box),
    ("without_a_door_nothing_runs", without_a_door_nothing_runs),
    (
        "only_what_was_understood_gets_a_door",
        only_what_was_understood_gets_a_door,
    ),
];

/// Answers each connection with its own words, and counts.
#[derive(Debug)]
struct Keeper {
    authority: &'static str,
    listener: Mutex<Option<TcpListener>>,
    opened: AtomicUsize,
    closed: AtomicUsize,
}

impl Keeper {
    fn new(authority: &'static str) -> Arc<Self> {
        Arc::new(Self {
            authority,
            listener: Mutex::default(),
            opened: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
        })
    }

    fn outside(self: &Arc<Self>) -> Outside {
        Outside::Through {
            door: self.clone(),
            run: CallRef {
                session: SessionId::parse("s1").unwrap(),
                turn: TurnId(1),
                call: CallId(1),
            },
            rules: vec![rule()],
        }
    }
}

impl Door for Keeper {
    fn open(&self, _: &CallRef, rules: &[EgressRule], socket: OwnedFd) -> Result<String, Refused> {
        assert_eq!(rules, [rule()]);
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        assert_eq!(address.to_string(), format!("127.0.0.1:{PORT}"));
        let taking = listener.try_clone().unwrap();
        self.opened.fetch_add(1, Ordering::SeqCst);
        *self.listener.lock().unwrap() = Some(listener);
        std::thread::spawn(move || {
            // Until the test ends.
            while let Ok((mut stream, _)) = taking.accept() {
                let mut heard = [0; 13];
                if stream.read_exact(&mut heard).is_ok() {
                    stream.write_all(b"the door").unwrap();
                }
            }
        });
        Ok(self.authority.to_owned())
    }

    fn close(&self, _: &CallRef) {
        self.closed.fetch_add(1, Ordering::SeqCst);
    }
}

/// As it comes from the gateway.
fn rule() -> EgressRule {
    serde_json::from_value(serde_json::json!({
        "name": "notes", "subject": "exec:git", "host": "git.example.com", "ports": [443],
        "methods": ["GET"], "paths": ["/*"], "owner": "me", "expires": "2099-01-01", "ask": "never",
        "credential": null,
        "budgets": {"per_minute": 60, "per_day": "1 GiB", "upload": "1 MiB", "download": "1 MiB"},
        "cleartext": "refused", "reach": "public", "inspect": "no",
    }))
    .unwrap()
}

/// What it printed, in a box with a door.
fn inside(host: &Host, keeper: &Arc<Keeper>, act: &[&str]) -> String {
    let argv: Vec<&str> = [TOOL, "inside"].iter().chain(act).copied().collect();
    let outcome = host
        .run_online(argv_action(&argv), &keeper.outside())
        .unwrap();
    assert_eq!(
        outcome.end,
        RunEnd::Exited { code: 0 },
        "{act:?}: {outcome:?}"
    );
    outcome.stdout.trim().to_owned()
}

fn a_box_with_rules_reaches_its_door_and_nothing_else(host: &Host) {
    let keeper = Keeper::new("");
    let door = format!("127.0.0.1:{PORT}");
    assert_eq!(inside(host, &keeper, &["ask", &door]), "the door");
    // As many as there are addresses that another program of this host listens at.
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = tcp.local_addr().unwrap().to_string();
    let udp = udp.local_addr().unwrap().to_string();
    assert_eq!(host.outside(&["tcp", &tcp]), "allowed");
    assert_eq!(host.outside(&["udp", &udp]), "allowed");
    assert_eq!(host.outside(&["listen", "127.0.0.1:0"]), "allowed");
    for act in [
        ["tcp", tcp.as_str()],
        ["tcp", "1.1.1.1:443"],
        ["tcp", "1.1.1.1:3128"],
        ["tcp", "169.254.169.254:80"],
        ["tcp", "127.0.0.1:3129"],
        ["tcp", "[::1]:3128"],
        ["udp", udp.as_str()],
        ["udp", "127.0.0.1:53"],
        ["udp", "1.1.1.1:53"],
        ["listen", "127.0.0.1:0"],
        ["listen", "127.0.0.1:3129"],
    ] {
        assert_eq!(inside(host, &keeper, &act), "refused", "{act:?}");
    }
    // And without rules there is not even a socket for it.
    assert_eq!(host.inside(&["tcp", &door]), "refused");
}

fn environment(outcome: &RunOutcome) -> Vec<(&str, &str)> {
    let mut lines: Vec<_> = outcome
        .stdout
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    lines.sort_unstable();
    lines
}

fn the_environment_of_a_box_leads_to_its_door(host: &Host) {
    let trusting =
        Keeper::new("-----BEGIN CERTIFICATE-----\nof the test\n-----END CERTIFICATE-----\n");
    let outcome = host
        .run_online(argv_action(&["env"]), &trusting.outside())
        .unwrap();
    let all = environment(&outcome);
    let value = |name: &str| all.iter().find(|(have, _)| *have == name).map(|it| it.1);
    for name in ["http_proxy", "HTTPS_PROXY", "ALL_PROXY", "npm_config_proxy"] {
        assert_eq!(value(name), Some("http://127.0.0.1:3128"), "{name}");
    }
    let file = value("SSL_CERT_FILE").unwrap();
    assert_eq!(value("GIT_SSL_CAINFO"), Some(file));
    let read = host
        .run_online(argv_action(&["cat", file]), &trusting.outside())
        .unwrap();
    assert!(
        read.stdout
            .starts_with("-----BEGIN CERTIFICATE-----\nof the test\n")
    );
    assert_eq!(outcome.receipt.network, "egress");
    assert_eq!(outcome.receipt.rules, ["notes"]);

    let plain = Keeper::new("");
    let outcome = host
        .run_online(argv_action(&["env"]), &plain.outside())
        .unwrap();
    assert!(
        environment(&outcome)
            .iter()
            .all(|(name, _)| !name.contains("CERT"))
    );
    let outcome = host.argv(&["env"]);
    let leads = |(name, _): &(&str, &str)| name.to_lowercase().contains("proxy");
    assert!(!environment(&outcome).iter().any(leads));
    assert_eq!(outcome.receipt.network, "none");
    assert!(outcome.receipt.rules.is_empty());
}

fn a_door_closes_with_its_box(host: &Host) {
    let keeper = Keeper::new("");
    let outcome = host
        .run_online(argv_action(&["true"]), &keeper.outside())
        .unwrap();
    assert_eq!(outcome.end, RunEnd::Exited { code: 0 });
    let count = |of: &AtomicUsize| of.load(Ordering::SeqCst);
    assert_eq!((count(&keeper.opened), count(&keeper.closed)), (1, 1));
}

/// Has nothing to open.
#[derive(Debug)]
struct Shut;

impl Door for Shut {
    fn open(&self, _: &CallRef, _: &[EgressRule], _: OwnedFd) -> Result<String, Refused> {
        Err(Refused {
            reason: "shut".to_owned(),
            fix: "knock".to_owned(),
        })
    }

    fn close(&self, _: &CallRef) {
        panic!("it was never open");
    }
}

fn without_a_door_nothing_runs(host: &Host) {
    let outside = match Keeper::new("").outside() {
        Outside::Nothing => panic!("it reaches something"),
        Outside::Through { run, rules, .. } => Outside::Through {
            door: Arc::new(Shut),
            run,
            rules,
        },
    };
    let action = argv_action(&["touch", "it-ran"]);
    let refused = host.run_online(action, &outside).unwrap_err();
    assert_eq!(refused.reason, "shut");
    assert!(!host.workspace.path().join("it-ran").exists());
}

fn only_what_was_understood_gets_a_door(host: &Host) {
    let keeper = Keeper::new("");
    let call = ToolCall::ReadFile {
        path: protocol::call::WorkspacePath::parse("x").unwrap(),
        first_line: 1,
        lines: 1,
    };
    for action in [shell("true"), Action::Tool { call }] {
        assert!(host.run_online(action, &keeper.outside()).is_err());
    }
    assert_eq!(keeper.opened.load(Ordering::SeqCst), 0);
}
