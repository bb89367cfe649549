//! Rows of the record in words.

use protocol::call::Verdict;
use protocol::event::{Answer, CallOutcome, Event, Ground, Signer, TurnEnd, UndoOutcome};
use protocol::ids::{CallId, TurnId};
use protocol::runner::{Changes, Fate, RunEnd};
use protocol::workspace::Origin;

/// The longest piece of somebody's text in a line, in characters.
const PIECE: usize = 100;

/// What an event belongs to, within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// To the session as a whole.
    Session,
    /// To a turn.
    Turn(TurnId),
    /// To a tool call.
    Call(TurnId, CallId),
}

/// What the event belongs to.
pub(crate) fn place(event: &Event) -> Place {
    match event {
        Event::TurnStarted { turn, .. }
        | Event::ModelRequest { turn, .. }
        | Event::ModelResponse { turn, .. }
        | Event::ContextTrimmed { turn, .. }
        | Event::Reply { turn, .. }
        | Event::TurnFailed { turn, .. } => Place::Turn(*turn),
        Event::ToolIntent { turn, call, .. }
        | Event::Decision { turn, call, .. }
        | Event::ApprovalAsked { turn, call, .. }
        | Event::ApprovalAnswered { turn, call, .. }
        | Event::Permit { turn, call, .. }
        | Event::EgressRequest { turn, call, .. }
        | Event::EgressResponse { turn, call, .. }
        | Event::Outcome { turn, call, .. }
        | Event::BoxTunnelOpened { turn, call, .. }
        | Event::BoxTunnelClosed { turn, call, .. }
        | Event::BoxRequest { turn, call, .. }
        | Event::BoxResponse { turn, call, .. } => Place::Call(*turn, *call),
        Event::Inbound { .. }
        | Event::Labelled { .. }
        | Event::RulesInForce { .. }
        | Event::StrangerSeen { .. }
        | Event::Paired { .. }
        | Event::Unpaired { .. }
        | Event::GrantMade { .. }
        | Event::GrantRevoked { .. }
        | Event::LoggedIn { .. }
        | Event::PasskeyEnrolled { .. }
        | Event::PasskeyRemoved { .. }
        | Event::ChannelUp { .. }
        | Event::ChannelDown { .. }
        | Event::TunnelOpened { .. }
        | Event::LeakStopped { .. }
        | Event::EgressRefused { .. }
        | Event::SecretUsed { .. }
        | Event::VaultChanged { .. }
        | Event::HoneytokenTouched { .. }
        | Event::UndoAsked { .. }
        | Event::UndoEnded { .. }
        | Event::Panicked { .. }
        | Event::Resumed { .. } => Place::Session,
    }
}

/// Its kind, as the record writes it.
pub(crate) fn kind(event: &Event) -> String {
    let kind = |value: serde_json::Value| Some(value.get("kind")?.as_str()?.to_owned());
    serde_json::to_value(event)
        .ok()
        .and_then(kind)
        .unwrap_or_default()
}

