//! The link to the program that keeps the workspace: what was asked over it and waits for a
//! reply, and what may be undone. It takes an undo only from the record.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use ledger::client::Recorded;
use protocol::event::{Event as Fact, UndoOutcome};
use protocol::frame::LinkError;
use protocol::ids::{ChannelId, Digest, PrincipalId, RowId};
use protocol::operator::OperatorReply;
use protocol::record::{NewRow, Recordable, undo_session};
use protocol::runner::EntryId;
use protocol::workspace::{HistoryRequest, Origin, Preview, UndoTo};

use super::outlet::Outlet;
use super::wire::{LinkId, WorkspaceLink};

/// How long whoever asked is let wait. `bulkhead` itself waits longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// The most requests that wait for a reply.
const MAX_WAITING: usize = 16;

/// How many previews can still be undone, newest first.
const MAX_SHOWN: usize = 16;

/// What a preview showed, as it goes into the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    to: UndoTo,
    digest: Digest,
    oldest: EntryId,
    origin: Origin,
    newest: EntryId,
    changes: u64,
}

impl Shown {
    /// None if there is nothing to undo.
    pub(super) fn new(to: &UndoTo, preview: &Preview) -> Option<Self> {
        let (newest, oldest) = (preview.entries.first()?, preview.entries.last()?);
        Some(Self {
            to: to.clone(),
            digest: preview.digest,
            oldest: oldest.entry,
            origin: oldest.origin.clone(),
            newest: newest.entry,
            changes: preview.changes.len() as u64 + preview.more,
        })
    }
}

/// An undo that somebody wants, exactly as they were shown it.
#[derive(Debug)]
pub(super) struct Order {
    /// Who.
    pub(super) by: PrincipalId,
    /// Over which channel.
    pub(super) channel: ChannelId,
    /// What.
    pub(super) shown: Shown,
}

impl Recordable for Order {
    fn row(&self) -> NewRow {
        let shown = self.shown.clone();
        NewRow {
            session: undo_session(),
            event: Fact::UndoAsked {
                by: self.by.clone(),
                channel: self.channel.clone(),
                to: shown.to,
                digest: shown.digest,
                oldest: shown.oldest,
                origin: shown.origin,
                newest: shown.newest,
                changes: shown.changes,
            },
        }
    }
}

/// What a reply is to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// What can be undone.
    Entries,
    /// What undoing would change.
    Preview(UndoTo),
    /// The undo that this row asked for.
    Undo(RowId),
}

/// Something that was asked, and who waits for the answer: nobody, if it took too long.
pub(super) struct Waiting {
    /// What.
    pub(super) question: Question,
    /// Who.
    pub(super) answer: Option<Sender<OperatorReply>>,
    until: Instant,
}

/// Whether something that was asked for in the record may have no outcome there.
#[derive(Debug, Default, PartialEq, Eq)]
enum Past {
    /// It has to be looked at first; with what came of it, if that is known.
    #[default]
    NotLookedAt,
    Known(UndoOutcome),
    /// All of it has.
    Closed,
}

/// The link, while there is one.
#[derive(Default)]
pub(super) struct Workspace {
    link: Option<(LinkId, Outlet<HistoryRequest>)>,
    waiting: VecDeque<Waiting>,
    shown: VecDeque<Shown>,
    past: Past,
}

impl Workspace {
    /// A link came. What was asked over an earlier one gets no reply; that.
    pub(super) fn linked(
        &mut self,
        id: LinkId,
        link: WorkspaceLink,
    ) -> Result<VecDeque<Waiting>, LinkError> {
        self.link = Some((id, Outlet::new(link)?));
        Ok(std::mem::take(&mut self.waiting))
    }

    /// The link is gone, and with it the replies to these. None if a newer link is in use.
    pub(super) fn lost(&mut self, link: LinkId) -> Option<VecDeque<Waiting>> {
        self.link.take_if(|(live, _)| *live == link)?;
        Some(std::mem::take(&mut self.waiting))
    }

    /// Asks what changes nothing. If it cannot, it answers itself.
    pub(super) fn ask(
        &mut self,
        question: Question,
        request: HistoryRequest,
        answer: Sender<OperatorReply>,
    ) {
        if let Err(reason) = self.is_free().and_then(|()| self.send(request)) {
            return refuse(&answer, reason);
        }
        self.wait(question, answer);
    }

