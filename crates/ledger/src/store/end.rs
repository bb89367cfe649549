//! Where the record ends, and whether it may be continued from there.

use protocol::ids::{Digest, PublicKey};
use protocol::time::Millis;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::files::OpenError;
use crate::chain::{self, GENESIS, Link, MAX_UNSIGNED};
use crate::schema::{HEAD_COLUMNS, read_head};

/// Where the record ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tip {
    pub(super) rows: u64,
    pub(super) running: Digest,
    pub(super) heads: u64,
    /// Rows after the last signed head.
    pub(super) unsigned: u64,
}

/// The tables are checked and the chain was intact when it was opened, so the end is what it says.
pub(super) fn read_tip(db: &Connection) -> rusqlite::Result<Tip> {
    let last = "SELECT row, running FROM rows ORDER BY row DESC LIMIT 1";
    let last = db
        .query_row(last, [], |row| Ok((row.get(0)?, Digest(row.get(1)?))))
        .optional()?;
    let (rows, running) = last.unwrap_or((0, GENESIS));
    let signed = "SELECT head, rows FROM heads ORDER BY head DESC LIMIT 1";
    let signed = db
        .query_row(signed, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (heads, covered): (u64, u64) = signed.unwrap_or((0, 0));
    Ok(Tip {
        rows,
        running,
        heads,
        unsigned: rows.saturating_sub(covered),
    })
}

/// Checks the last signature and every row after it.
pub(super) fn check_end(db: &Connection, key: &PublicKey) -> Result<Tip, OpenError> {
    let tip = read_tip(db)?;
    if tip.unsigned > MAX_UNSIGNED {
        let first = tip.rows - tip.unsigned + 1;
        return Err(damaged(first, "too many rows follow the last signature"));
    }
    let running = check_signature(db, key, tip.rows)?;
    check_unsigned(db, tip.rows - tip.unsigned, running)?;
    Ok(tip)
}

/// The running hash that the last signature vouches for.
fn check_signature(db: &Connection, key: &PublicKey, rows: u64) -> Result<Digest, OpenError> {
    let text = format!("SELECT {HEAD_COLUMNS} FROM heads ORDER BY head DESC LIMIT 1");
    let last = db
        .query_row(&text, [], |row| Ok(read_head(row)))
        .optional()?;
    let Some(last) = last else { return Ok(GENESIS) };
    let (head, signature) = last.ok_or(damaged(rows, "its signature cannot be read"))?;
    if !head.signed_by(key, &signature) {
        return Err(damaged(
            head.rows,
            "the signature over the record up to here is not right",
        ));
    }
    if head.rows > rows {
        return Err(damaged(
            rows + 1,
            "a signature covers it, but it is missing",
        ));
    }
    let at = "SELECT running FROM rows WHERE row = ?1";
    let at = db
        .query_row(at, [head.rows], |row| row.get(0).map(Digest))
        .optional()?;
    let newest = newest_of(db, head.session.as_str(), head.rows)?;
    if at != Some(head.running) || newest != Some((head.row, head.seq, head.hash)) {
        return Err(damaged(head.rows, "the signature is of another record"));
    }
    Ok(head.running)
}

/// The rows after this one, which has this running hash.
fn check_unsigned(db: &Connection, after: u64, running: Digest) -> Result<(), OpenError> {
    let mut query = db.prepare(
        "SELECT row, time, session, seq, event, prev, hash, running FROM rows WHERE row > ?1 ORDER BY row",
    )?;
    let mut found = query.query([after])?;
    let (mut last, mut before) = (after, running);
    while let Some(row) = found.next()? {
        let (number, session, event): (u64, String, String) =
            (row.get(0)?, row.get(2)?, row.get(4)?);
        let (prev, seq) = follows(db, &session, last)?;
        let link = Link {
            row: last + 1,
            time: Millis(row.get(1)?),
            session: session.as_bytes(),
            seq,
            prev,
            event: event.as_bytes(),
        };
        let hash = link.hash();
        before = chain::running(link.row, before, hash);
        let right = (link.row, seq, prev, hash, before);
        let stored = (
            number,
            row.get(3)?,
            Digest(row.get(5)?),
            Digest(row.get(6)?),
            Digest(row.get(7)?),
        );
        if stored != right {
            return Err(damaged(link.row, "it does not follow the row before it"));
        }
        last = link.row;
    }
    Ok(())
}

fn damaged(row: u64, what: &'static str) -> OpenError {
    OpenError::Damaged { row, what }
}

/// `prev` and `seq` of the row that continues a session after row `last`.
pub(super) fn follows(
    db: &Connection,
    session: &str,
    last: u64,
) -> rusqlite::Result<(Digest, u64)> {
    let newest = newest_of(db, session, last)?;
    Ok(newest.map_or((GENESIS, 1), |(_, seq, hash)| (hash, seq + 1)))
}

/// Row, sequence number and hash of a session's newest row that is not after `up_to`.
pub(super) fn newest_of(
    db: &Connection,
    session: &str,
    up_to: u64,
) -> rusqlite::Result<Option<(u64, u64, Digest)>> {
    db.prepare_cached(
        "SELECT row, seq, hash FROM rows WHERE session = ?1 AND row <= ?2 ORDER BY row DESC LIMIT 1",
    )?
    .query_row(params![session, up_to], |row| Ok((row.get(0)?, row.get(1)?, Digest(row.get(2)?))))
    .optional()
}
