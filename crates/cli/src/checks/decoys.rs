//! Which sessions a decoy halted.

use std::ops::ControlFlow;
use std::time::Duration;

use config::Home;
use ledger::read::{Filter, Reader};
use protocol::event::Event;
use protocol::time::Millis;

use super::Check;
use crate::cards::shown;

/// For how long it is named: what is older was seen or will not be.
const NAMED_FOR: Duration = Duration::from_secs(30 * 86_400);

/// Names each of them, from the record.
pub(super) fn halted(home: &Home) -> Check {
    let db = home.ledger().join("ledger.db");
    let mut halted = Vec::new();
    let now = Millis::now();
    let read = match db.exists() {
        false => Ok(()),
        true => Reader::open(&db).and_then(|record| {
            record.each(&Filter::default(), |row| {
                if let Event::SessionHalted { decoy } = &row.event
                    && row.time.after(NAMED_FOR) > now
                {
                    let (session, at) = (&row.session, shown(row.time));
                    halted.push(format!("{session} since {at}: the decoy {decoy} turned up"));
                }
                ControlFlow::Continue(())
            })
        }),
    };
    match (read, halted.as_slice()) {
        (Err(error), _) => Check::fail(
            "decoys",
            error.to_string(),
            "`bulkhead audit verify` says what is wrong with the record",
        ),
        (Ok(()), []) => Check::ok("decoys", "no session came upon one in the last 30 days"),
        (Ok(()), halted) => Check::warn(
            "decoys",
            format!("halted: {}", halted.join("; ")),
            "see what each did, `bulkhead audit log --session ID`, and rotate what it may have seen",
        ),
    }
}