    /// Why nothing can be asked at the moment.
    fn is_free(&self) -> Result<(), &'static str> {
        match (&self.link, self.waiting.len()) {
            (None, _) => Err(NOT_THERE),
            (Some(_), 0..MAX_WAITING) => Ok(()),
            (Some(_), MAX_WAITING..) => Err(BUSY),
        }
    }

    /// What was shown under this digest and can be undone at the moment.
    pub(super) fn can_undo(&self, to: &UndoTo, digest: Digest) -> Result<Shown, &'static str> {
        self.is_free()?;
        if self.past != Past::Closed {
            return Err(super::texts::NO_RECORD);
        }
        if self.is_undoing() {
            return Err("another undo is under way; see `bulkhead audit log --session undo`");
        }
        let same = |shown: &&Shown| shown.to == *to && shown.digest == digest;
        let shown = self.shown.iter().find(same).cloned();
        shown.ok_or("that is not what was shown last; look at it again, then undo it")
    }

    /// Has this undone. The error is the row of one that was not sent, since the program is gone.
    pub(super) fn undo(
        &mut self,
        order: Recorded<Order>,
        answer: Sender<OperatorReply>,
    ) -> Result<(), (RowId, Sender<OperatorReply>)> {
        let row = order.row();
        let Shown { to, digest, .. } = order.into_inner().shown;
        self.shown.retain(|shown| shown.digest != digest);
        match self.send(HistoryRequest::Undo { to, digest }) {
            Ok(()) => {
                self.wait(Question::Undo(row), answer);
                Ok(())
            }
            Err(_) => Err((row, answer)),
        }
    }

    fn send(&self, request: HistoryRequest) -> Result<(), &'static str> {
        let (_, outlet) = self.link.as_ref().ok_or(NOT_THERE)?;
        outlet.send(request).map_err(|_| NOT_THERE)
    }

    fn wait(&mut self, question: Question, answer: Sender<OperatorReply>) {
        self.waiting.push_back(Waiting {
            question,
            answer: Some(answer),
            until: Instant::now() + ANSWER_LIMIT,
        });
    }

    /// Whether a reply to an undo is still to come.
    pub(super) fn is_undoing(&self) -> bool {
        let undo = |waiting: &Waiting| matches!(waiting.question, Question::Undo(_));
        self.waiting.iter().any(undo)
    }

    /// What the next reply of this link is to. None if there is none, or a newer link is in use.
    pub(super) fn next(&mut self, link: LinkId) -> Option<Waiting> {
        self.link.as_ref().filter(|(live, _)| *live == link)?;
        self.waiting.pop_front()
    }

    /// The link is out of step: ends it, so that it is reported gone with what waits.
    pub(super) fn give_up(&mut self, link: LinkId, waiting: Option<Waiting>) {
        if let Some((_, outlet)) = self.link.as_ref().filter(|(live, _)| *live == link) {
            self.waiting.extend(waiting);
            outlet.close();
        }
    }

    /// Keeps what was shown, so that it can be undone.
    pub(super) fn remember(&mut self, shown: Option<Shown>) {
        if let Some(shown) = shown {
            self.shown.push_front(shown);
            self.shown.truncate(MAX_SHOWN);
        }
    }

    /// Tells those who wait too long. What they asked for goes on.
    pub(super) fn expire(&mut self, now: Instant) {
        for late in self.waiting.iter_mut().filter(|it| it.until <= now) {
            let Some(answer) = late.answer.take() else {
                continue;
            };
            match late.question {
                // Who asked may be gone; that is their business.
                Question::Undo(asked) => {
                    drop(answer.send(OperatorReply::UndoUnderWay { asked }));
                }
                Question::Entries | Question::Preview(_) => refuse(&answer, TOO_SLOW),
            }
        }
    }

    /// The record did not take a row about an undo, of which this is known to have come.
    pub(super) fn not_recorded(&mut self, outcome: UndoOutcome) {
        self.past = Past::Known(outcome);
    }

    /// What came of an undo that the record holds without an outcome.
    pub(super) fn outcome_of_open(&self) -> UndoOutcome {
        match &self.past {
            Past::Known(outcome) => outcome.clone(),
            Past::NotLookedAt | Past::Closed => UndoOutcome::Unknown,
        }
    }

    /// Every undo in the record has an outcome.
    pub(super) fn closed(&mut self) {
        self.past = Past::Closed;
    }
}

/// Answers that it is not done.
pub(super) fn refuse(answer: &Sender<OperatorReply>, reason: &str) {
    let reason = reason.to_owned();
    // Who asked may be gone; that is their business.
    let _ = answer.send(OperatorReply::Refused { reason });
}

/// While its program is gone.
pub(super) const NOT_THERE: &str = "the program that keeps the workspace is not there at the \
    moment; try again in a while. `bulkhead status` says why";

const BUSY: &str = "the program that keeps the workspace has much to do; try again when it is done";

const TOO_SLOW: &str = "the program that keeps the workspace did not answer in time; nothing \
    was changed. Try again in a while";