/// What happened, in a line.
pub(crate) fn summary(event: &Event) -> String {
    match event {
        Event::Inbound {
            channel,
            principal,
            text,
            ..
        } => format!("{principal} on {channel}: {}", piece(text)),
        Event::TurnStarted { .. } => "an agent was given the message".to_owned(),
        Event::ModelRequest {
            model,
            bytes,
            sha256,
            ..
        } => format!(
            "{bytes} bytes to {model}, sha256 {}",
            short(&sha256.to_string())
        ),
        Event::ModelResponse {
            status,
            bytes,
            duration_ms,
            tokens,
            fault,
            ..
        } => {
            let tokens = tokens.map_or(String::new(), |tokens| {
                format!(", {} tokens in and {} out", tokens.prompt, tokens.answer)
            });
            let fault = fault
                .as_ref()
                .map_or(String::new(), |fault| format!("; {fault}"));
            format!("status {status}, {bytes} bytes in {duration_ms} ms{tokens}{fault}")
        }
        Event::ContextTrimmed { results, items, .. } => {
            format!("{results} results shortened, {items} entries left out")
        }
        Event::ToolIntent { name, args, .. } => format!("{} {}", piece(name), piece(args)),
        Event::Decision {
            verdict,
            rule,
            reason,
            ..
        } => format!("{} by {rule}: {}", verdict_word(*verdict), piece(reason)),
        Event::ApprovalAsked { approval, .. } => format!("approval {approval}"),
        Event::ApprovalAnswered {
            approval,
            answer,
            by,
            channel,
            after_ms,
            signed,
            ..
        } => {
            let by = by.as_ref().map_or(String::new(), |by| format!(" by {by}"));
            let over = channel
                .as_ref()
                .map_or(String::new(), |it| format!(" on {it}"));
            let seconds = after_ms / 1000;
            let signed = match signed {
                None => "",
                Some(Signer::Operator) => ", signed with the operator key",
                Some(Signer::Passkey { .. }) => ", signed with a passkey",
            };
            format!(
                "approval {approval}: {}{by}{over} after {seconds} s{signed}",
                answer_word(*answer)
            )
        }
        Event::Permit { ground, action, .. } => {
            let ground = match ground {
                Ground::Policy => "allowed by the rules".to_owned(),
                Ground::Grant => "approved before".to_owned(),
                Ground::Approval { approval } => format!("approval {approval}"),
            };
            let action = serde_json::to_string(action).unwrap_or_default();
            format!("{ground}: {}", piece(&action))
        }
        Event::Outcome { outcome, .. } => outcome_words(outcome),
        Event::Reply { text, .. } => piece(text),
        Event::TurnFailed { fault, .. } => match fault {
            TurnEnd::Fault { fault } => serde_json::to_string(fault).unwrap_or_default(),
            TurnEnd::Interrupted => "Bulkhead ended while it ran".to_owned(),
            TurnEnd::AgentDied => "the agent's program died".to_owned(),
            TurnEnd::Frozen => "everything was frozen".to_owned(),
            TurnEnd::AgentMisbehaved { detail } => {
                format!("the agent broke the protocol: {}", piece(detail))
            }
        },
        Event::Labelled { label, why } => format!("{}: {}", label.name(), piece(why)),
        Event::RulesInForce { sha256 } => format!("rules {sha256}"),
        Event::StrangerSeen { channel, sender } => format!("{sender} on {channel}"),
        Event::Paired {
            channel,
            sender,
            principal,
        } => format!("{sender} on {channel} is {principal}"),
        Event::Unpaired { channel, sender } => format!("{sender} on {channel}"),
        Event::GrantMade { principal, key, .. } | Event::GrantRevoked { principal, key } => {
            format!("{principal}: {}", piece(key))
        }
        Event::LoggedIn { channel, principal } => format!("{principal} on {channel}"),
        Event::PasskeyEnrolled {
            principal,
            credential,
            ..
        }
        | Event::PasskeyRemoved {
            principal,
            credential,
        } => format!("{credential} of {principal}"),
        Event::ChannelUp { channel } | Event::ChannelDown { channel } => channel.to_string(),
        Event::TunnelOpened {
            channel,
            host,
            port,
        } => format!("{channel} to {host}:{port}"),
        Event::EgressRequest {
            subject,
            method,
            host,
            port,
            path,
            bytes,
            rule,
            secret,
            ..
        } => {
            let rule = rule
                .as_ref()
                .map_or("no rule, a person said yes".to_owned(), |rule| {
                    format!("rule {rule}")
                });
            let secret = secret.as_ref().map_or(String::new(), |secret| {
                format!(", with the secret {secret}")
            });
            format!(
                "{subject}: {method} {host}:{port}{}, {bytes} bytes, {rule}{secret}",
                piece(path)
            )
        }
        Event::EgressResponse {
            status,
            bytes_down,
            duration_ms,
            fault,
            ..
        } => {
            let fault = fault
                .as_ref()
                .map_or(String::new(), |fault| format!("; {}", piece(fault)));
            format!("status {status}, {bytes_down} bytes in {duration_ms} ms{fault}")
        }
        Event::LeakStopped { place, what, name } => {
            let name = name
                .as_ref()
                .map_or(String::new(), |name| format!(" {name}"));
            format!("{what}{name} in {place}")
        }
        Event::BoxTunnelOpened {
            tunnel,
            host,
            port,
            rule,
            ..
        } => format!("tunnel {tunnel} to {host}:{port} by rule {rule}"),
        Event::BoxTunnelClosed {
            tunnel,
            bytes_up,
            bytes_down,
            end,
            ..
        } => format!(
            "tunnel {tunnel}: {bytes_up} bytes up, {bytes_down} down; {}",
            piece(end)
        ),
        Event::BoxRequest {
            tunnel,
            request,
            method,
            url,
            rule,
            ..
        } => format!("{tunnel}.{request}: {method} {} by rule {rule}", piece(url)),
        Event::BoxResponse {
            tunnel,
            request,
            status,
            bytes_up,
            bytes_down,
            fault,
            ..
        } => {
            let fault = fault
                .as_deref()
                .map_or(String::new(), |it| format!("; {it}"));
            format!(
                "{tunnel}.{request}: {status}, {bytes_up} bytes up, {bytes_down} down{}",
                piece(&fault)
            )
        }
        Event::EgressRefused {
            subject,
            target,
            reason,
        } => format!("{subject} to {target}: {}", piece(reason)),
        Event::SecretUsed { name, subject } => format!("{name} by {subject}"),
        Event::VaultChanged {
            generation,
            change,
            name,
            ..
        } => match name {
            Some(name) => format!("{name} {change}, change {generation}"),
            None => format!("{change}, change {generation}"),
        },
        Event::HoneytokenTouched { name, subject } => {
            format!("{subject} asked for the decoy {name}")
        }
        Event::UndoAsked {
            by,
            channel,
            oldest,
            origin,
            newest,
            changes,
            ..
        } => format!(
            "{by} on {channel}: back before entry {oldest} ({}), {} undone, {changes} changes",
            self::origin(origin),
            match oldest == newest {
                true => "that one".to_owned(),
                false => format!("all up to entry {newest}"),
            }
        ),
        Event::UndoEnded { asked, outcome } => match outcome {
            UndoOutcome::Done { entry, changes } => format!(
                "undo of row {asked}: done as entry {entry}, {} changed",
                told(changes)
            ),
            UndoOutcome::Refused { reason } => {
                format!("undo of row {asked}: not done: {}", piece(reason))
            }
            UndoOutcome::Unknown => format!("undo of row {asked}: outcome unknown"),
        },
        Event::Panicked { since, by, reason } => {
            let why = match reason.is_empty() {
                true => String::new(),
                false => format!(": {}", piece(reason)),
            };
            format!("frozen since {} by {by}{why}", since.rfc3339())
        }
        Event::Resumed { since, key } => format!(
            "the freeze of {} was ended with the operator key {}",
            since.rfc3339(),
            short(&key.to_string())
        ),
    }
}

