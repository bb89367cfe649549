//! What sessions have touched: set here, kept in the record and the database, never taken back.

use protocol::event::Event as Fact;
use protocol::ids::SessionId;
use protocol::operator::SessionLabel;
use protocol::rules::{Label, Role};
use protocol::time::Millis;

use super::state::Place;
use super::{Fatal, Gateway, texts};

/// The row that says so.
pub(super) fn fact(held: &SessionLabel) -> Fact {
    Fact::Labelled {
        label: held.label,
        why: held.why.clone(),
    }
}

impl Gateway {
    /// Those of these that the session does not carry yet.
    pub(super) fn new_labels(
        &self,
        session: &SessionId,
        touched: &[(Label, String)],
    ) -> Result<Vec<SessionLabel>, Fatal> {
        if touched.is_empty() {
            return Ok(Vec::new());
        }
        let carried = self.state.labels(session)?;
        let is_new = |label: Label| carried.iter().all(|held| held.label != label);
        let since = Millis::now();
        Ok(touched
            .iter()
            .filter(|(label, _)| is_new(*label))
            .map(|(label, why)| SessionLabel {
                label: *label,
                why: why.clone(),
                since,
            })
            .collect())
    }

    /// Tells whoever is there what their session carries from now on.
    pub(super) fn tell_labels(&self, place: &Place, new: &[SessionLabel]) -> Result<(), Fatal> {
        new.iter()
            .try_for_each(|held| self.notice(place, None, texts::labelled(held.label, &held.why)))
    }

    /// What a session touches by a message from this place.
    pub(super) fn touched_by_message(&self, place: &Place) -> Vec<(Label, String)> {
        match self.rules.in_force.role(&place.principal) {
            Role::Owner => Vec::new(),
            Role::Approver | Role::User | Role::Guest => vec![(
                Label::Untrusted,
                format!(
                    "{}, who is not the owner, wrote over {}",
                    place.principal, place.channel
                ),
            )],
        }
    }
}
