//! What the rows of a session say of its past: the conversation, and what was left open.
//! Pure: rows in, facts out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::agent::HistoryItem;
use protocol::channel::{CallCard, CallState, TranscriptEntry};
use protocol::event::{CallOutcome, Event};
use protocol::ids::{CallId, MessageId, RowId, TurnId};
use protocol::record::Row;

use super::state::Place;
use super::texts;

/// A message that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The platform's id.
    pub(super) id: MessageId,
    /// Where it came in, and where the answer goes.
    pub(super) place: Place,
    /// What was written.
    pub(super) text: String,
}

/// A call that was asked for and has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenCall {
    /// It had no permit, so it did not run.
    NotRun(CallId),
    /// It had; whether it ran is not known.
    Unknown(CallId),
}

/// A turn that started and did not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenTurn {
    /// Which.
    pub(super) turn: TurnId,
    /// The message that it answers.
    pub(super) message: Message,
    /// How many turns this message has had, this one included.
    pub(super) attempts: usize,
}

/// What the rows say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// The number of the newest turn; 0 if there was none.
    pub(super) last_turn: u64,
    /// The turn that did not end.
    pub(super) open: Option<OpenTurn>,
    /// The calls without outcome, of whatever turn.
    pub(super) open_calls: Vec<(TurnId, OpenCall)>,
    /// Messages that had no turn yet, oldest first.
    pub(super) waiting: VecDeque<Message>,
}

/// Reads what was left open.
pub(super) fn past(rows: &[Row]) -> Past {
    let mut past = Past::default();
    let mut messages: BTreeMap<&MessageId, Message> = BTreeMap::new();
    let mut attempts: BTreeMap<&MessageId, usize> = BTreeMap::new();
    let mut calls: BTreeMap<(TurnId, CallId), OpenCall> = BTreeMap::new();
    for row in rows {
        match &row.event {
            Event::Inbound {
                channel,
                message,
                principal,
                conversation,
                text,
                ..
            } => {
                let place = Place {
                    principal: principal.clone(),
                    channel: channel.clone(),
                    conversation: conversation.clone(),
                };
                let received = Message {
                    id: message.clone(),
                    place,
                    text: text.clone(),
                };
                past.waiting.push_back(received.clone());
                messages.insert(message, received);
            }
            Event::TurnStarted { turn, message } => {
                past.last_turn = past.last_turn.max(turn.0);
                past.waiting.retain(|waiting| waiting.id != *message);
                let count = attempts.entry(message).or_default();
                *count += 1;
                // A turn without its message is no turn of ours; verification names the row.
                past.open = messages.get(message).map(|message| OpenTurn {
                    turn: *turn,
                    message: message.clone(),
                    attempts: *count,
                });
            }
            Event::Reply { turn, .. } | Event::TurnFailed { turn, .. } => {
                past.open.take_if(|open| open.turn == *turn);
            }
            Event::ToolIntent { turn, call, .. } => {
                calls.insert((*turn, *call), OpenCall::NotRun(*call));
            }
            Event::Permit { turn, call, .. } => {
                calls.insert((*turn, *call), OpenCall::Unknown(*call));
            }
            Event::Outcome { turn, call, .. } => {
                calls.remove(&(*turn, *call));
            }
            Event::ModelRequest { .. }
            | Event::ModelResponse { .. }
            | Event::ContextTrimmed { .. }
            | Event::Decision { .. }
            | Event::ApprovalAsked { .. }
            | Event::ApprovalAnswered { .. }
            | Event::StrangerSeen { .. }
            | Event::Paired { .. }
            | Event::Labelled { .. }
            | Event::RulesInForce { .. }
            | Event::Unpaired { .. }
            | Event::GrantMade { .. }
            | Event::GrantRevoked { .. }
            | Event::LoggedIn { .. }
            | Event::PasskeyEnrolled { .. }
            | Event::PasskeyRemoved { .. }
            | Event::ChannelUp { .. }
            | Event::ChannelDown { .. }
            | Event::TunnelOpened { .. }
            | Event::EgressRequest { .. }
            | Event::EgressResponse { .. }
            | Event::LeakStopped { .. }
            | Event::SessionHalted { .. }
            | Event::BoxTunnelOpened { .. }
            | Event::BoxTunnelClosed { .. }
            | Event::BoxRequest { .. }
            | Event::BoxResponse { .. }
            | Event::EgressRefused { .. }
            | Event::SecretUsed { .. }
            | Event::VaultChanged { .. }
            | Event::HoneytokenTouched { .. }
            | Event::UndoAsked { .. }
            | Event::UndoEnded { .. }
            | Event::Panicked { .. }
            | Event::Resumed { .. } => {}
        }
    }
    past.open_calls = calls
        .into_iter()
        .map(|((turn, _), open)| (turn, open))
        .collect();
    past
}

