//! The real program, confined, with a gateway and an egress made of this test.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use protocol::agent::{AgentCommand, AgentRequest, ModelApi, ModelSpec, ToolCalling, TurnFault};
use protocol::control::{Control, NoConfig, Peer, Report, SupervisorEnd};
use protocol::egress::{ModelReply, ModelRequest};
use protocol::frame::{Link, LinkError};
use protocol::ids::TurnId;

type Gateway = Link<AgentCommand, AgentRequest>;
type Egress = Link<ModelReply, ModelRequest>;

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

const LINE: &str = "{\"message\":{\"content\":\"hello\"},\"done\":true}\n";

struct Running {
    child: Child,
    control: SupervisorEnd<NoConfig>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_bulkhead-agent"))
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let running = Self {
            child,
            control: SupervisorEnd::new(ours),
        };
        running
            .control
            .send(&Control::Start {
                config: NoConfig {},
            })
            .unwrap();
        assert_eq!(running.control.receive().unwrap().0, Report::Ready);
        running
    }

    fn link<S: serde::Serialize, R: serde::de::DeserializeOwned>(&self, peer: Peer) -> Link<S, R> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.control
            .send_with(&Control::Link { peer }, theirs.into())
            .unwrap();
        let link = Link::new(ours);
        link.set_timeout(Some(LIMIT)).unwrap();
        link
    }

    fn exit(&mut self) -> ExitStatus {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the agent did not end");
    }
}

fn start(gateway: &Gateway) {
    let model = ModelSpec {
        api: ModelApi::Ollama,
        name: "m".to_owned(),
        tool_calls: ToolCalling::Native,
        context_tokens: 4_000,
        answer_tokens: 500,
    };
    let command = AgentCommand::Start {
        model,
        system: "s".to_owned(),
        tools: vec![],
        history: vec![],
        max_rounds: 3,
    };
    gateway.send(&command).unwrap();
}

fn ask(gateway: &Gateway, turn: u64) {
    gateway
        .send(&AgentCommand::Turn {
            turn: TurnId(turn),
            text: "x".to_owned(),
        })
        .unwrap();
}

/// Answers the next question on the link.
fn answer(egress: &Egress) {
    let ModelRequest::Chat { id, .. } = egress.receive().unwrap() else {
        panic!("no question")
    };
    egress
        .send(&ModelReply::Status {
            id,
            status: 200,
            retry_after: None,
        })
        .unwrap();
    egress
        .send(&ModelReply::Chunk {
            id,
            text: LINE.to_owned(),
        })
        .unwrap();
    egress.send(&ModelReply::End { id }).unwrap();
}

fn finishes(gateway: &Gateway, turn: u64) {
    let turn = TurnId(turn);
    assert_eq!(
        gateway.receive().unwrap(),
        AgentRequest::Token {
            turn,
            text: "hello".to_owned()
        }
    );
    assert_eq!(
        gateway.receive().unwrap(),
        AgentRequest::Finished {
            turn,
            text: "hello".to_owned()
        }
    );
}

#[test]
fn a_turn_goes_through_the_real_program() {
    let mut running = Running::start();
    let gateway: Gateway = running.link(Peer::Gateway);
    let egress: Egress = running.link(Peer::Egress);
    start(&gateway);
    for turn in 1..=3 {
        ask(&gateway, turn);
        answer(&egress);
        finishes(&gateway, turn);
    }
    running.control.send(&Control::Stop).unwrap();
    assert!(running.exit().success());
}

#[test]
fn a_question_waits_for_an_egress_that_comes_late() {
    let running = Running::start();
    let gateway: Gateway = running.link(Peer::Gateway);
    start(&gateway);
    ask(&gateway, 1);
    std::thread::sleep(Duration::from_millis(100));
    let egress: Egress = running.link(Peer::Egress);
    answer(&egress);
    finishes(&gateway, 1);
}

