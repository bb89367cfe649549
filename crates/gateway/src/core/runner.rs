//! The one place that has tools run, and it takes nothing but a permit that is in the record.
//!
//! What a permit lets run is either in a box or on the way out, so there are two programs that
//! do it: the one that makes boxes, and egress.

use std::collections::BTreeSet;

use ledger::client::Recorded;
use policy::Permit;
use protocol::call::Action;
use protocol::egress::FetchRequest;
use protocol::frame::LinkError;
use protocol::ids::{CallRef, SessionId};
use protocol::runner::RunRequest;
use serde::Serialize;

use super::outlet::Outlet;
use super::wire::{DoorLink, LinkId, RunnerLink};

/// The links to the programs that do what a permit lets run.
#[derive(Default)]
pub(super) struct Runner {
    boxes: Executor<RunRequest>,
    door: Executor<FetchRequest>,
}

/// The link to one of them, and what it does at the moment.
struct Executor<Send> {
    link: Option<(LinkId, Outlet<Send>)>,
    running: BTreeSet<CallRef>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The program that makes boxes.
    Boxes,
    /// Egress.
    Door,
}

impl By {
    /// Who does this.
    pub(super) fn of(action: &Action) -> Self {
        match action {
            Action::Argv { .. }
            | Action::Script { .. }
            | Action::Shell { .. }
            | Action::Tool { .. } => Self::Boxes,
            Action::Fetch { .. } => Self::Door,
        }
    }
}

impl Runner {
    /// A link to the program that makes boxes came. What ran over an earlier one has ended with
    /// it; those calls.
    pub(super) fn linked(
        &mut self,
        id: LinkId,
        link: RunnerLink,
    ) -> Result<BTreeSet<CallRef>, LinkError> {
        Ok(self.boxes.linked(id, Outlet::new(link)?))
    }

    /// The same for egress.
    pub(super) fn door_linked(
        &mut self,
        id: LinkId,
        link: DoorLink,
    ) -> Result<BTreeSet<CallRef>, LinkError> {
        Ok(self.door.linked(id, Outlet::new(link)?))
    }

    /// Whether the program is there.
    pub(super) fn is_there(&self, by: By) -> bool {
        match by {
            By::Boxes => self.boxes.link.is_some(),
            By::Door => self.door.link.is_some(),
        }
    }

    /// How many calls run.
    pub(super) fn count(&self) -> u32 {
        let running = self.boxes.running.len() + self.door.running.len();
        u32::try_from(running).unwrap_or(u32::MAX)
    }

    /// Has this run. The error names a call that did not run, since the program is gone.
    pub(super) fn run(&mut self, permit: Recorded<Permit>) -> Result<(), CallRef> {
        let permit = permit.into_inner();
        let call = permit.call().clone();
        match permit.action() {
            Action::Fetch { order } => self.door.start(
                call.clone(),
                FetchRequest::Fetch {
                    call,
                    order: order.clone(),
                },
            ),
            action @ (Action::Argv { .. }
            | Action::Script { .. }
            | Action::Shell { .. }
            | Action::Tool { .. }) => self.boxes.start(
                call.clone(),
                RunRequest::Run {
                    call,
                    action: action.clone(),
                    limits: permit.limits().clone(),
                    leaves: permit.leaves(),
                    network: permit.network(),
                },
            ),
        }
    }

    /// Whether this call was running on this link; from now on it is not.
    pub(super) fn is_over(&mut self, by: By, link: LinkId, call: &CallRef) -> bool {
        match by {
            By::Boxes => self.boxes.is_over(link, call),
            By::Door => self.door.is_over(link, call),
        }
    }

    /// Kills what runs for a session; the outcomes follow.
    pub(super) fn kill_those_of(&self, session: &SessionId) {
        self.boxes
            .tell_of(session, |call| RunRequest::Kill { call });
        self.door
            .tell_of(session, |call| FetchRequest::Cancel { call });
    }

    /// Waits no longer for the outcomes of a session.
    pub(super) fn forget_those_of(&mut self, session: &SessionId) {
        self.boxes.running.retain(|call| call.session != *session);
        self.door.running.retain(|call| call.session != *session);
    }

    /// Waits for no outcome any more: the programs were killed, and the boxes with them.
    pub(super) fn forget_all(&mut self) {
        self.boxes.running.clear();
        self.door.running.clear();
    }

    /// The link is gone, and with it what ran; those calls. None if a newer link is in use.
    pub(super) fn lost(&mut self, by: By, link: LinkId) -> Option<BTreeSet<CallRef>> {
        match by {
            By::Boxes => self.boxes.lost(link),
            By::Door => self.door.lost(link),
        }
    }
}

impl<Send> Default for Executor<Send> {
    fn default() -> Self {
        Self {
            link: None,
            running: BTreeSet::new(),
        }
    }
}

impl<Send: Serialize + std::marker::Send + 'static> Executor<Send> {
    fn linked(&mut self, id: LinkId, outlet: Outlet<Send>) -> BTreeSet<CallRef> {
        self.link = Some((id, outlet));
        std::mem::take(&mut self.running)
    }

    fn start(&mut self, call: CallRef, request: Send) -> Result<(), CallRef> {
        match &self.link {
            Some((_, outlet)) if outlet.send(request).is_ok() => {
                self.running.insert(call);
                Ok(())
            }
            _ => Err(call),
        }
    }

    fn is_over(&mut self, link: LinkId, call: &CallRef) -> bool {
        self.link.as_ref().is_some_and(|(live, _)| *live == link) && self.running.remove(call)
    }

    fn tell_of(&self, session: &SessionId, request: impl Fn(CallRef) -> Send) {
        for call in self.running.iter().filter(|call| call.session == *session) {
            if let Some((_, outlet)) = &self.link {
                // If the link is cut off here, everything that ran over it dies with it.
                let _ = outlet.send(request(call.clone()));
            }
        }
    }

    fn lost(&mut self, link: LinkId) -> Option<BTreeSet<CallRef>> {
        self.link.take_if(|(live, _)| *live == link)?;
        Some(std::mem::take(&mut self.running))
    }
}
