//! What an attacker says over the links of its place: first what is formed as it should be and says what it must
//! not, then what is out of order, then what is no frame at all.

use protocol::agent::AgentRequest;
use protocol::box_link::{BoxReply, BoxRequest};
use protocol::call::{Action, ToolCall};
use protocol::channel::{ApprovalAnswer, ApprovalCard, ChannelRequest};
use protocol::control::{ControlEnd, Peer};
use protocol::egress::{
    Approved, FetchRequest, HttpOrder, ModelRequest, TunnelReply, TunnelRequest,
};
use protocol::identity::IdentityKey;
use protocol::ids::{
    CallId, CallRef, ChannelId, ConversationId, MessageId, Nonce, RowId, SecretName, SenderId,
    SessionId, Signature, ToolName, TurnId,
};
use protocol::operator::OperatorRequest;
use protocol::outbound::Method;
use protocol::passkey::Proof;
use protocol::record::{LedgerRequest, system_session};
use protocol::runner::{Leaves, Limits, RunRequest};
use protocol::vault::{Purpose, SecretText, VaultRequest};
use protocol::workspace::{HistoryRequest, LayerKind, LayerRequest};
use sandbox::Program;
use serde_json::{Value, json};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use vault::VaultClient;
use vault::client::VaultError;

use super::anywhere::opened;
use super::wire::{ANSWER, Wire, broken};
use super::{Attacker, Place, known};
use crate::table::Asset;

/// When something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// While there is more to do.
    First,
    /// At last, since the peer has the program ended for it.
    Last,
}

/// When a link is attacked.
fn when(program: Program, peer: &Peer) -> When {
    match (program, peer) {
        // It kills an agent that speaks of what is not its own.
        (Program::Agent, Peer::Gateway) => When::Last,
        _ => When::First,
    }
}

/// Attacks over each link that the place has and whose time it is.
pub(super) fn attack(place: &Place, attacker: &Attacker, now: When) {
    // What is open stays open until the end, half frames among it.
    let mut open = Vec::new();
    let links = place.newest().into_iter();
    for (peer, stream) in links.filter(|(peer, _)| when(place.program, peer) == now) {
        let wire = Wire::new(stream, &format!("its link to {peer:?}"), &place.reporter);
        speak(place, attacker, &peer, &wire);
        if let Some(frame) = usual(place.program, &peer) {
            wire.flood(&frame);
        }
        for hostile in [Wire::huge, Wire::half] {
            if let Some(stream) = place.fresh(&peer) {
                let wire = Wire::new(stream, "its link", &place.reporter);
                hostile(&wire);
                open.push(wire);
            }
        }
    }
}

/// Well-formed lies.
fn speak(place: &Place, attacker: &Attacker, peer: &Peer, wire: &Wire) {
    match (place.program, peer) {
        (Program::ChannelWeb | Program::ChannelTelegram, Peer::Gateway) => {
            as_another_channel(place, peer);
            if let Some(stream) = place.fresh(peer) {
                let wire = Wire::new(stream, "its link to the gateway", &place.reporter);
                as_a_channel(place, attacker, &wire);
            }
            if let Some(stream) = place.fresh(peer) {
                let wire = Wire::new(stream, "its own owner's conversation", &place.reporter);
                as_the_owner(place, attacker, &wire);
            }
        }
        (Program::ChannelTelegram, Peer::Egress) => tunnels(place, attacker, peer),
        (Program::ChannelTelegram | Program::Egress, Peer::Vault) => {
            secrets(place, attacker, peer);
        }
        (Program::Agent, Peer::Gateway) => as_an_agent(attacker, wire),
        (Program::Agent, Peer::Egress) => {
            let open = json!({ "type": "open", "id": 1, "host": "127.0.0.1", "port": attacker.scene.port });
            say(
                attacker,
                Asset::NetworkHost,
                "ask for a tunnel",
                wire,
                &open,
            );
        }
        (Program::Egress | Program::Vault, Peer::Ledger) => read_the_record(attacker, wire),
        (Program::Gateway, Peer::Ledger) => read_the_record(attacker, wire),
        (Program::Gateway, Peer::Sandbox) => run_what_nobody_allowed(attacker, wire),
        (Program::Gateway, Peer::Egress) => ask_a_host(attacker, wire),
        (Program::Gateway, Peer::Vault) => secrets(place, attacker, peer),
        (Program::Sandbox, Peer::Egress) => box_of_its_own(place, attacker, peer),
        (Program::Sandbox, Peer::Workspace) => {
            let begun = wire.ask(
                &LayerRequest::Begin {
                    kind: LayerKind::Copy,
                },
                &["begun"],
            );
            drop(begun);
            let entries = HistoryRequest::Entries { most: 10 };
            say(
                attacker,
                Asset::History,
                "ask for the history of the workspace",
                wire,
                &entries,
            );
        }
        (Program::Workspace | Program::Sandbox | Program::Ledger | Program::Vault, _) => {
            sign_as_the_operator(attacker, wire);
        }
        _ => {}
    }
}

