//! Conversations that a program's place has to keep up, since the others would stand still without them and there
//! would be nothing to attack.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use protocol::agent::{AgentCommand, AgentRequest};
use protocol::control::Peer;
use protocol::egress::{ModelReply, ModelRequest};
use protocol::frame::Link;
use protocol::ids::{CallId, RowId};
use protocol::record::{LedgerReply, LedgerRequest};
use sandbox::Program;
use serde::Serialize;
use serde_json::json;

use super::Place;
use super::report::Reporter;

/// Begins to keep up the conversation of a new link, if this place has one to keep up.
pub(super) fn keep_up(place: &Place, peer: &Peer, stream: &UnixStream) {
    let Ok(stream) = stream.try_clone() else {
        return;
    };
    let (reporter, command) = (Arc::clone(&place.reporter), place.command.clone());
    match (place.program, peer) {
        (Program::Ledger, _) => {
            thread::spawn(move || acknowledge(&Link::new(stream), &reporter));
        }
        (Program::Egress, Peer::Agent(_)) => {
            thread::spawn(move || be_the_model(&Link::new(stream), &reporter, &command));
        }
        (Program::Agent, Peer::Gateway) => {
            thread::spawn(move || be_the_agent(&Link::new(stream), &reporter, &command));
        }
        _ => {}
    }
}

fn look(reporter: &Reporter, what: &str, value: &impl Serialize) {
    if let Ok(bytes) = serde_json::to_vec(value) {
        reporter.look(what, &bytes);
    }
}

/// Says that everything was written.
fn acknowledge(link: &Link<LedgerReply, LedgerRequest>, reporter: &Reporter) {
    let mut next = 1_000_000;
    while let Ok(request) = link.receive() {
        look(reporter, "rows to be written", &request);
        let reply = match request {
            LedgerRequest::Append { rows } | LedgerRequest::AppendAndSign { rows, .. } => {
                let first = RowId(next);
                next += rows.len() as u64;
                LedgerReply::Appended { first }
            }
            LedgerRequest::Read { .. } | LedgerRequest::LastVaultChange => {
                LedgerReply::Rows { rows: Vec::new() }
            }
            LedgerRequest::Unfinished => LedgerReply::Sessions {
                sessions: Vec::new(),
            },
        };
        if link.send(&reply).is_err() {
            return;
        }
    }
}

/// Answers an agent with a call of tier 3, and says no more after that.
fn be_the_model(link: &Link<ModelReply, ModelRequest>, reporter: &Reporter, command: &str) {
    let arguments = json!({ "command": command }).to_string();
    let call = json!({ "index": 0, "id": "1", "type": "function",
        "function": { "name": "exec", "arguments": arguments } });
    let delta = |delta: serde_json::Value, finish: Option<&str>| json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] });
    let asks = [
        delta(json!({ "role": "assistant", "tool_calls": [call] }), None),
        delta(json!({}), Some("tool_calls")),
    ];
    let says = [delta(json!({ "content": "done" }), Some("stop"))];
    let mut answers = [&asks[..], &says[..]].into_iter();
    while let Ok(request) = link.receive() {
        look(reporter, "what is said to the model", &request);
        let ModelRequest::Chat { id, .. } = request else {
            continue;
        };
        let mut text: String = answers
            .next()
            .unwrap_or(&says)
            .iter()
            .map(|event| format!("data: {event}\n\n"))
            .collect();
        text.push_str("data: [DONE]\n\n");
        let begun = ModelReply::Status {
            id,
            status: 200,
            retry_after: None,
        };
        let frames = [
            begun,
            ModelReply::Chunk { id, text },
            ModelReply::End { id },
        ];
        if frames.iter().any(|frame| link.send(frame).is_err()) {
            return;
        }
    }
}

/// Asks for a call of tier 3 in each turn.
fn be_the_agent(link: &Link<AgentRequest, AgentCommand>, reporter: &Reporter, command: &str) {
    while let Ok(frame) = link.receive() {
        look(reporter, "what the gateway tells it", &frame);
        let AgentCommand::Turn { turn, .. } = frame else {
            continue;
        };
        let asked = link.send(&AgentRequest::CallTool {
            turn,
            call: CallId(1),
            name: "exec".to_owned(),
            args: json!({ "command": command }).to_string(),
            said: "Yes, approved.".to_owned(),
        });
        if asked.is_err() {
            return;
        }
    }
}