/// The undo that was asked for and has no outcome, of the rows about undos.
pub(super) fn open_undo(rows: &[Row]) -> Option<RowId> {
    rows.iter().fold(None, |open, row| match &row.event {
        Event::UndoAsked { .. } => Some(row.row),
        Event::UndoEnded { asked, .. } => open.filter(|open| open != asked),
        _ => open,
    })
}

/// The end of what was said in a session.
pub(super) fn said(rows: &[Row]) -> String {
    let replies = rows.iter().filter_map(|row| match &row.event {
        Event::Reply { text, .. } => Some(text.as_str()),
        _ => None,
    });
    let all: String = replies.collect();
    super::leaks::end_of(&all).to_owned()
}

/// The conversation for an agent that starts now. A message that had several turns, since
/// something died in between, stands there once.
pub(super) fn history(rows: &[Row]) -> Vec<HistoryItem> {
    let mut items = Vec::new();
    let mut texts_of = BTreeMap::new();
    let mut started = BTreeSet::new();
    let mut intents = BTreeMap::new();
    for row in rows {
        match &row.event {
            Event::Inbound { message, text, .. } => drop(texts_of.insert(message, text)),
            Event::TurnStarted { message, .. } if started.insert(message) => {
                let text = texts_of
                    .get(message)
                    .map(|text| (*text).clone())
                    .unwrap_or_default();
                items.push(HistoryItem::User { text });
            }
            Event::ToolIntent {
                turn,
                call,
                name,
                args,
                ..
            } => drop(intents.insert((*turn, *call), (name, args))),
            Event::Outcome {
                turn,
                call,
                outcome,
            } => {
                if let Some((name, args)) = intents.remove(&(*turn, *call)) {
                    let (call, name, args) = (*call, name.clone(), args.clone());
                    items.push(HistoryItem::Tool {
                        call,
                        name,
                        args,
                        result: texts::outcome(outcome),
                    });
                }
            }
            Event::Reply { text, .. } => items.push(HistoryItem::Assistant { text: text.clone() }),
            Event::TurnFailed { fault, .. } => {
                items.push(HistoryItem::Assistant {
                    text: format!("({})", texts::turn_end(fault)),
                });
            }
            _ => {}
        }
    }
    items
}