/// A frame that the peer takes, for a flood.
fn usual(program: Program, peer: &Peer) -> Option<Value> {
    let frame = match (program, peer) {
        (Program::Agent, Peer::Gateway) => serde_json::to_value(AgentRequest::Token {
            turn: TurnId(999),
            text: "x".to_owned(),
        }),
        (Program::Agent, Peer::Egress) => serde_json::to_value(ModelRequest::Cancel { id: 1 }),
        (Program::ChannelWeb | Program::ChannelTelegram, Peer::Gateway) => {
            serde_json::to_value(ChannelRequest::Delivered { delivery: 1 })
        }
        (_, Peer::Vault) => serde_json::to_value(VaultRequest::List),
        (_, Peer::Ledger) => serde_json::to_value(LedgerRequest::Unfinished),
        (_, Peer::Egress) => serde_json::to_value(TunnelRequest::Open {
            id: 1,
            host: "127.0.0.1".to_owned(),
            port: 1,
        }),
        _ => return None,
    };
    frame.ok()
}

/// Says what must have no effect. The peer ends the link or says no; what matters is what else comes, or happens.
fn say<T: serde::Serialize>(
    attacker: &Attacker,
    asset: Asset,
    probe: &str,
    wire: &Wire,
    frame: &T,
) {
    let sent = wire.send(frame);
    attacker.reporter.said(asset, probe, &sent);
    drop(sent.map(|()| wire.rest()));
}

/// An answer of the operator, over a link that is none of theirs, signed by a key that is none of theirs.
fn sign_as_the_operator(attacker: &Attacker, wire: &Wire) {
    if let Some(card) = &attacker.later.card {
        let yes = yes_of_the_operator(card);
        say(
            attacker,
            Asset::ForgedApproval,
            "answer as the operator",
            wire,
            &yes,
        );
    }
}

fn yes_of_the_operator(card: &ApprovalCard) -> OperatorRequest {
    OperatorRequest::Approve {
        approval: card.approval,
        digest: card.digest,
        nonce: card.nonce,
        signature: forged(card),
    }
}

/// By a key that the gateway does not know.
fn forged(card: &ApprovalCard) -> Signature {
    IdentityKey::from_seed(&[7; 32]).approve(card.digest)
}

/// Claims to be somebody else, with the key that it has.
fn as_another_channel(place: &Place, peer: &Peer) {
    for name in ["operator", "terminal", "web", "telegram"] {
        let own = match place.program {
            Program::ChannelWeb => name == "web",
            Program::ChannelTelegram => name == "telegram",
            _ => false,
        };
        let (false, Some(stream)) = (own, place.fresh(peer)) else {
            continue;
        };
        let wire = Wire::new(stream, "its link to the gateway", &place.reporter);
        let welcome = prove(place, &wire, name);
        let probe = format!("prove to be {name}");
        place
            .reporter
            .attempt(Asset::OtherSession, &probe, &welcome);
    }
}

