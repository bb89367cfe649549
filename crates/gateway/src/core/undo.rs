//! Undoing what was kept in the workspace: recorded before it happens, and its outcome after.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;

use config::OPERATOR;
use protocol::control::Peer;
use protocol::event::{Event as Fact, UndoOutcome};
use protocol::ids::{ChannelId, Digest, RowId};
use protocol::operator::OperatorReply;
use protocol::record::undo_session;
use protocol::workspace::{Diff, HistoryReply, HistoryRequest, Preview, UndoTo};

use super::inbound::owner;
use super::past;
use super::record::RecordLost;
use super::wire::LinkId;
use super::workspace::{NOT_THERE, Order, Question, Shown, Waiting, refuse};
use super::{Fatal, Gateway, changes, texts};

/// Whoever waits for a reply to their command.
type Asker = Sender<OperatorReply>;

impl Gateway {
    pub(super) fn show_history(&mut self, most: u32, answer: Asker) {
        let request = HistoryRequest::Entries { most };
        self.workspace.ask(Question::Entries, request, answer);
    }

    pub(super) fn preview_undo(&mut self, to: UndoTo, diff: Diff, answer: Asker) {
        let question = Question::Preview(to.clone());
        let request = HistoryRequest::Preview { to, diff };
        self.workspace.ask(question, request, answer);
    }

    /// Records what is wanted, and has it done. There is no other way to have something undone.
    pub(super) fn undo(&mut self, to: &UndoTo, digest: Digest, answer: Asker) -> Result<(), Fatal> {
        let shown = match self.workspace.can_undo(to, digest) {
            Ok(shown) => shown,
            Err(reason) => {
                refuse(&answer, reason);
                return Ok(());
            }
        };
        let order = Order {
            by: owner(),
            channel: ChannelId::parse(OPERATOR).expect("it has only letters"),
            shown,
        };
        let recorded = match self.record.record(&undo_session(), Vec::new(), order) {
            Ok(recorded) => recorded,
            Err(error) => {
                refuse(&answer, &format!("{error}. Nothing was undone"));
                // Whether the row is there is not known; that nothing was done is.
                let reason = "the record did not take it".to_owned();
                self.workspace.not_recorded(UndoOutcome::Refused { reason });
                return self.record_lost(&error);
            }
        };
        match self.workspace.undo(recorded, answer) {
            Ok(()) => Ok(()),
            Err((row, answer)) => {
                let reason = NOT_THERE.to_owned();
                self.end_undo(row, UndoOutcome::Refused { reason }, Some(answer))
            }
        }
    }

    /// Records what came of an undo, and tells whoever wanted it.
    fn end_undo(
        &mut self,
        asked: RowId,
        outcome: UndoOutcome,
        answer: Option<Asker>,
    ) -> Result<(), Fatal> {
        let result = self.write_undo_end(asked, outcome.clone());
        if let Some(answer) = answer {
            match &result {
                // Who asked may be gone; that is their business.
                Ok(()) => drop(answer.send(OperatorReply::Undone {
                    asked,
                    outcome: outcome.clone(),
                })),
                Err(_) => refuse(&answer, OUTCOME_NOT_RECORDED),
            }
        }
        result.or_else(|error| {
            self.workspace.not_recorded(outcome);
            self.record_lost(&error)
        })
    }

    fn write_undo_end(&mut self, asked: RowId, outcome: UndoOutcome) -> Result<(), RecordLost> {
        let ended = Fact::UndoEnded { asked, outcome };
        self.record.write_and_sign(&undo_session(), vec![ended])
    }

    /// Closes an undo that the record holds without an outcome, unless it is under way.
    pub(super) fn close_open_undo(&mut self) -> Result<(), RecordLost> {
        if self.workspace.is_undoing() {
            return Ok(());
        }
        let rows = self.record.read(&undo_session())?;
        if let Some(asked) = past::open_undo(&rows) {
            self.write_undo_end(asked, self.workspace.outcome_of_open())?;
        }
        self.workspace.closed();
        Ok(())
    }

    pub(super) fn workspace_reply(
        &mut self,
        link: LinkId,
        reply: HistoryReply,
    ) -> Result<(), Fatal> {
        let Some(waiting) = self.workspace.next(link) else {
            self.workspace.give_up(link, None);
            return Ok(());
        };
        match (&waiting.question, reply) {
            (Question::Entries, HistoryReply::Entries { entries }) => {
                tell(waiting, OperatorReply::History { entries });
            }
            (Question::Preview(to), HistoryReply::Preview { preview }) => {
                self.workspace.remember(Shown::new(to, &preview));
                let reply = self.previewed(preview);
                tell(waiting, reply);
            }
            (Question::Undo(row), HistoryReply::Undone { entry, changes }) => {
                let changes = changes::for_the_record(changes);
                let outcome = UndoOutcome::Done { entry, changes };
                return self.end_undo(*row, outcome, waiting.answer);
            }
            (Question::Undo(row), HistoryReply::Refused { reason, fix }) => {
                let reason = texts::shortened(&format!("{reason}. {fix}"), texts::CARD_BYTES);
                return self.end_undo(*row, UndoOutcome::Refused { reason }, waiting.answer);
            }
            (Question::Entries | Question::Preview(_), HistoryReply::Refused { reason, fix }) => {
                let reason = format!("{reason}. {fix}");
                tell(waiting, OperatorReply::Refused { reason });
            }
            (
                Question::Entries | Question::Preview(_) | Question::Undo(_),
                HistoryReply::Entries { .. }
                | HistoryReply::Preview { .. }
                | HistoryReply::Undone { .. },
            ) => {
                protocol::log!("bulkhead-gateway: the workspace's program answers something else");
                self.workspace.give_up(link, Some(waiting));
            }
        }
        Ok(())
    }

    fn previewed(&self, preview: Preview) -> OperatorReply {
        let running = self.runner.count();
        OperatorReply::UndoPreview { preview, running }
    }

    pub(super) fn workspace_gone(&mut self, link: LinkId) -> Result<(), Fatal> {
        match self.workspace.lost(link) {
            Some(waiting) => {
                self.unlinked.push(Peer::Workspace);
                self.no_replies(waiting)
            }
            None => Ok(()),
        }
    }

    /// These get no reply: their link is gone.
    pub(super) fn no_replies(&mut self, waiting: VecDeque<Waiting>) -> Result<(), Fatal> {
        for waiting in waiting {
            match waiting.question {
                Question::Undo(row) => {
                    self.end_undo(row, UndoOutcome::Unknown, waiting.answer)?;
                }
                Question::Entries | Question::Preview(_) => {
                    let reason = NOT_THERE.to_owned();
                    tell(waiting, OperatorReply::Refused { reason });
                }
            }
        }
        Ok(())
    }
}

fn tell(waiting: Waiting, reply: OperatorReply) {
    if let Some(answer) = waiting.answer {
        // Who asked may be gone; that is their business.
        let _ = answer.send(reply);
    }
}

/// When an undo is over and the record is lost.
const OUTCOME_NOT_RECORDED: &str = "it was asked for and may be done, but its outcome cannot be \
    recorded at the moment; see `bulkhead status`, then `bulkhead audit log --session undo`";

#[cfg(test)]
pub(super) mod tests;
