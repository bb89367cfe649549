//! Where "typing" is to be shown. Telegram shows it for five seconds at most. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use protocol::ids::{ConversationId, TurnId};

/// How often it is sent.
const EVERY: Duration = Duration::from_millis(4500);

/// Longer turns are not shown as typing any more.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// The conversations with a turn that runs.
#[derive(Debug, Default)]
pub(super) struct Typing(HashMap<ConversationId, Running>);

#[derive(Debug)]
struct Running {
    turn: TurnId,
    since: Instant,
    /// `None` while a person is asked.
    next: Option<Instant>,
}

impl Typing {
    /// A turn began.
    pub(super) fn begin(&mut self, conversation: ConversationId, turn: TurnId) {
        let now = Instant::now();
        self.0.insert(
            conversation,
            Running {
                turn,
                since: now,
                next: Some(now),
            },
        );
    }

    /// This turn is over; another one of the conversation may have begun.
    pub(super) fn end(&mut self, conversation: &ConversationId, turn: TurnId) {
        if self
            .0
            .get(conversation)
            .is_some_and(|running| running.turn == turn)
        {
            self.0.remove(conversation);
        }
    }

    /// It is the person's turn to do something.
    pub(super) fn pause(&mut self, conversation: &ConversationId) {
        if let Some(running) = self.0.get_mut(conversation) {
            running.next = None;
        }
    }

    /// The turn goes on.
    pub(super) fn resume(&mut self, conversation: &ConversationId) {
        if let Some(running) = self.0.get_mut(conversation) {
            running.next = Some(Instant::now());
        }
    }

    /// Nothing runs any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Where it is to be sent now; from here on it counts as sent.
    pub(super) fn due(&mut self, now: Instant) -> Vec<ConversationId> {
        self.0
            .retain(|_, running| now.saturating_duration_since(running.since) < LONGEST);
        let due = self
            .0
            .iter_mut()
            .filter(|(_, running)| running.next.is_some_and(|next| next <= now));
        due.map(|(conversation, running)| {
            running.next = Some(now + EVERY);
            conversation.clone()
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_while_the_turn_runs_and_nobody_is_asked() {
        let chat = [ConversationId::parse("7").unwrap()];
        let mut typing = Typing::default();
        typing.begin(chat[0].clone(), TurnId(2));
        let now = Instant::now();
        assert_eq!(typing.due(now), chat);
        assert_eq!(typing.due(now), []);
        assert_eq!(typing.due(now + EVERY), chat);
        typing.pause(&chat[0]);
        assert_eq!(typing.due(now + EVERY * 3), []);
        typing.resume(&chat[0]);
        assert_eq!(typing.due(now + EVERY * 3), chat);
        typing.end(&chat[0], TurnId(1));
        assert_eq!(typing.due(now + EVERY * 5).len(), 1, "an older turn ended");
        typing.end(&chat[0], TurnId(2));
        assert_eq!(typing.due(now + EVERY * 9), []);
    }
}