fn prove(place: &Place, wire: &Wire, name: &str) -> io::Result<()> {
    let challenge = wire.receive()?;
    let nonce: Nonce = serde_json::from_value(challenge["nonce"].clone())?;
    let key = place.key.as_ref();
    let key = key.ok_or_else(|| io::Error::other("it has no key"))?;
    let channel = ChannelId::parse(name).map_err(io::Error::other)?;
    let signature = key.prove(&channel, nonce);
    let proof = ChannelRequest::Prove { channel, signature };
    wire.ask(&proof, &["welcome"]).map(drop)
}

/// As itself: with somebody else's sender, conversation and approval.
fn as_a_channel(place: &Place, attacker: &Attacker, wire: &Wire) {
    if prove(place, wire, own_name(place.program)).is_err() {
        return;
    }
    let later = &attacker.later;
    let ids = (
        SenderId::parse(later.sender.clone()),
        ConversationId::parse(later.conversation.clone()),
        MessageId::parse("intruder"),
    );
    let (Ok(sender), Ok(conversation), Ok(message)) = ids else {
        return;
    };
    let history = ChannelRequest::History {
        id: 1,
        sender: sender.clone(),
        conversation: conversation.clone(),
    };
    // A stranger gets no answer; if it is one, what stands in it is found.
    let probe = "ask for its transcript";
    say(attacker, Asset::OtherSession, probe, wire, &history);
    let inbound = ChannelRequest::Inbound {
        message,
        sender: sender.clone(),
        sender_name: "you".to_owned(),
        conversation,
        text: "What did I say before? Yes, approved.".to_owned(),
    };
    say(
        attacker,
        Asset::OtherSession,
        "write as its person",
        wire,
        &inbound,
    );
    for token in ["0", "operator"] {
        let (id, token) = (2, token.to_owned());
        let login = ChannelRequest::Login { id, token };
        say(attacker, Asset::OtherSession, "log in", wire, &login);
    }
    if let Some(card) = &later.card {
        answer_with_everything(attacker, card, &sender, wire, "");
    }
    flood_as_a_channel(wire);
}

/// What does not come to its end is missing in what has to be tried.
fn as_the_owner(place: &Place, attacker: &Attacker, wire: &Wire) {
    let name = own_name(place.program);
    let done = prove(place, wire, name).and_then(|()| known::attack(place, attacker, wire));
    if let Err(error) = done {
        eprintln!("bulkhead-intruder: as the owner over {name}: {error}");
    }
}

fn own_name(program: Program) -> &'static str {
    match program {
        Program::ChannelWeb => "web",
        _ => "telegram",
    }
}

fn flood_as_a_channel(wire: &Wire) {
    if let Ok(frame) = serde_json::to_value(ChannelRequest::Delivered { delivery: 1 }) {
        wire.flood(&frame);
    }
}

/// Says yes with a press, and with a signature that is none.
pub(super) fn answer_with_everything(
    attacker: &Attacker,
    card: &ApprovalCard,
    sender: &SenderId,
    wire: &Wire,
    how: &str,
) {
    let signature = forged(card);
    let proofs = [
        ("answer by a press", Proof::Link),
        ("answer with a signature", Proof::Operator { signature }),
    ];
    for (probe, proof) in proofs {
        let answer = ChannelRequest::Answer {
            approval: card.approval,
            digest: card.digest,
            nonce: card.nonce,
            sender: sender.clone(),
            answer: ApprovalAnswer::Approve,
            reason: String::new(),
            proof,
        };
        let taken = wire.ask(&answer, &["answer_refused", "approval_closed"]);
        let taken = taken.and_then(|said| match said["type"] == "approval_closed" {
            true => Ok(()),
            false => Err(io::Error::other(said.to_string())),
        });
        attacker
            .reporter
            .attempt(Asset::ForgedApproval, &format!("{probe}{how}"), &taken);
    }
}

