//! Whether every end of a freeze names the freeze that it ends, and each is recorded once.

use protocol::event::Event;
use protocol::ids::SessionId;
use protocol::record::freeze_session;
use protocol::time::Millis;

/// The freezes of a record. One whose mark could not be kept ends without a row.
#[derive(Default)]
pub(super) struct Freezes {
    open: Option<Millis>,
}

impl Freezes {
    /// What is wrong with this row after those before it.
    pub(super) fn check(&mut self, session: &SessionId, event: &Event) -> Option<String> {
        let wrong = match event {
            Event::Panicked { since, .. } => (self.open.replace(*since) == Some(*since))
                .then(|| "this freeze was recorded before".to_owned()),
            Event::Resumed { since, .. } => self
                .open
                .take_if(|open| *open == *since)
                .is_none()
                .then(|| "this is the end of a freeze that was not there".to_owned()),
            _ => return None,
        };
        if *session != freeze_session() {
            return Some(format!("a freeze is recorded in the chain of {session}"));
        }
        wrong
    }
}