/// What made an entry of the history.
pub(crate) fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Call { call } => format!("call {call}"),
        Origin::Run => "a run of its own".to_owned(),
        Origin::Undo { entry } => format!("undo of entry {entry}"),
    }
}

/// Some of the names, and how many more there are.
fn told(changes: &Changes) -> String {
    const MOST: usize = 3;
    let names: Vec<String> = changes
        .list
        .iter()
        .take(MOST)
        .map(|change| piece(&change.path))
        .collect();
    let names = names.join(", ");
    match changes.list.len().saturating_sub(MOST) as u64 + changes.more {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

fn outcome_words(outcome: &CallOutcome) -> String {
    match outcome {
        CallOutcome::Ran { run } => {
            let end = match run.end {
                RunEnd::Exited { code } => format!("exit code {code}"),
                RunEnd::Signalled { signal } => format!("ended by signal {signal}"),
                RunEnd::TimedOut => "killed when its time was up".to_owned(),
                RunEnd::Killed => "killed, since it was stopped".to_owned(),
            };
            let fate = match &run.changes.fate {
                Fate::Unchanged => String::new(),
                Fate::Kept { entry } => {
                    format!("; entry {entry}: {} changed", told(&run.changes))
                }
                Fate::Discarded => "; what it changed was thrown away".to_owned(),
                Fate::Conflict { .. } => {
                    "; what it changed was not kept: somebody else changed the same".to_owned()
                }
                Fate::ReadOnly { .. } => {
                    "; what it changed was not kept: it is read-only".to_owned()
                }
                Fate::Failed { reason, .. } => {
                    format!("; what it changed was not kept: {}", piece(reason))
                }
            };
            format!("{end} after {} ms{fate}", run.duration_ms)
        }
        CallOutcome::Fetched { answer } => format!(
            "status {}, {} bytes after {} ms",
            answer.status, answer.bytes_down, answer.ms
        ),
        CallOutcome::NotFetched { fault } => format!("no answer: {}", piece(&fault.to_string())),
        CallOutcome::NotRun { reason } => format!("did not run: {}", piece(reason)),
        CallOutcome::Unknown => "outcome unknown".to_owned(),
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::AskOnce => "ask once",
        Verdict::AskAlways => "ask always",
        Verdict::Deny => "deny",
    }
}

fn answer_word(answer: Answer) -> &'static str {
    match answer {
        Answer::Approve => "yes",
        Answer::Deny => "no",
        Answer::Expired => "no answer in time",
        Answer::Cancelled => "no longer needed",
    }
}

fn piece(text: &str) -> String {
    match text.char_indices().nth(PIECE) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use protocol::ids::{ChannelId, ConversationId, MessageId, PrincipalId, RowId, SenderId};

    use super::*;

    #[test]
    fn an_event_is_told_in_a_line_with_its_kind_and_place() {
        let event = Event::Inbound {
            channel: ChannelId::parse("web").unwrap(),
            message: MessageId::parse("1").unwrap(),
            sender: SenderId::parse("b").unwrap(),
            principal: PrincipalId::parse("owner").unwrap(),
            conversation: ConversationId::parse("c").unwrap(),
            text: "é".repeat(200),
        };
        assert_eq!(kind(&event), "inbound");
        assert_eq!(place(&event), Place::Session);
        assert_eq!(
            summary(&event),
            format!("owner on web: {}...", "é".repeat(100))
        );
        let event = Event::Outcome {
            turn: TurnId(2),
            call: CallId(3),
            outcome: CallOutcome::Unknown,
        };
        assert_eq!(place(&event), Place::Call(TurnId(2), CallId(3)));
        assert_eq!(summary(&event), "outcome unknown");
        let event = Event::UndoEnded {
            asked: RowId(4),
            outcome: UndoOutcome::Refused {
                reason: "full".to_owned(),
            },
        };
        assert_eq!(kind(&event), "undo_ended");
        assert_eq!(summary(&event), "undo of row 4: not done: full");
    }
}
