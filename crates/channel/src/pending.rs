//! Messages that the gateway was sent and has not accepted: they are sent again over a new
//! link, and after a wait when the gateway says "later". The gateway drops doubles by their id.
//!
//! Pure: the clock is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use protocol::channel::{ChannelRequest, Retry};
use protocol::ids::MessageId;

/// The most messages that wait; with [`protocol::channel::MAX_TEXT`] this bounds their memory to 4 MiB.
pub const MAX_PENDING: usize = 64;

/// The wait after the first "later"; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// As many messages wait as may.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{MAX_PENDING} messages wait for the gateway already")]
pub struct TooMany;

/// The messages that wait, oldest first.
#[derive(Debug, Default)]
pub struct Pending {
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    message: MessageId,
    request: ChannelRequest,
    state: State,
    refusals: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// To be sent at this time.
    Due(Instant),
    /// Sent over the link that is up; its answer is awaited.
    Sent,
}

impl Pending {
    /// Keeps an inbound message until it is answered; it is due at once. One with the same id is
    /// kept once, and requests of other kinds are not kept.
    pub fn insert(&mut self, request: ChannelRequest, now: Instant) -> Result<(), TooMany> {
        let ChannelRequest::Inbound { message, .. } = &request else {
            return Ok(());
        };
        if self
            .waiting
            .iter()
            .any(|waiting| waiting.message == *message)
        {
            return Ok(());
        }
        if self.waiting.len() >= MAX_PENDING {
            return Err(TooMany);
        }
        let message = message.clone();
        self.waiting.push_back(Waiting {
            message,
            request,
            state: State::Due(now),
            refusals: 0,
        });
        Ok(())
    }

    /// The gateway has this message; it is kept no longer.
    pub fn accepted(&mut self, message: &MessageId) {
        self.waiting.retain(|waiting| waiting.message != *message);
    }

    /// The gateway has not taken this message.
    pub fn not_accepted(&mut self, message: &MessageId, retry: Retry, now: Instant) {
        match retry {
            Retry::Never => self.accepted(message),
            Retry::Later => {
                for waiting in self
                    .waiting
                    .iter_mut()
                    .filter(|waiting| waiting.message == *message)
                {
                    waiting.state = State::Due(now + wait_after(waiting.refusals));
                    waiting.refusals = waiting.refusals.saturating_add(1);
                }
            }
        }
    }

    /// The link is a new one: whatever was under way on the old one is due now.
    pub fn link_replaced(&mut self, now: Instant) {
        for waiting in &mut self.waiting {
            waiting.state = State::Due(now);
        }
    }

    /// The messages to send now, oldest first; from here on they count as sent.
    pub fn take_due(&mut self, now: Instant) -> Vec<ChannelRequest> {
        let due = self
            .waiting
            .iter_mut()
            .filter(|waiting| matches!(waiting.state, State::Due(at) if at <= now));
        due.map(|waiting| {
            waiting.state = State::Sent;
            waiting.request.clone()
        })
        .collect()
    }

    /// When the next message is due; `None` while all are sent.
    pub fn next_due(&self) -> Option<Instant> {
        let due = self
            .waiting
            .iter()
            .filter_map(|waiting| match waiting.state {
                State::Due(at) => Some(at),
                State::Sent => None,
            });
        due.min()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn wait_after(refusals: u32) -> Duration {
    FIRST_WAIT
        .saturating_mul(2_u32.saturating_pow(refusals))
        .min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use protocol::ids::{ConversationId, SenderId};

    use super::*;

    fn inbound(id: &str) -> ChannelRequest {
        ChannelRequest::Inbound {
            message: MessageId::parse(id).unwrap(),
            sender: SenderId::parse("s").unwrap(),
            sender_name: "S".to_owned(),
            conversation: ConversationId::parse("c").unwrap(),
            text: "hello".to_owned(),
        }
    }

    fn id(text: &str) -> MessageId {
        MessageId::parse(text).unwrap()
    }

    #[test]
    fn a_message_is_sent_once_until_the_link_is_replaced() {
        let now = Instant::now();
        let mut pending = Pending::default();
        pending.insert(inbound("1"), now).unwrap();
        pending.insert(inbound("1"), now).unwrap();
        pending.insert(inbound("2"), now).unwrap();
        assert_eq!(pending.take_due(now), [inbound("1"), inbound("2")]);
        assert_eq!(pending.take_due(now), []);
        pending.accepted(&id("1"));
        pending.link_replaced(now);
        assert_eq!(pending.take_due(now), [inbound("2")]);
    }

    #[test]
    fn later_waits_longer_each_time_and_never_forgets() {
        let now = Instant::now();
        let mut pending = Pending::default();
        pending.insert(inbound("1"), now).unwrap();
        let mut last = Duration::ZERO;
        for _ in 0..10 {
            let at = pending.next_due().unwrap();
            pending.take_due(at);
            assert_eq!(pending.next_due(), None);
            pending.not_accepted(&id("1"), Retry::Later, at);
            let wait = pending.next_due().unwrap() - at;
            assert!(
                wait >= last && wait <= LONGEST_WAIT,
                "{wait:?} after {last:?}"
            );
            last = wait;
        }
        assert_eq!(last, LONGEST_WAIT);
        pending.not_accepted(&id("1"), Retry::Never, now);
        assert!(pending.is_empty());
    }

    #[test]
    fn the_number_of_waiting_messages_is_bounded() {
        let now = Instant::now();
        let mut pending = Pending::default();
        for n in 0..MAX_PENDING {
            pending.insert(inbound(&n.to_string()), now).unwrap();
        }
        assert_eq!(pending.insert(inbound("one-more"), now), Err(TooMany));
        assert_eq!(pending.len(), MAX_PENDING);
    }
}
