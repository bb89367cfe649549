//! The service over its links, as the supervisor starts it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use bulkhead_sandbox::layers::Layers;
use bulkhead_sandbox::{Files, Program};
use protocol::call::Action;
use protocol::control::{
    BoxGroups, Control, MemoryPolicy, Peer, Report, SandboxConfig, SupervisorEnd,
};
use protocol::engine::EngineConfig;
use protocol::frame::Link;
use protocol::ids::{CallId, CallRef, Digest, SessionId, TurnId};
use protocol::runner::{Backend, Fate, Leaves, Limits, Network, RunEnd, RunReply, RunRequest};

use protocol::workspace::{LayerReply, LayerRequest};

use crate::Test;
use crate::host::{Host, argv_action};

pub(crate) const TESTS: &[Test] = &[
    (
        "the_service_runs_many_and_kills_one",
        the_service_runs_many_and_kills_one,
    ),
    (
        "the_service_kills_runs_with_the_gateway",
        the_service_kills_runs_with_the_gateway,
    ),
    (
        "what_only_reads_leaves_nothing_whatever_it_does",
        what_only_reads_leaves_nothing_whatever_it_does,
    ),
    (
        "the_service_ends_when_told_and_with_its_supervisor",
        the_service_ends_when_told_and_with_its_supervisor,
    ),
    (
        "boxes_are_built_below_a_confined_supervisor",
        boxes_are_built_below_a_confined_supervisor,
    ),
];

struct Service {
    child: Child,
    control: Option<SupervisorEnd<SandboxConfig>>,
}

type Gateway = Link<RunRequest, RunReply>;

impl Service {
    fn start(host: &Host) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(&host.helper)
            .arg("--write")
            .arg(host.workspace.path())
            .arg("--write")
            .arg(host.layers.folder())
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        let control = SupervisorEnd::<SandboxConfig>::new(ours);
        let config = SandboxConfig {
            workspace: host.workspace.path().to_owned(),
            tool_program: std::env::current_exe().unwrap(),
            engine_program: "/nonexistent".into(),
            engine: EngineConfig {
                backend: Backend::Native,
                socket: None,
                home: Digest::of("tests"),
                sandbox_program: host.helper.clone(),
                tool_program: std::env::current_exe().unwrap(),
                files: "/nonexistent".into(),
                memory: MemoryPolicy::BestEffort,
            },
            groups: BoxGroups::Own,
            spare_boxes: 1,
            limits: Limits::default(),
        };
        control.send(&Control::Start { config }).unwrap();
        assert_eq!(control.receive().unwrap().0, Report::Ready);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = Peer::Workspace;
        control
            .send_with(&Control::Link { peer }, theirs.into())
            .unwrap();
        let layers = host.layers.clone();
        std::thread::spawn(move || keep_workspace(&Link::new(ours), &*layers));
        Self {
            child,
            control: Some(control),
        }
    }

    fn gateway(&self) -> Gateway {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.control
            .as_ref()
            .unwrap()
            .send_with(
                &Control::Link {
                    peer: Peer::Gateway,
                },
                theirs.into(),
            )
            .unwrap();
        let link = Link::new(ours);
        link.set_timeout(Some(Duration::from_secs(30))).unwrap();
        link
    }

    fn ends(&mut self) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program that keeps the workspace does, as far as the service sees it.
fn keep_workspace(link: &Link<LayerReply, LayerRequest>, layers: &dyn Layers) {
    while let Ok(request) = link.receive() {
        let reply = match request {
            LayerRequest::Begin { kind } => {
                let layer = layers.begin(kind).unwrap();
                LayerReply::Begun {
                    layer: layer.id,
                    folders: layer.folders,
                    sequence: layer.sequence,
                }
            }
            LayerRequest::Keep {
                layer,
                base,
                origin,
                git,
            } => LayerReply::Changes {
                changes: layers.keep(layer, base, origin, git).unwrap(),
            },
            LayerRequest::Discard { layer } => LayerReply::Changes {
                changes: layers.discard(layer).unwrap(),
            },
            LayerRequest::Forget { layer } | LayerRequest::GiveBack { layer } => {
                layers.forget(layer);
                LayerReply::Forgotten
            }
        };
        if link.send(&reply).is_err() {
            return;
        }
    }
}

fn call(number: u32) -> CallRef {
    CallRef {
        session: SessionId::parse("s").unwrap(),
        turn: TurnId(1),
        call: CallId(number),
    }
}

fn run(number: u32, action: Action) -> RunRequest {
    run_leaving(Leaves::Changes, number, action)
}

fn run_leaving(leaves: Leaves, number: u32, action: Action) -> RunRequest {
    RunRequest::Run {
        call: call(number),
        action,
        limits: Limits {
            wall_seconds: 30,
            ..Limits::default()
        },
        leaves,
        network: Network::None,
    }
}

fn end(reply: RunReply) -> (CallRef, RunEnd, String) {
    match reply {
        RunReply::Finished { call, outcome } => (call, outcome.end, outcome.stdout),
        RunReply::Refused { reason, fix, .. } => panic!("{reason}; {fix}"),
    }
}

