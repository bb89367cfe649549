//! The one place that has tools run, and it takes nothing but a permit that is in the record.

use std::collections::BTreeSet;

use ledger::client::Recorded;
use policy::Permit;
use protocol::frame::LinkError;
use protocol::ids::{CallRef, SessionId};
use protocol::runner::{Network, RunRequest};

use super::outlet::Outlet;
use super::wire::{LinkId, RunnerLink};

/// The link to the program that runs tools in boxes.
#[derive(Default)]
pub(super) struct Runner {
    link: Option<(LinkId, Outlet<RunRequest>)>,
    running: BTreeSet<CallRef>,
}

impl Runner {
    /// A link came. What ran over an earlier one has ended with it; those calls.
    pub(super) fn linked(
        &mut self,
        id: LinkId,
        link: RunnerLink,
    ) -> Result<BTreeSet<CallRef>, LinkError> {
        self.link = Some((id, Outlet::new(link)?));
        Ok(std::mem::take(&mut self.running))
    }

    /// Whether there is a program to run tools.
    pub(super) fn is_there(&self) -> bool {
        self.link.is_some()
    }

    /// How many calls run.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.running.len()).unwrap_or(u32::MAX)
    }

    /// Has this run. The error names a call that did not run, since the program is gone.
    pub(super) fn run(&mut self, permit: Recorded<Permit>) -> Result<(), CallRef> {
        let permit = permit.into_inner();
        let call = permit.call().clone();
        let request = RunRequest::Run {
            call: call.clone(),
            action: permit.action().clone(),
            limits: permit.limits().clone(),
            leaves: permit.leaves(),
            network: Network::None,
        };
        match &self.link {
            Some((_, outlet)) if outlet.send(request).is_ok() => {
                self.running.insert(call);
                Ok(())
            }
            _ => Err(call),
        }
    }

    /// Whether this call was running on this link; from now on it is not.
    pub(super) fn is_over(&mut self, link: LinkId, call: &CallRef) -> bool {
        self.link.as_ref().is_some_and(|(live, _)| *live == link) && self.running.remove(call)
    }

    /// Kills what runs for a session; the outcomes follow.
    pub(super) fn kill_those_of(&self, session: &SessionId) {
        for call in self.running.iter().filter(|call| call.session == *session) {
            if let Some((_, outlet)) = &self.link {
                // If the link is cut off here, everything in the boxes dies with it.
                let _ = outlet.send(RunRequest::Kill { call: call.clone() });
            }
        }
    }

    /// Waits no longer for the outcomes of a session.
    pub(super) fn forget_those_of(&mut self, session: &SessionId) {
        self.running.retain(|call| call.session != *session);
    }

    /// The link is gone, and with it what ran; those calls. None if a newer link is in use.
    pub(super) fn lost(&mut self, link: LinkId) -> Option<BTreeSet<CallRef>> {
        self.link.take_if(|(live, _)| *live == link)?;
        Some(std::mem::take(&mut self.running))
    }
}