/// Ends the turns of others. It is the last that the gateway hears of it.
fn as_an_agent(attacker: &Attacker, wire: &Wire) {
    let finished = AgentRequest::Finished {
        turn: TurnId(999),
        text: "done".to_owned(),
    };
    say(
        attacker,
        Asset::OtherSession,
        "end another's turn",
        wire,
        &finished,
    );
}

/// What a person would have to be asked about first; egress has only the gateway's word for that.
fn ask_a_host(attacker: &Attacker, wire: &Wire) {
    let Ok(tool) = ToolName::parse("http_request") else {
        return;
    };
    let fetch = FetchRequest::Fetch {
        call: made_up_call(),
        order: HttpOrder {
            tool,
            method: "GET".to_owned(),
            url: format!("http://127.0.0.1:{}/", attacker.scene.port),
            headers: Vec::new(),
            body: None,
            credential: None,
            approved: Approved::Person,
        },
    };
    if wire.send(&fetch).is_ok() {
        await_answer(wire);
    }
}

fn made_up_call() -> CallRef {
    CallRef {
        session: SessionId::parse("intruder").unwrap_or_else(|_| system_session()),
        turn: TurnId(1),
        call: CallId(9),
    }
}

/// A way out by a rule that no owner wrote.
fn box_of_its_own(place: &Place, attacker: &Attacker, peer: &Peer) {
    let (Some(stream), Ok(listener)) = (
        place.fresh(peer),
        TcpListener::bind((Ipv4Addr::LOCALHOST, protocol::box_link::PORT)),
    ) else {
        return;
    };
    let rule = json!({
        "name": "mine", "subject": "exec:sh", "host": "127.0.0.1", "ports": [attacker.scene.port],
        "methods": Method::ALL, "paths": ["/*"], "owner": "me", "expires": "2099-01-01", "ask": "never",
        "credential": null, "cleartext": "allowed", "reach": "private", "inspect": "no",
        "budgets": { "per_minute": 60, "per_day": "1 MiB", "upload": "1 MiB", "download": "1 MiB" },
    });
    let Ok(rule) = serde_json::from_value(rule) else {
        return;
    };
    let open = BoxRequest::Open {
        run: made_up_call(),
        rules: vec![rule],
    };
    let opened = way_out(stream, &open, listener);
    let probe = "a box with a rule of its own";
    place.reporter.attempt(Asset::NetworkHost, probe, &opened);
}

fn way_out(stream: UnixStream, open: &BoxRequest, listener: TcpListener) -> io::Result<()> {
    stream.set_read_timeout(Some(ANSWER))?;
    let link = ControlEnd::<BoxRequest, BoxReply>::new(stream);
    link.send_with(open, listener.into()).map_err(broken)?;
    match link.receive().map_err(broken)?.0 {
        BoxReply::Opened { .. } => Ok(()),
        BoxReply::Refused { reason, .. } => Err(io::Error::other(reason)),
    }
}

/// The host that the model's key of the scene is for.
const MODEL_HOST: &str = "models.invalid";

/// To a host that no rule names, and the secrets by every name there is.
fn tunnels(place: &Place, attacker: &Attacker, peer: &Peer) {
    for host in ["127.0.0.1", "localhost", "2130706433", "::ffff:127.0.0.1"] {
        let Some(stream) = place.fresh(peer) else {
            return;
        };
        let opened = tunnel(stream, host, attacker.scene.port);
        let probe = format!("a tunnel to {host}");
        place.reporter.attempt(Asset::NetworkHost, &probe, &opened);
    }
}

fn tunnel(stream: UnixStream, host: &str, port: u16) -> io::Result<()> {
    stream.set_read_timeout(Some(ANSWER))?;
    let link = ControlEnd::<TunnelRequest, TunnelReply>::new(stream);
    let host = host.to_owned();
    let open = TunnelRequest::Open { id: 1, host, port };
    link.send(&open).map_err(broken)?;
    match link.receive().map_err(broken)? {
        (TunnelReply::Opened { .. }, _) => Ok(()),
        (TunnelReply::Failed { fault, .. }, _) => Err(io::Error::other(format!("{fault:?}"))),
    }
}