fn the_service_runs_many_and_kills_one(host: &Host) {
    let service = Service::start(host);
    let gateway = service.gateway();
    gateway
        .send(&run(1, argv_action(&["sleep", "100"])))
        .unwrap();
    for number in 2..8 {
        gateway
            .send(&run(number, argv_action(&["echo", &number.to_string()])))
            .unwrap();
    }
    let mut seen: Vec<_> = (2..8).map(|_| end(gateway.receive().unwrap())).collect();
    seen.sort_by_key(|(call, ..)| call.call);
    for (number, (which, end, stdout)) in (2..8).zip(seen) {
        assert_eq!(
            (which, end, stdout),
            (
                call(number),
                RunEnd::Exited { code: 0 },
                format!("{number}\n")
            )
        );
    }
    // As much as can be told is told, also of bytes that are long as JSON.
    let limits = Limits {
        output_bytes: u32::MAX,
        ..Limits::default()
    };
    let action = Action::Shell {
        script: "head -c 9000000 /dev/zero; head -c 9000000 /dev/zero >&2".to_owned(),
    };
    gateway
        .send(&RunRequest::Run {
            call: call(8),
            action,
            limits,
            leaves: Leaves::Changes,
            network: Network::None,
        })
        .unwrap();
    match gateway.receive().unwrap() {
        RunReply::Finished { outcome, .. } => {
            assert!(outcome.truncated && outcome.stdout.len() > 100_000)
        }
        RunReply::Refused { reason, fix, .. } => panic!("{reason}; {fix}"),
    }
    // The same call twice is one run.
    gateway.send(&run(1, argv_action(&["true"]))).unwrap();
    assert!(matches!(
        gateway.receive().unwrap(),
        RunReply::Refused { .. }
    ));
    gateway.send(&RunRequest::Kill { call: call(1) }).unwrap();
    assert_eq!(
        end(gateway.receive().unwrap()),
        (call(1), RunEnd::Killed, String::new())
    );
    // Killed at once, it either did not begin or was killed in time.
    gateway
        .send(&run(9, argv_action(&["sleep", "100"])))
        .unwrap();
    gateway.send(&RunRequest::Kill { call: call(9) }).unwrap();
    match gateway.receive().unwrap() {
        RunReply::Finished { outcome, .. } => assert_eq!(outcome.end, RunEnd::Killed),
        RunReply::Refused { reason, .. } => assert_eq!(reason, "it was stopped before it began"),
    }
}

fn what_only_reads_leaves_nothing_whatever_it_does(host: &Host) {
    let service = Service::start(host);
    let gateway = service.gateway();
    let there = host.workspace.path().join("left");
    for (number, leaves) in [(1, Leaves::Nothing), (2, Leaves::Changes)] {
        let touch = argv_action(&["touch", "left"]);
        gateway.send(&run_leaving(leaves, number, touch)).unwrap();
        let RunReply::Finished { outcome, .. } = gateway.receive().unwrap() else {
            panic!("it was refused");
        };
        assert_eq!(outcome.end, RunEnd::Exited { code: 0 });
        match leaves {
            Leaves::Nothing => assert_eq!(outcome.changes.fate, Fate::Discarded),
            Leaves::Changes | Leaves::Files => {
                assert!(matches!(outcome.changes.fate, Fate::Kept { .. }));
            }
        }
        assert_eq!(there.exists(), leaves == Leaves::Changes);
    }
    std::fs::remove_file(there).unwrap();
}

fn the_service_kills_runs_with_the_gateway(host: &Host) {
    let service = Service::start(host);
    let gateway = service.gateway();
    let script = "while :; do echo x >> /workspace/beat; sleep 0.02; done";
    gateway
        .send(&run(
            1,
            Action::Shell {
                script: script.to_owned(),
            },
        ))
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let beat = loop {
        // One of the layers that were made so far; some belong to boxes that are kept ready.
        if let Some(beat) = host.layers.any("beat") {
            break beat;
        }
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    };
    drop(gateway);
    // A new gateway is served when the runs of the old one are gone.
    let gateway = service.gateway();
    gateway.send(&run(1, argv_action(&["echo"]))).unwrap();
    end(gateway.receive().unwrap());
    let counted = std::fs::metadata(&beat).unwrap().len();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(counted, std::fs::metadata(&beat).unwrap().len());
    std::fs::remove_file(beat).unwrap();
}

fn the_service_ends_when_told_and_with_its_supervisor(host: &Host) {
    let mut service = Service::start(host);
    let gateway = service.gateway();
    gateway
        .send(&run(1, argv_action(&["sleep", "100"])))
        .unwrap();
    service
        .control
        .as_ref()
        .unwrap()
        .send(&Control::Stop)
        .unwrap();
    assert!(service.ends());
    let mut service = Service::start(host);
    service.control = None;
    assert!(service.ends());
}

fn boxes_are_built_below_a_confined_supervisor(host: &Host) {
    let exe = std::env::current_exe().unwrap();
    let output = Command::new(exe)
        .arg("supervised")
        .arg(&host.helper)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "1000\n0000000000000000\n"
    );
}

/// The chain of the real product: a confined supervisor, the service below it, a box below that.
pub(crate) fn supervised(helper: &Path) {
    bulkhead_sandbox::confine(Program::Supervisor, &Files::default()).unwrap();
    let host = Host::new(helper);
    let service = Service::start(&host);
    let gateway = service.gateway();
    let script = "id -u; sed -n 's/CapBnd:.//p' /proc/self/status";
    gateway
        .send(&run(
            1,
            Action::Shell {
                script: script.to_owned(),
            },
        ))
        .unwrap();
    let (_, ended, stdout) = end(gateway.receive().unwrap());
    assert_eq!(ended, RunEnd::Exited { code: 0 });
    print!("{stdout}");
}
