//! What sessions have touched.

use protocol::ids::SessionId;
use protocol::operator::SessionLabel;
use protocol::rules::Label;
use rusqlite::params;

use super::{Result, State, broken, int, millis};

/// A word that is no label; nothing is decided with it.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a label")]
struct NotALabel(String);

impl State {
    /// What a session carries.
    pub(in crate::core) fn labels(&self, session: &SessionId) -> Result<Vec<SessionLabel>> {
        let mut query = self.db.prepare_cached(
            "SELECT label, why, since FROM labels WHERE session = ?1 ORDER BY label",
        )?;
        let labels = query.query_map([session.as_str()], |row| {
            let name: String = row.get(0)?;
            let label = [Label::Private, Label::Untrusted]
                .into_iter()
                .find(|label| label.name() == name)
                .ok_or_else(|| broken(0, NotALabel(name)))?;
            Ok(SessionLabel {
                label,
                why: row.get(1)?,
                since: millis(row, 2)?,
            })
        })?;
        Ok(labels.collect::<std::result::Result<_, _>>()?)
    }

    /// Gives a session these; one that it carries already stays as it is. They are on the disk
    /// when this returns: what else is in here may be lost with the power, these must not.
    pub(in crate::core) fn add_labels(
        &self,
        session: &SessionId,
        labels: &[SessionLabel],
    ) -> Result<()> {
        if labels.is_empty() {
            return Ok(());
        }
        self.db.pragma_update(None, "synchronous", "FULL")?;
        let added = self.insert_labels(session, labels);
        self.db.pragma_update(None, "synchronous", "NORMAL")?;
        added
    }

    fn insert_labels(&self, session: &SessionId, labels: &[SessionLabel]) -> Result<()> {
        for SessionLabel { label, why, since } in labels {
            self.db.execute(
                "INSERT OR IGNORE INTO labels VALUES (?1, ?2, ?3, ?4)",
                params![session.as_str(), label.name(), why, int(since.0)],
            )?;
        }
        Ok(())
    }
}
