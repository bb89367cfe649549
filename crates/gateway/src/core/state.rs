//! What the gateway remembers beside the record: who is who, which conversation is which
//! session, grants, passkeys, and what has not reached its platform yet.

mod halted;
mod labels;
mod passkeys;

use std::cell::Cell;
use std::path::Path;

use protocol::channel::ChannelEvent;
use protocol::ids::{
    AgentId, BadId, ChannelId, ConversationId, Digest, MessageId, PrincipalId, SenderId, SessionId,
    TurnId,
};
use protocol::operator::{Grant, Pair, PairState};
use protocol::time::Millis;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

/// The state database cannot be used; nothing is decided without it.
#[derive(Debug, thiserror::Error)]
#[error("the gateway's state database: {0}")]
pub(super) struct StateError(#[from] rusqlite::Error);

type Result<T> = std::result::Result<T, StateError>;

/// The tables. Times are in milliseconds since 1970.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS senders (
    channel TEXT NOT NULL, sender TEXT NOT NULL, name TEXT NOT NULL,
    principal TEXT NOT NULL, since INTEGER NOT NULL,
    PRIMARY KEY (channel, sender)) STRICT;
CREATE TABLE IF NOT EXISTS strangers (
    channel TEXT NOT NULL, sender TEXT NOT NULL, name TEXT NOT NULL,
    code TEXT NOT NULL UNIQUE, since INTEGER NOT NULL, expires INTEGER NOT NULL,
    PRIMARY KEY (channel, sender)) STRICT;
