//! Passkeys, and the one-time codes that enrol them.

use policy::passkey::{Passkey, Point};
use protocol::ids::{Digest, PrincipalId, hex, unhex};
use protocol::passkey::{Bytes, Enrolled};
use protocol::time::Millis;
use rusqlite::{OptionalExtension as _, Row, params};

use super::{Result, State, broken, id, int, millis};

/// Their tables. Keys, ids and hashes are in hexadecimal.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS passkeys (
    id INTEGER PRIMARY KEY AUTOINCREMENT, credential TEXT NOT NULL UNIQUE, key TEXT NOT NULL,
    counter INTEGER NOT NULL, principal TEXT NOT NULL, name TEXT NOT NULL,
    since INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS passkey_codes (
    hash TEXT PRIMARY KEY, principal TEXT NOT NULL, name TEXT NOT NULL,
    expires INTEGER NOT NULL) STRICT;
";

impl State {
    /// Keeps the hash of a one-time code: whose passkey it enrols, and its name.
    pub(in crate::core) fn add_passkey_code(
        &self,
        code: Digest,
        principal: &PrincipalId,
        name: &str,
        expires: Millis,
    ) -> Result<()> {
        self.db.execute(
            "INSERT INTO passkey_codes VALUES (?1, ?2, ?3, ?4)",
            params![code.to_string(), principal.as_str(), name, int(expires.0)],
        )?;
        Ok(())
    }

    /// Uses a one-time code up; whose passkey it enrols and its name, if it was good.
    pub(in crate::core) fn use_passkey_code(
        &self,
        code: Digest,
        now: Millis,
    ) -> Result<Option<(PrincipalId, String)>> {
        let used = "DELETE FROM passkey_codes WHERE hash = ?1 AND expires > ?2
                    RETURNING principal, name";
        let read = |row: &Row<'_>| Ok((id::<PrincipalId>(row, 0)?, row.get(1)?));
        Ok(self
            .db
            .query_row(used, params![code.to_string(), int(now.0)], read)
            .optional()?)
    }

    /// Keeps a passkey.
    pub(in crate::core) fn add_passkey(
        &self,
        passkey: &Passkey,
        principal: &PrincipalId,
        name: &str,
        now: Millis,
    ) -> Result<()> {
        let new = "INSERT INTO passkeys (credential, key, counter, principal, name, since)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.db.execute(
            new,
            params![
                passkey.credential.to_string(),
                hex(passkey.key.as_slice()),
                passkey.counter,
                principal.as_str(),
                name,
                int(now.0)
            ],
        )?;
        Ok(())
    }

    /// The passkey with this id, and whose it is.
    pub(in crate::core) fn passkey(
        &self,
        credential: &Bytes,
    ) -> Result<Option<(Passkey, PrincipalId)>> {
        let query = "SELECT key, counter, principal FROM passkeys WHERE credential = ?1";
        let read = |row: &Row<'_>| {
            let key = unhex(&row.get::<_, String>(0)?).unwrap_or_default();
            let passkey = Passkey {
                credential: credential.clone(),
                key: Point::new(&key).map_err(|error| broken(0, error))?,
                counter: row.get(1)?,
            };
            Ok((passkey, id::<PrincipalId>(row, 2)?))
        };
        Ok(self
            .db
            .query_row(query, [credential.to_string()], read)
            .optional()?)
    }

    /// Remembers how often a passkey was used, by its own count.
    pub(in crate::core) fn count_passkey(&self, credential: &Bytes, counter: u32) -> Result<()> {
        self.db.execute(
            "UPDATE passkeys SET counter = ?2 WHERE credential = ?1",
            params![credential.to_string(), counter],
        )?;
        Ok(())
    }

    /// All passkeys.
    pub(in crate::core) fn passkeys(&self) -> Result<Vec<Enrolled>> {
        let mut query = self
            .db
            .prepare("SELECT id, name, principal, credential, since FROM passkeys ORDER BY id")?;
        let passkeys = query.query_map([], |row| {
            let credential: String = row.get(3)?;
            let credential = Bytes::parse(&credential).map_err(|error| broken(3, error))?;
            Ok(Enrolled {
                passkey: row.get::<_, i64>(0)?.unsigned_abs(),
                name: row.get(1)?,
                principal: id::<PrincipalId>(row, 2)?,
                credential: Digest::of(credential.as_slice()),
                since: millis(row, 4)?,
            })
        })?;
        Ok(passkeys.collect::<std::result::Result<_, _>>()?)
    }

    /// Forgets a passkey.
    pub(in crate::core) fn remove_passkey(&self, number: u64) -> Result<()> {
        self.db
            .execute("DELETE FROM passkeys WHERE id = ?1", [int(number)])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> State {
        State::open(path).unwrap()
    }

    #[test]
    fn a_code_enrols_once_and_in_time() {
        let state = open(Path::new(":memory:"));
        let owner = PrincipalId::parse("owner").unwrap();
        let (code, late) = (Digest([1; 32]), Digest([2; 32]));
        let soon = Millis(Millis::now().0 + 60_000);
        for code in [code, late] {
            state.add_passkey_code(code, &owner, "key", soon).unwrap();
        }
        let now = Millis(soon.0 - 1);
        assert_eq!(state.use_passkey_code(Digest([3; 32]), now).unwrap(), None);
        let taken = state.use_passkey_code(code, now).unwrap();
        assert_eq!(taken, Some((owner, "key".to_owned())));
        assert_eq!(state.use_passkey_code(code, now).unwrap(), None);
        assert_eq!(state.use_passkey_code(late, soon).unwrap(), None);
    }

    #[test]
    fn passkeys_and_their_counters_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let owner = PrincipalId::parse("owner").unwrap();
        let credential = Bytes::parse("00ff").unwrap();
        let passkey = Passkey {
            credential: credential.clone(),
            key: Point::new(&[4; 65]).unwrap(),
            counter: 7,
        };
        open(&path)
            .add_passkey(&passkey, &owner, "key", Millis(1))
            .unwrap();
        open(&path).count_passkey(&credential, 9).unwrap();
        let state = open(&path);
        let (back, whose) = state.passkey(&credential).unwrap().unwrap();
        assert_eq!((back.key, back.counter), (passkey.key, 9));
        assert_eq!(whose, owner);
        let listed = state.passkeys().unwrap();
        assert_eq!(listed[0].credential, Digest::of([0, 255]));
        state.remove_passkey(listed[0].passkey).unwrap();
        assert_eq!(state.passkey(&credential).unwrap(), None);
    }
}