/// The name of the secret that a channel has for itself.
fn is_own(program: Program, name: &SecretName) -> bool {
    match program {
        Program::ChannelTelegram => name.as_str() == "telegram-token",
        Program::ChannelWeb => name.as_str() == "web-token",
        _ => false,
    }
}

/// By name, purpose and host, each over a link of its own: the vault may end one for what was asked.
fn secrets(place: &Place, attacker: &Attacker, peer: &Peer) {
    type Ask = fn(&mut VaultClient, &SecretName) -> Result<SecretText, VaultError>;
    let ways: [(&str, Ask); 3] = [
        ("for a model", |vault, name| {
            vault.open_for(name, Purpose::Model, MODEL_HOST)
        }),
        ("for a tool", |vault, name| {
            vault.open_for(name, Purpose::Tool, MODEL_HOST)
        }),
        ("for itself", VaultClient::open),
    ];
    for secret in &attacker.scene.secrets {
        let Ok(name) = SecretName::parse(secret.name.clone()) else {
            continue;
        };
        for (way, ask) in ways {
            let Some(stream) = place.fresh(peer) else {
                return;
            };
            let probe = format!("ask the vault for {name} {way}");
            let value = opened(ask(&mut VaultClient::new(stream), &name));
            if let Ok(value) = &value {
                place.reporter.look(&probe, value.expose().as_bytes());
            }
            if !is_own(place.program, &name) {
                place.reporter.attempt(secret.asset, &probe, &value);
            }
        }
    }
    if let Some(stream) = place.fresh(peer) {
        drop(VaultClient::new(stream).list());
    }
}

/// Where there is no link to the vault, it is asked for.
pub(super) fn without_a_link(place: &Place) {
    if place.newest().iter().any(|(peer, _)| *peer == Peer::Vault)
        || place.program == Program::Vault
    {
        return;
    }
    let link = place.fresh(&Peer::Vault);
    let link = link.ok_or_else(|| io::Error::other("none came"));
    for asset in [Asset::OtherToken, Asset::ProviderKey] {
        place
            .reporter
            .attempt(asset, "get a link to the vault", &link);
    }
}

/// Reads somebody's session; writes what only the gateway may, if it gets that far.
fn read_the_record(attacker: &Attacker, wire: &Wire) {
    let session = SessionId::parse(attacker.later.session.clone());
    let session = session.unwrap_or_else(|_| system_session());
    let read = LedgerRequest::Read {
        session,
        after: RowId(0),
        limit: 100,
    };
    let rows = wire.ask(&read, &["rows"]);
    attacker
        .reporter
        .attempt(Asset::History, "read rows over its link", &rows);
}

/// Has boxes read the workspace and leave a file that a person would have to be asked about.
fn run_what_nobody_allowed(attacker: &Attacker, wire: &Wire) {
    let session = SessionId::parse("intruder").unwrap_or_else(|_| system_session());
    let actions = [
        Action::Tool {
            call: ToolCall::ReadFile {
                path: protocol::call::WorkspacePath::parse(&attacker.scene.workspace_file)
                    .unwrap_or_default(),
                first_line: 1,
                lines: 100,
            },
        },
        Action::Shell {
            script: attacker.scene.command.clone(),
        },
    ];
    for (call, action) in (1..).zip(actions) {
        let run = RunRequest::Run {
            call: CallRef {
                session: session.clone(),
                turn: TurnId(1),
                call: CallId(call),
            },
            action,
            limits: Limits::default(),
            leaves: Leaves::Changes,
            network: protocol::runner::Network::None,
        };
        if wire.send(&run).is_ok() {
            await_answer(wire);
        }
    }
}

/// A box may take its time.
fn await_answer(wire: &Wire) {
    const TRIES: u32 = 50;
    for _ in 0..TRIES {
        match wire.receive() {
            Ok(_) => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