CREATE TABLE IF NOT EXISTS sessions (
    session TEXT PRIMARY KEY, principal TEXT NOT NULL,
    channel TEXT NOT NULL, conversation TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS conversations (
    channel TEXT NOT NULL, conversation TEXT NOT NULL, principal TEXT NOT NULL,
    session TEXT NOT NULL,
    PRIMARY KEY (channel, conversation, principal)) STRICT;
CREATE TABLE IF NOT EXISTS seen (
    channel TEXT NOT NULL, message TEXT NOT NULL, session TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (channel, message)) STRICT;
CREATE INDEX IF NOT EXISTS seen_at ON seen (at);
CREATE TABLE IF NOT EXISTS grants (
    id INTEGER PRIMARY KEY AUTOINCREMENT, principal TEXT NOT NULL, channel TEXT NOT NULL,
    agent TEXT NOT NULL, key TEXT NOT NULL, expires INTEGER NOT NULL,
    UNIQUE (principal, channel, agent, key)) STRICT;
CREATE TABLE IF NOT EXISTS labels (
    session TEXT NOT NULL, label TEXT NOT NULL, why TEXT NOT NULL, since INTEGER NOT NULL,
    PRIMARY KEY (session, label)) STRICT;
CREATE TABLE IF NOT EXISTS halted (
    session TEXT PRIMARY KEY, decoy TEXT NOT NULL, since INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL,
    session TEXT, turn INTEGER, event TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS logins (hash TEXT PRIMARY KEY, expires INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS browsers (
    hash TEXT PRIMARY KEY, sender TEXT NOT NULL, expires INTEGER NOT NULL) STRICT;
";

/// How long a message's id is remembered, to drop a second one.
const SEEN_MS: u64 = 30 * 86_400_000;

/// A session's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Whose it is.
    pub(super) principal: PrincipalId,
    /// Where it takes place.
    pub(super) channel: ChannelId,
    /// Likewise.
    pub(super) conversation: ConversationId,
}

/// The database.
pub(super) struct State {
    db: Connection,
    /// Whether it took the last message.
    messages: Cell<Messages>,
}

/// What became of the last message here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Messages {
    Taken,
    Refused,
}

impl State {
    /// Opens or makes it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let db = Connection::open(path)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.pragma_update(None, "cache_size", -256)?;
        drop_grants_without_agent(&db)?;
        db.execute_batch(SCHEMA)?;
        db.execute_batch(passkeys::SCHEMA)?;
        let state = Self {
            db,
            messages: Cell::new(Messages::Taken),
        };
        state.forget_expired(Millis::now())?;
        Ok(state)
    }

    fn forget_expired(&self, now: Millis) -> Result<()> {
        let (seen, now) = (int(now.0.saturating_sub(SEEN_MS)), int(now.0));
        self.db.execute("DELETE FROM seen WHERE at < ?1", [seen])?;
        for table in ["strangers", "grants", "logins", "browsers", "passkey_codes"] {
            self.db
                .execute(&format!("DELETE FROM {table} WHERE expires < ?1"), [now])?;
        }
        Ok(())
    }

    /// Whom a sender is known as.
    pub(super) fn principal(
        &self,
        channel: &ChannelId,
        sender: &SenderId,
    ) -> Result<Option<PrincipalId>> {
        let mut query = self
            .db
            .prepare_cached("SELECT principal FROM senders WHERE channel = ?1 AND sender = ?2")?;
        Ok(query
            .query_row([channel.as_str(), sender.as_str()], |row| {
                id::<PrincipalId>(row, 0)
            })
            .optional()?)
    }

    /// The pairing code of a stranger: the one that is still good, or this new one. The
    /// second value tells whether it is new.
    pub(super) fn stranger(
        &self,
        channel: &ChannelId,
        sender: &SenderId,
        name: &str,
        new_code: String,
        now: Millis,
        expires: Millis,
    ) -> Result<(String, Known)> {
        let (who, at) = ([channel.as_str(), sender.as_str()], int(now.0));
        let old = "SELECT code FROM strangers WHERE channel = ?1 AND sender = ?2 AND expires > ?3";
        let old = self
            .db
            .query_row(old, params![who[0], who[1], at], |row| row.get(0))
            .optional()?;
        if let Some(code) = old {
            return Ok((code, Known::Already));
        }
        let new = "INSERT OR REPLACE INTO strangers VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.db.execute(
            new,
            params![who[0], who[1], name, new_code, at, int(expires.0)],
        )?;
        Ok((new_code, Known::New))
    }

    /// How many strangers wait.
    pub(super) fn strangers(&self, now: Millis) -> Result<u64> {
        let count: i64 = self.db.query_row(
            "SELECT count(*) FROM strangers WHERE expires > ?1",
            [int(now.0)],
            |row| row.get(0),
        )?;
        Ok(count.unsigned_abs())
    }

    /// The stranger with this code, if it is still good.
    pub(super) fn stranger_with(
        &self,
        code: &str,
        now: Millis,
    ) -> Result<Option<(ChannelId, SenderId, String)>> {
        let query = "SELECT channel, sender, name FROM strangers WHERE code = ?1 AND expires > ?2";
        let read = |row: &Row<'_>| {
            Ok((
                id::<ChannelId>(row, 0)?,
                id::<SenderId>(row, 1)?,
                row.get(2)?,
            ))
        };
        Ok(self
            .db
            .query_row(query, params![code, int(now.0)], read)
            .optional()?)
    }

    /// Makes a sender known.
    pub(super) fn pair(
        &self,
        channel: &ChannelId,
        sender: &SenderId,
        name: &str,
        principal: &PrincipalId,
        now: Millis,
    ) -> Result<()> {
        let new = "INSERT OR REPLACE INTO senders VALUES (?1, ?2, ?3, ?4, ?5)";
        self.db.execute(
            new,
            params![
                channel.as_str(),
                sender.as_str(),
                name,
                principal.as_str(),
                int(now.0)
            ],
        )?;
        self.db.execute(
            "DELETE FROM strangers WHERE channel = ?1 AND sender = ?2",
            [channel.as_str(), sender.as_str()],
        )?;
        Ok(())
    }

    /// Makes a sender unknown; whether it was known.
    pub(super) fn unpair(&self, channel: &ChannelId, sender: &SenderId) -> Result<Known> {
        let gone = self.db.execute(
            "DELETE FROM senders WHERE channel = ?1 AND sender = ?2",
            [channel.as_str(), sender.as_str()],
        )?;
        self.db
            .execute("DELETE FROM browsers WHERE sender = ?1", [sender.as_str()])?;
        Ok(if gone > 0 { Known::Already } else { Known::New })
    }

    /// Who is known, and who waits to be.
    pub(super) fn pairs(&self, now: Millis) -> Result<Vec<Pair>> {
        let mut query = self.db.prepare(
            "SELECT channel, sender, name, since, principal, NULL, 0 FROM senders
             UNION ALL SELECT channel, sender, name, since, NULL, code, expires FROM strangers WHERE expires > ?1
             ORDER BY 4",
        )?;
        let pairs = query.query_map([int(now.0)], |row| {
            let code: Option<String> = row.get(5)?;
            Ok(Pair {
                channel: id::<ChannelId>(row, 0)?,
                sender: id::<SenderId>(row, 1)?,
                sender_name: row.get(2)?,
                since: millis(row, 3)?,
                state: match code {
                    Some(code) => PairState::Waiting {
                        code,
                        expires: millis(row, 6)?,
                    },
                    None => PairState::Paired {
                        principal: id::<PrincipalId>(row, 4)?,
                    },
                },
            })
        })?;
        Ok(pairs.collect::<std::result::Result<_, _>>()?)
    }

    /// The session of a conversation.
    pub(super) fn session_of(&self, place: &Place) -> Result<Option<SessionId>> {
        let mut query = self.db.prepare_cached(
            "SELECT session FROM conversations WHERE channel = ?1 AND conversation = ?2 AND principal = ?3")?;
        let place = [
            place.channel.as_str(),
            place.conversation.as_str(),
            place.principal.as_str(),
        ];
        Ok(query
            .query_row(place, |row| id::<SessionId>(row, 0))
            .optional()?)
    }

    /// Makes this the session of a conversation.
    pub(super) fn set_session(&self, place: &Place, session: &SessionId) -> Result<()> {
        let (channel, conversation, principal) = (
            place.channel.as_str(),
            place.conversation.as_str(),
            place.principal.as_str(),
        );
        self.db.execute(
            "INSERT OR REPLACE INTO sessions VALUES (?1, ?2, ?3, ?4)",
            [session.as_str(), principal, channel, conversation],
        )?;
        self.db.execute(
            "INSERT OR REPLACE INTO conversations VALUES (?1, ?2, ?3, ?4)",
            [channel, conversation, principal, session.as_str()],
        )?;
        Ok(())
    }

    /// The place of a session.
    pub(super) fn place(&self, session: &SessionId) -> Result<Option<Place>> {
        let query = "SELECT principal, channel, conversation FROM sessions WHERE session = ?1";
        let read = |row: &Row<'_>| {
            Ok(Place {
                principal: id::<PrincipalId>(row, 0)?,
                channel: id::<ChannelId>(row, 1)?,
                conversation: id::<ConversationId>(row, 2)?,
            })
        };
        Ok(self
            .db
            .query_row(query, [session.as_str()], read)
            .optional()?)
    }

    /// Where a message with this id went already.
    pub(super) fn seen(
        &self,
        channel: &ChannelId,
        message: &MessageId,
    ) -> Result<Option<SessionId>> {
        let mut query = self
            .db
            .prepare_cached("SELECT session FROM seen WHERE channel = ?1 AND message = ?2")?;
        Ok(query
            .query_row([channel.as_str(), message.as_str()], |row| {
                id::<SessionId>(row, 0)
            })
            .optional()?)
    }

    /// Remembers where a message goes.
    pub(super) fn set_seen(
        &self,
        channel: &ChannelId,
        message: &MessageId,
        session: &SessionId,
        now: Millis,
    ) -> Result<()> {
        let mut new = self
            .db
            .prepare_cached("INSERT OR REPLACE INTO seen VALUES (?1, ?2, ?3, ?4)")?;
        new.execute(params![
            channel.as_str(),
            message.as_str(),
            session.as_str(),
            int(now.0)
        ])?;
        self.messages.set(Messages::Taken);
        Ok(())
    }

    /// A message could not be taken, as this could not be written.
    pub(super) fn refused(&self) {
        self.messages.set(Messages::Refused);
    }

    /// Whether messages are taken. After one was refused it tries to write one, and takes it back.
    pub(super) fn takes_messages(&self) -> bool {
        if self.messages.get() == Messages::Refused && self.try_to_write().is_ok() {
            self.messages.set(Messages::Taken);
        }
        self.messages.get() == Messages::Taken
    }

    fn try_to_write(&self) -> Result<()> {
        let trial = self.db.unchecked_transaction()?;
        trial.execute("INSERT INTO seen VALUES ('', '', '', 0)", [])?;
        trial.execute("DELETE FROM seen WHERE channel = '' AND message = ''", [])?;
        Ok(trial.commit()?)
    }

    /// The grants in force.
    pub(super) fn grants(&self, now: Millis) -> Result<Vec<Grant>> {
        let mut query = self.db.prepare("SELECT id, principal, channel, agent, key, expires FROM grants WHERE expires > ?1 ORDER BY id")?;
        let grants = query.query_map([int(now.0)], grant)?;
        Ok(grants.collect::<std::result::Result<_, _>>()?)
    }

    /// Makes a grant.
    pub(super) fn add_grant(&self, grant: &policy::NewGrant) -> Result<()> {
        let new = "INSERT OR REPLACE INTO grants (principal, channel, agent, key, expires) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.db.execute(
            new,
            params![
                grant.principal.as_str(),
                grant.channel.as_str(),
                grant.agent.as_str(),
                grant.key,
                int(grant.expires.0)
            ],
        )?;
        Ok(())
    }

    /// Takes a grant back.
    pub(super) fn remove_grant(&self, number: u64) -> Result<()> {
        self.db
            .execute("DELETE FROM grants WHERE id = ?1", [int(number)])?;
        Ok(())
    }

    /// Keeps an event until its channel has delivered it; its number.
    pub(super) fn keep(
        &self,
        channel: &ChannelId,
        turn: Option<(&SessionId, TurnId)>,
        event: &ChannelEvent,
    ) -> Result<u64> {
        // Channel events are plain structs of texts and numbers.
        let event = serde_json::to_string(event).expect("a channel event has a JSON form");
        let (session, turn) = (turn.map(|(s, _)| s.as_str()), turn.map(|(_, t)| int(t.0)));
        let mut new = self.db.prepare_cached(
            "INSERT INTO outbox (channel, session, turn, event) VALUES (?1, ?2, ?3, ?4)",
        )?;
        new.execute(params![channel.as_str(), session, turn, event])?;
        Ok(self.db.last_insert_rowid().unsigned_abs())
    }

    /// It is delivered, or must not be.
    pub(super) fn delivered(&self, channel: &ChannelId, number: u64) -> Result<()> {
        self.db
            .prepare_cached("DELETE FROM outbox WHERE id = ?1 AND channel = ?2")?
            .execute(params![int(number), channel.as_str()])?;
        Ok(())
    }

    /// Replies that were kept for a turn which is not over after all.
    pub(super) fn forget_replies(&self, session: &SessionId, turn: TurnId) -> Result<()> {
        self.db.execute(
            "DELETE FROM outbox WHERE session = ?1 AND turn = ?2",
            params![session.as_str(), int(turn.0)],
        )?;
        Ok(())
    }

    /// What a channel has not delivered yet, oldest first.
    pub(super) fn undelivered(&self, channel: &ChannelId) -> Result<Vec<(u64, ChannelEvent)>> {
        let mut query = self
            .db
            .prepare("SELECT id, event FROM outbox WHERE channel = ?1 ORDER BY id LIMIT 500")?;
        let rows = query.query_map([channel.as_str()], |row| {
            let (number, event): (i64, String) = (row.get(0)?, row.get(1)?);
            let event = serde_json::from_str(&event).map_err(|error| broken(1, error))?;
            Ok((number.unsigned_abs(), event))
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Keeps the hash of a one-time link's token.
    pub(super) fn add_login(&self, token: Digest, expires: Millis) -> Result<()> {
        self.db.execute(
            "INSERT INTO logins VALUES (?1, ?2)",
            params![token.to_string(), int(expires.0)],
        )?;
        Ok(())
    }

    /// Uses a one-time link up; whether it was good.
    pub(super) fn use_login(&self, token: Digest, now: Millis) -> Result<Known> {
        let used = self.db.execute(
            "DELETE FROM logins WHERE hash = ?1 AND expires > ?2",
            params![token.to_string(), int(now.0)],
        )?;
        Ok(if used == 1 {
            Known::Already
        } else {
            Known::New
        })
    }

    /// Keeps the hash of a browser's cookie.
    pub(super) fn add_browser(
        &self,
        cookie: Digest,
        sender: &SenderId,
        expires: Millis,
    ) -> Result<()> {
        self.db.execute(
            "INSERT INTO browsers VALUES (?1, ?2, ?3)",
            params![cookie.to_string(), sender.as_str(), int(expires.0)],
        )?;
        Ok(())
    }

    /// Which browser a cookie belongs to.
    pub(super) fn browser(&self, cookie: Digest, now: Millis) -> Result<Option<SenderId>> {
        let query = "SELECT sender FROM browsers WHERE hash = ?1 AND expires > ?2";
        let sender = self
            .db
            .query_row(query, params![cookie.to_string(), int(now.0)], |row| {
                id::<SenderId>(row, 0)
            });
        Ok(sender.optional()?)
    }
}

/// Whether something was there before.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was.
    Already,
    /// It was not.
    New,
}

/// Grants of a form that does not say for which agent: they are asked about again.
fn drop_grants_without_agent(db: &Connection) -> Result<()> {
    let columns = "SELECT count(*), sum(name = 'agent') FROM pragma_table_info('grants')";
    let (all, agent): (i64, Option<i64>) =
        db.query_row(columns, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if all > 0 && agent == Some(0) {
        db.execute("DROP TABLE grants", [])?;
    }
    Ok(())
}

/// SQLite's integers are signed; ours count milliseconds and rows, which stay far below the border.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn millis(row: &Row<'_>, column: usize) -> rusqlite::Result<Millis> {
    row.get::<_, i64>(column)
        .map(|number| Millis(number.unsigned_abs()))
}

fn id<T: TryFrom<String, Error = BadId>>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    T::try_from(row.get(column)?).map_err(|error| broken(column, error))
}

