//! What the loop does about a freeze, and how one ends: the gateway records it first.

use std::thread;
use std::time::{Duration, Instant};

use protocol::control::{Control, Peer};
use protocol::freeze::By;
use protocol::supervisor::SupervisorReply;
use protocol::time::Millis;

use super::backoff::Backoff;
use super::freeze::{Fate, fate};
use super::requests::{HEARD, Requester, answer, refuse};
use super::run::{State, Supervisor};

/// How long the gateway may take to record the end of a freeze; less than `bulkhead` waits.
const RECORD_LIMIT: Duration = Duration::from_secs(10);

/// Somebody who waits for the end of the freeze.
pub(super) struct Resuming {
    since: Millis,
    to: Requester,
    until: Instant,
    /// How often the switch was thrown when this began.
    throws: u64,
}

impl Supervisor {
    /// Somebody whom the gateway knows wants everything frozen.
    pub(super) fn panic(&mut self, by: By) {
        let switch = self.switch.clone();
        // What came of it shows in the status; nobody waits here.
        let _ = switch.throw(by, "", || {
            self.frozen();
            thread::sleep(HEARD);
        });
        self.say_frozen();
    }

    /// Everything was frozen: what waited to be started stays where it is, and the gateway hears of it.
    pub(super) fn frozen(&mut self) {
        if self.switch.status().is_none() {
            return;
        }
        self.wanted_again.clear();
        for slot in &mut self.slots {
            let waits = matches!(slot.state, State::Waiting { .. });
            if waits && fate(&slot.plan.peer) == Fate::Dies {
                slot.state = State::Frozen;
            }
        }
        self.tell_frozen();
    }

    /// Says so in the log. After the kills: it may lie on a disk that stands still.
    pub(super) fn say_frozen(&self) {
        if let Some(status) = self.switch.status() {
            protocol::log!(
                "bulkhead-supervisor: everything is frozen by {}; `bulkhead resume` ends it",
                status.frozen.by
            );
        }
    }

    /// Tells the gateway of the freeze, if there are both.
    pub(super) fn tell_frozen(&self) {
        if let Some(status) = self.switch.status() {
            let frozen = status.frozen;
            // One that is not there is told when it starts.
            let _ = self.tell_gateway(&Control::Frozen { frozen });
        }
    }

    /// Whether the gateway is there to hear it.
    fn tell_gateway(&self, frame: &Control<serde_json::Value>) -> Heard {
        let gateway = self
            .index(&Peer::Gateway)
            .and_then(|index| self.slots[index].child());
        match gateway.map(|gateway| gateway.tell(frame)) {
            Some(Ok(())) => Heard::Yes,
            // One that is just dying is told when it is started again.
            Some(Err(_)) | None => Heard::No,
        }
    }

    /// The operator key signed the end of this freeze: has it recorded.
    pub(super) fn resume(&mut self, since: Millis, to: Requester) {
        if self.switch.status().map(|it| it.frozen.since) != Some(since) {
            return refuse(&to, "that freeze is over");
        }
        if self.resuming.is_some() {
            return refuse(&to, "somebody else is just ending the freeze");
        }
        let (key, throws) = (self.operator, self.switch.throws());
        let until = Millis::now().after(RECORD_LIMIT);
        match self.tell_gateway(&Control::Resume { since, key, until }) {
            Heard::No => refuse(&to, NO_GATEWAY),
            Heard::Yes => {
                let until = Instant::now() + RECORD_LIMIT;
                self.resuming = Some(Resuming {
                    since,
                    to,
                    until,
                    throws,
                });
            }
        }
    }

    /// The end of the freeze is in the record. If nobody waits for that any more, they were told
    /// that it is not over, and it is not.
    pub(super) fn resumed(&mut self, since: Millis) {
        let Some(waiting) = self.resuming.take_if(|it| it.since == since) else {
            return self.tell_frozen();
        };
        if let Err(error) = self.switch.release(waiting.throws) {
            self.tell_frozen();
            let reason = format!("everything stays frozen: {error}");
            protocol::log!("bulkhead-supervisor: {reason}");
            return refuse(&waiting.to, &reason);
        }
        for slot in &mut self.slots {
            if matches!(slot.state, State::Frozen) {
                slot.backoff = Backoff::default();
                slot.state = State::Waiting {
                    until: Instant::now(),
                    last: "everything was frozen".to_owned(),
                };
            }
        }
        protocol::log!("bulkhead-supervisor: the freeze was ended with the operator key");
        answer(&waiting.to, &SupervisorReply::Resumed);
    }

    /// The gateway could not record it.
    pub(super) fn not_resumed(&mut self, reason: String) {
        if let Some(waiting) = self.resuming.take() {
            let reason = format!("everything stays frozen: {reason}");
            refuse(&waiting.to, &reason);
        }
    }

    /// Waits no longer for a gateway that does not answer.
    pub(super) fn give_up_resuming(&mut self) {
        if let Some(late) = self.resuming.take_if(|it| it.until <= Instant::now()) {
            refuse(&late.to, NO_GATEWAY);
        }
    }
}

/// Whether a frame was taken.
#[must_use]
enum Heard {
    Yes,
    No,
}

const NO_GATEWAY: &str = "everything stays frozen: the gateway does not answer, and without it the end \
    would not be in the record. `bulkhead down` and `bulkhead up` start it anew, still frozen; then \
    `bulkhead resume` again";
