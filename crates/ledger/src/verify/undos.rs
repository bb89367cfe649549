//! Whether every undo was recorded before it was made, and ended once before the next one.

use protocol::event::{Event, UndoOutcome};
use protocol::ids::{RowId, SessionId};
use protocol::record::undo_session;

/// The undos of a record. There is one workspace, so there is one at a time.
#[derive(Default)]
pub(super) struct Undos {
    open: Option<RowId>,
    unknown: u64,
}

impl Undos {
    /// What is wrong with this row after those before it.
    pub(super) fn check(
        &mut self,
        row: RowId,
        session: &SessionId,
        event: &Event,
    ) -> Option<String> {
        let wrong = match event {
            Event::UndoAsked { .. } => self
                .open
                .replace(row)
                .map(|open| format!("an undo was begun before that of row {open} had an outcome")),
            Event::UndoEnded { asked, outcome } => self.end(*asked, outcome),
            _ => return None,
        };
        if *session != undo_session() {
            return Some(format!("an undo is recorded in the chain of {session}"));
        }
        wrong
    }

    fn end(&mut self, asked: RowId, outcome: &UndoOutcome) -> Option<String> {
        if self.open.take_if(|open| *open == asked).is_none() {
            return Some(format!("row {asked} asked for no undo that was still open"));
        }
        match outcome {
            UndoOutcome::Done { .. } | UndoOutcome::Refused { .. } => {}
            UndoOutcome::Unknown => self.unknown += 1,
        }
        None
    }

    /// How many undos there are whose outcome nobody knows.
    pub(super) fn unknown(&self) -> u64 {
        self.unknown + u64::from(self.open.is_some())
    }
}