/// Something that was not written by us.
fn broken(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

fn grant(row: &Row<'_>) -> rusqlite::Result<Grant> {
    Ok(Grant {
        grant: row.get::<_, i64>(0)?.unsigned_abs(),
        principal: id::<PrincipalId>(row, 1)?,
        channel: id::<ChannelId>(row, 2)?,
        agent: id::<AgentId>(row, 3)?,
        key: row.get(4)?,
        expires: millis(row, 5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.db")).unwrap();
        (dir, state)
    }

    fn tg() -> ChannelId {
        ChannelId::parse("telegram").unwrap()
    }

    #[test]
    fn after_a_refused_message_it_is_tried_whether_messages_are_taken() {
        let (_dir, state) = state();
        assert!(state.takes_messages());
        state.db.pragma_update(None, "query_only", true).unwrap();
        state.refused();
        assert!(!state.takes_messages());
        state.db.pragma_update(None, "query_only", false).unwrap();
        assert!(state.takes_messages());
        let rows = "SELECT count(*) FROM seen";
        let rows: i64 = state.db.query_row(rows, [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0);
    }

    #[test]
    fn a_code_is_kept_until_it_expires_and_pairing_uses_it_up() {
        let (_dir, state) = state();
        let sender = SenderId::parse("7").unwrap();
        let ask = |code: &str, now| {
            state
                .stranger(
                    &tg(),
                    &sender,
                    "Eve",
                    code.to_owned(),
                    Millis(now),
                    Millis(now + 100),
                )
                .unwrap()
        };
        assert_eq!(ask("A", 1), ("A".to_owned(), Known::New));
        assert_eq!(ask("B", 2), ("A".to_owned(), Known::Already));
        assert_eq!(ask("C", 200), ("C".to_owned(), Known::New));
        assert!(state.stranger_with("A", Millis(210)).unwrap().is_none());
        let owner = PrincipalId::parse("owner").unwrap();
        assert!(state.stranger_with("C", Millis(210)).unwrap().is_some());
        state
            .pair(&tg(), &sender, "Eve", &owner, Millis(211))
            .unwrap();
        assert!(state.stranger_with("C", Millis(212)).unwrap().is_none());
        assert_eq!(state.principal(&tg(), &sender).unwrap(), Some(owner));
        assert_eq!(state.unpair(&tg(), &sender).unwrap(), Known::Already);
        assert_eq!(state.principal(&tg(), &sender).unwrap(), None);
    }

    #[test]
    fn a_one_time_link_is_good_once_and_for_a_while() {
        let (_dir, state) = state();
        state.add_login(Digest::of("t"), Millis(100)).unwrap();
        assert_eq!(
            state.use_login(Digest::of("t"), Millis(101)).unwrap(),
            Known::New
        );
        state.add_login(Digest::of("u"), Millis(100)).unwrap();
        assert_eq!(
            state.use_login(Digest::of("u"), Millis(50)).unwrap(),
            Known::Already
        );
        assert_eq!(
            state.use_login(Digest::of("u"), Millis(50)).unwrap(),
            Known::New
        );
    }

    #[test]
    fn a_grant_ends_by_itself_and_when_it_is_taken_back() {
        let (_dir, state) = state();
        let place = Place {
            principal: PrincipalId::parse("ann").unwrap(),
            channel: ChannelId::parse("web").unwrap(),
            conversation: ConversationId::parse("1").unwrap(),
        };
        let grant = policy::NewGrant {
            principal: place.principal.clone(),
            channel: place.channel.clone(),
            agent: AgentId::main(),
            key: "k".to_owned(),
            expires: Millis(100),
        };
        state.add_grant(&grant).unwrap();
        assert_eq!(state.grants(Millis(100)).unwrap(), []);
        let grants = state.grants(Millis(99)).unwrap();
        assert_eq!(
            (grants[0].principal.as_str(), grants[0].key.as_str()),
            ("ann", "k")
        );
        state.remove_grant(grants[0].grant).unwrap();
        assert_eq!(state.grants(Millis(99)).unwrap(), []);
    }

    #[test]
    fn what_is_not_delivered_comes_again_in_order() {
        let (_dir, state) = state();
        let notice = |text: &str| ChannelEvent::Notice {
            delivery: 0,
            conversation: ConversationId::parse("1").unwrap(),
            ends_turn: None,
            text: text.to_owned(),
        };
        let first = state.keep(&tg(), None, &notice("a")).unwrap();
        let second = state.keep(&tg(), None, &notice("b")).unwrap();
        state
            .delivered(&ChannelId::parse("web").unwrap(), first)
            .unwrap();
        assert_eq!(
            state.undelivered(&tg()).unwrap().len(),
            2,
            "another channel cannot confirm it"
        );
        state.delivered(&tg(), first).unwrap();
        assert_eq!(state.undelivered(&tg()).unwrap()[0].0, second);
    }
}