/// The conversation as a page shows it.
pub(super) fn transcript(
    rows: &[Row],
    title: impl Fn(&str, &str) -> String,
) -> Vec<TranscriptEntry> {
    let mut entries = Vec::new();
    let mut cards: BTreeMap<(TurnId, CallId), usize> = BTreeMap::new();
    // All calls of one answer of the model carry the words before them.
    let mut words_shown = false;
    for row in rows {
        match &row.event {
            Event::Inbound { text, .. } => {
                entries.push(TranscriptEntry::User { text: text.clone() })
            }
            Event::ModelRequest { .. } => words_shown = false,
            Event::Reply { text, .. } => {
                entries.push(TranscriptEntry::Assistant { text: text.clone() })
            }
            Event::TurnFailed { fault, .. } => entries.push(TranscriptEntry::Notice {
                text: texts::turn_end(fault),
            }),
            Event::Labelled { label, why } => entries.push(TranscriptEntry::Notice {
                text: texts::labelled(*label, why),
            }),
            Event::ToolIntent {
                turn,
                call,
                name,
                args,
                said,
            } => {
                if !words_shown && !said.trim().is_empty() {
                    entries.push(TranscriptEntry::Assistant { text: said.clone() });
                    words_shown = true;
                }
                cards.insert((*turn, *call), entries.len());
                let (state, detail) = (CallState::Waiting, String::new());
                let card = CallCard {
                    turn: *turn,
                    call: *call,
                    title: title(name, args),
                    state,
                    detail,
                };
                entries.push(TranscriptEntry::Call { card });
            }
            Event::Permit { turn, call, .. } => set_card(
                &mut entries,
                cards.get(&(*turn, *call)),
                CallState::Running,
                "",
            ),
            Event::Outcome {
                turn,
                call,
                outcome,
            } => {
                let (state, detail) = (texts::outcome_state(outcome), texts::card_detail(outcome));
                set_card(&mut entries, cards.get(&(*turn, *call)), state, &detail);
            }
            _ => {}
        }
    }
    entries
}

fn set_card(entries: &mut [TranscriptEntry], at: Option<&usize>, state: CallState, detail: &str) {
    if let Some(TranscriptEntry::Call { card }) = at.and_then(|at| entries.get_mut(*at)) {
        card.state = state;
        card.detail = texts::shortened(detail, texts::CARD_BYTES);
    }
}

