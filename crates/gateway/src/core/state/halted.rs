//! Sessions in which a decoy turned up.

use protocol::ids::{SecretName, SessionId};
use protocol::time::Millis;
use rusqlite::params;

use super::{Result, State, int};

impl State {
    /// Halts a session for good; whether it was not halted before. On the disk when this returns.
    pub(in crate::core) fn halt(
        &self,
        session: &SessionId,
        decoy: &SecretName,
        now: Millis,
    ) -> Result<bool> {
        self.db.pragma_update(None, "synchronous", "FULL")?;
        let halted = self.db.execute(
            "INSERT OR IGNORE INTO halted VALUES (?1, ?2, ?3)",
            params![session.as_str(), decoy.as_str(), int(now.0)],
        );
        self.db.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(halted? == 1)
    }

    /// Whether a session is halted.
    pub(in crate::core) fn is_halted(&self, session: &SessionId) -> Result<bool> {
        let mut query = self
            .db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM halted WHERE session = ?1)")?;
        Ok(query.query_row([session.as_str()], |row| row.get(0))?)
    }
}