#[test]
fn without_any_egress_the_turn_fails_in_bounded_time() {
    let running = Running::start();
    let gateway: Gateway = running.link(Peer::Gateway);
    start(&gateway);
    ask(&gateway, 1);
    assert_eq!(
        gateway.receive().unwrap(),
        AgentRequest::Failed {
            turn: TurnId(1),
            fault: TurnFault::ModelDown
        }
    );
}

#[test]
fn an_egress_that_dies_in_mid_turn_fails_it_and_a_new_one_serves_the_next() {
    let running = Running::start();
    let gateway: Gateway = running.link(Peer::Gateway);
    start(&gateway);
    let failed = |turn| AgentRequest::Failed {
        turn: TurnId(turn),
        fault: TurnFault::ModelDown,
    };

    let egress: Egress = running.link(Peer::Egress);
    ask(&gateway, 1);
    egress.receive().unwrap();
    drop(egress);
    assert_eq!(gateway.receive().unwrap(), failed(1));

    // Replaced before the old one was seen to close.
    let old: Egress = running.link(Peer::Egress);
    ask(&gateway, 2);
    let ModelRequest::Chat { id, .. } = old.receive().unwrap() else {
        panic!("no question")
    };
    let egress: Egress = running.link(Peer::Egress);
    assert_eq!(gateway.receive().unwrap(), failed(2));

    // The old one may be closed already; whether it takes this or not, nothing may come of it.
    let _ = old.send(&ModelReply::Status {
        id: id + 1,
        status: 500,
        retry_after: None,
    });
    ask(&gateway, 3);
    answer(&egress);
    finishes(&gateway, 3);
}

#[test]
fn cancel_reaches_egress_while_a_stream_runs() {
    let running = Running::start();
    let gateway: Gateway = running.link(Peer::Gateway);
    let egress: Egress = running.link(Peer::Egress);
    start(&gateway);
    ask(&gateway, 1);
    let ModelRequest::Chat { id, .. } = egress.receive().unwrap() else {
        panic!("no question")
    };
    egress
        .send(&ModelReply::Status {
            id,
            status: 200,
            retry_after: None,
        })
        .unwrap();
    gateway
        .send(&AgentCommand::Cancel { turn: TurnId(1) })
        .unwrap();
    assert_eq!(egress.receive().unwrap(), ModelRequest::Cancel { id });
    assert_eq!(
        gateway.receive().unwrap(),
        AgentRequest::Failed {
            turn: TurnId(1),
            fault: TurnFault::Cancelled
        }
    );
}

#[test]
fn the_program_ends_with_its_gateway_and_with_its_supervisor() {
    let mut running = Running::start();
    let gateway: Gateway = running.link(Peer::Gateway);
    start(&gateway);
    drop(gateway);
    assert!(running.exit().success());

    let mut running = Running::start();
    let (unused, _keep) = UnixStream::pair().unwrap();
    let control = std::mem::replace(&mut running.control, SupervisorEnd::new(unused));
    drop(control);
    assert!(running.exit().success());
}

#[test]
fn a_gateway_that_breaks_the_order_is_hung_up_on() {
    let mut running = Running::start();
    let gateway: Gateway = running.link(Peer::Gateway);
    ask(&gateway, 1);
    assert!(matches!(gateway.receive(), Err(LinkError::Closed)));
    assert_eq!(running.exit().code(), Some(1));
}

#[test]
fn a_link_to_a_program_that_agents_do_not_speak_with_is_refused() {
    let mut running = Running::start();
    let _vault: Link<u8, u8> = running.link(Peer::Vault);
    assert_eq!(running.exit().code(), Some(1));
}

#[test]
fn arguments_are_refused() {
    let status = Command::new(env!("CARGO_BIN_EXE_bulkhead-agent"))
        .arg("--help")
        .stdin(Stdio::null())
        .status();
    assert_eq!(status.unwrap().code(), Some(2));
}