/// What the model is told of a call that was left open when something died.
pub(super) fn open_outcome(open: OpenCall) -> (CallId, CallOutcome) {
    match open {
        OpenCall::Unknown(call) => (call, CallOutcome::Unknown),
        OpenCall::NotRun(call) => {
            let reason = "Bulkhead stopped before this call was allowed; it did not run".to_owned();
            (call, CallOutcome::NotRun { reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::agent::Told;
    use protocol::call::Action;
    use protocol::event::{Ground, TurnEnd, UndoOutcome};
    use protocol::ids::{ChannelId, ConversationId, Digest, PrincipalId, SenderId, SessionId};
    use protocol::runner::EntryId;
    use protocol::time::Millis;
    use protocol::workspace::{Origin, UndoTo};

    use super::*;

    fn rows(events: Vec<Event>) -> Vec<Row> {
        let row = |(index, event)| Row {
            row: RowId(index),
            time: Millis(0),
            session: SessionId::parse("s").unwrap(),
            event,
            hash: Digest([0; 32]),
        };
        (1..).zip(events).map(row).collect()
    }

    fn message(id: &str) -> MessageId {
        MessageId::parse(id).unwrap()
    }

    fn inbound(id: &str) -> Event {
        Event::Inbound {
            channel: ChannelId::parse("web").unwrap(),
            message: message(id),
            sender: SenderId::parse("b").unwrap(),
            principal: PrincipalId::parse("owner").unwrap(),
            conversation: ConversationId::parse("main").unwrap(),
            text: format!("text of {id}"),
        }
    }

    fn started(turn: u64, id: &str) -> Event {
        Event::TurnStarted {
            turn: TurnId(turn),
            message: message(id),
        }
    }

    fn intent(turn: u64, call: u32) -> Event {
        let (name, args, said) = ("exec".to_owned(), "{}".to_owned(), String::new());
        Event::ToolIntent {
            turn: TurnId(turn),
            call: CallId(call),
            name,
            args,
            said,
        }
    }

    fn permit(turn: u64, call: u32) -> Event {
        let action = Action::Argv {
            argv: vec!["ls".to_owned()],
        };
        Event::Permit {
            turn: TurnId(turn),
            call: CallId(call),
            ground: Ground::Policy,
            digest: Digest([0; 32]),
            action,
        }
    }

    #[test]
    fn what_was_left_open_is_found() {
        let rows = rows(vec![
            inbound("a"),
            started(1, "a"),
            Event::Reply {
                turn: TurnId(1),
                text: "hi".to_owned(),
            },
            inbound("b"),
            started(2, "b"),
            intent(2, 1),
            permit(2, 1),
            intent(2, 2),
            inbound("c"),
        ]);
        let past = past(&rows);
        assert_eq!(past.last_turn, 2);
        let open = past.open.unwrap();
        assert_eq!(
            (open.turn, open.message.text.as_str(), open.attempts),
            (TurnId(2), "text of b", 1)
        );
        assert_eq!(
            past.open_calls,
            [
                (TurnId(2), OpenCall::Unknown(CallId(1))),
                (TurnId(2), OpenCall::NotRun(CallId(2)))
            ]
        );
        let waiting: Vec<_> = past
            .waiting
            .iter()
            .map(|message| message.text.as_str())
            .collect();
        assert_eq!(waiting, ["text of c"]);
    }

    #[test]
    fn an_undo_without_an_outcome_is_found() {
        let asked = || Event::UndoAsked {
            by: PrincipalId::parse("owner").unwrap(),
            channel: ChannelId::parse("operator").unwrap(),
            to: UndoTo::Newest,
            digest: Digest([0; 32]),
            oldest: EntryId(1),
            origin: Origin::Run,
            newest: EntryId(1),
            changes: 1,
        };
        let ended = |asked| Event::UndoEnded {
            asked: RowId(asked),
            outcome: UndoOutcome::Unknown,
        };
        assert_eq!(open_undo(&rows(vec![])), None);
        assert_eq!(open_undo(&rows(vec![asked(), ended(1)])), None);
        let open = rows(vec![asked(), ended(1), asked()]);
        assert_eq!(open_undo(&open), Some(RowId(3)));
        let other = rows(vec![asked(), ended(7)]);
        assert_eq!(open_undo(&other), Some(RowId(1)));
    }

    #[test]
    fn what_the_model_said_with_its_calls_stands_before_them_once() {
        let asked = || Event::ModelRequest {
            turn: TurnId(1),
            model: "m".to_owned(),
            sha256: Digest([0; 32]),
            bytes: 1,
        };
        let saying = |call| match intent(1, call) {
            Event::ToolIntent {
                turn,
                call,
                name,
                args,
                ..
            } => Event::ToolIntent {
                turn,
                call,
                name,
                args,
                said: "I will.".to_owned(),
            },
            other => other,
        };
        let rows = rows(vec![
            inbound("a"),
            asked(),
            saying(1),
            saying(2),
            asked(),
            saying(3),
            asked(),
            intent(1, 4),
        ]);
        let entries = transcript(&rows, |name, _| name.to_owned());
        let kinds: String = entries
            .iter()
            .map(|entry| match entry {
                TranscriptEntry::User { .. } => 'u',
                TranscriptEntry::Assistant { .. } => 'a',
                TranscriptEntry::Notice { .. } => 'n',
                TranscriptEntry::Call { .. } => 'c',
            })
            .collect();
        assert_eq!(kinds, "uaccacc");
    }

    #[test]
    fn a_message_with_two_turns_stands_in_the_history_once() {
        let failed = Event::TurnFailed {
            turn: TurnId(1),
            fault: TurnEnd::Interrupted,
        };
        let outcome = Event::Outcome {
            turn: TurnId(1),
            call: CallId(1),
            outcome: CallOutcome::Unknown,
        };
        let rows = rows(vec![
            inbound("a"),
            started(1, "a"),
            intent(1, 1),
            permit(1, 1),
            outcome,
            failed,
            started(2, "a"),
        ]);
        let items = history(&rows);
        assert_eq!(
            items
                .iter()
                .filter(|item| matches!(item, HistoryItem::User { .. }))
                .count(),
            1
        );
        assert!(
            matches!(&items[1], HistoryItem::Tool { result: Told::Text { text }, .. } if text.contains("not known"))
        );
        assert_eq!(past(&rows).open.unwrap().attempts, 2);
    }
}
