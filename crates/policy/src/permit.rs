//! The permit: what makes a call run.

use std::time::Duration;

use protocol::call::{Action, Verdict};
use protocol::event::{Event, Ground};
use protocol::ids::{AgentId, CallRef, ChannelId, Digest, PrincipalId};
use protocol::record::{NewRow, Recordable};
use protocol::runner::{Leaves, Limits, Network};
use protocol::time::Millis;

use crate::decision::Question;
use crate::exact::Exact;
use crate::judge::Judgement;

/// How long an approval of tier 2 is remembered: 30 days.
pub const GRANT_TIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Says that this call may run, exactly so, once.
#[must_use]
#[derive(Debug)]
pub struct Permit {
    exact: Exact,
    judgement: Judgement,
    ground: Ground,
    digest: Digest,
}

impl Permit {
    /// For a call that the rules or a grant allow.
    pub(crate) fn new(exact: Exact, judgement: Judgement, ground: Ground) -> Self {
        let digest = exact.digest(&judgement, None);
        Self {
            exact,
            judgement,
            ground,
            digest,
        }
    }

    /// For a call that was asked about under these numbers and approved.
    pub(crate) fn approved(
        exact: Exact,
        judgement: Judgement,
        question: Question,
        digest: Digest,
    ) -> Self {
        let ground = Ground::Approval {
            approval: question.approval,
        };
        Self {
            exact,
            judgement,
            ground,
            digest,
        }
    }

    /// Which call.
    pub fn call(&self) -> &CallRef {
        &self.exact.reference
    }

    /// What runs.
    pub fn action(&self) -> &Action {
        &self.judgement.action
    }

    /// Its bounds.
    pub fn limits(&self) -> &Limits {
        &self.exact.profile.limits
    }

    /// What its box may reach.
    pub fn network(&self) -> Network {
        match self.judgement.network.as_slice() {
            [] => Network::None,
            rules => Network::Rules {
                rules: rules.to_vec(),
            },
        }
    }

    /// What it may leave behind.
    pub fn leaves(&self) -> Leaves {
        self.judgement.leaves()
    }

    /// Of the exact call; with the nonce of the question if it was asked about.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// On what ground it may run.
    pub fn ground(&self) -> Ground {
        self.ground
    }

    /// What the rules say of the call.
    pub fn judgement(&self) -> &Judgement {
        &self.judgement
    }

    /// The grant that comes from it: only from an approval just given, and only of tier 2.
    pub fn grant(&self, now: Millis) -> Option<NewGrant> {
        let Ground::Approval { .. } = self.ground else {
            return None;
        };
        (self.judgement.verdict == Verdict::AskOnce).then(|| NewGrant {
            principal: self.exact.principal.clone(),
            channel: self.exact.channel.clone(),
            agent: self.exact.agent.clone(),
            key: self.judgement.key.clone(),
            expires: now.after(GRANT_TIME),
        })
    }
}

impl Recordable for Permit {
    fn row(&self) -> NewRow {
        let CallRef {
            session,
            turn,
            call,
        } = self.exact.reference.clone();
        let (ground, digest, action) = (self.ground, self.digest, self.judgement.action.clone());
        NewRow {
            session,
            event: Event::Permit {
                turn,
                call,
                ground,
                digest,
                action,
            },
        }
    }
}

/// An approval that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGrant {
    /// To whom.
    pub principal: PrincipalId,
    /// For calls that come in over this channel.
    pub channel: ChannelId,
    /// For calls of this agent.
    pub agent: AgentId,
    /// For calls with this key.
    pub key: String,
    /// Until when.
    pub expires: Millis,
}
