//! How another program writes to the record: no record, no effect.

use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use protocol::frame::{Link, LinkError};
use protocol::ids::{RowId, SessionId};
use protocol::record::{LedgerReply, LedgerRequest, NewRow, Recordable, Row};

/// How long an answer may take. A ledger that is stopped or whose disk hangs is one that is not there.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Why something is not in the record, so that it must not happen.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is no link: none came yet, or the last one failed.
    #[error("there is no link to the ledger")]
    Unavailable,
    /// No answer in [`ANSWER_LIMIT`]. Whether the rows were written is not known. The link is
    /// given up, as the answer could still come and be taken for that of another request.
    #[error("the ledger did not answer within {} seconds", ANSWER_LIMIT.as_secs())]
    TimedOut,
    /// The link broke. Whether the rows were written is not known.
    #[error("the link to the ledger failed: {0}")]
    Link(LinkError),
    /// The rows do not fit a frame; nothing was sent.
    #[error("the rows do not fit a frame: {0}")]
    TooLarge(LinkError),
    /// The ledger says that nothing was written, and why. The link goes on.
    #[error("the ledger refused: {0}")]
    Refused(String),
    /// The ledger answered something else than was asked. The link is given up.
    #[error("the ledger gave an answer that does not belong to the request")]
    OutOfStep,
}

/// A link to the ledger, for any number of threads. One request at a time.
///
/// After [`LedgerError::TimedOut`], [`LedgerError::Link`] and [`LedgerError::OutOfStep`] every
/// call is [`LedgerError::Unavailable`] at once, until [`Self::replace`] brings a new link.
pub struct LedgerClient {
    link: Mutex<Option<Link<LedgerRequest, LedgerReply>>>,
    limit: Duration,
}

impl LedgerClient {
    /// Speaks to the ledger over this socket.
    pub fn new(stream: UnixStream) -> Self {
        let client = Self::unconnected();
        client.replace(stream);
        client
    }

    /// A client whose link has not come yet.
    pub fn unconnected() -> Self {
        Self {
            link: Mutex::new(None),
            limit: ANSWER_LIMIT,
        }
    }

    /// The same with another limit for answers.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        let client = Self { limit, ..self };
        if let Some(link) = client.lock().as_ref() {
            // A socket that cannot have a limit fails at its first use.
            let _ = link.set_timeout(Some(limit));
        }
        client
    }

    /// Takes a new link, instead of the one that there was.
    pub fn replace(&self, stream: UnixStream) {
        let link = Link::new(stream);
        let usable = link.set_timeout(Some(self.limit)).is_ok();
        *self.lock() = usable.then_some(link);
    }

    /// Whether there is a link that has not failed yet.
    pub fn is_connected(&self) -> bool {
        self.lock().is_some()
    }

    /// Writes these rows, all or none; when this returns they are durable. The number is that
    /// of the first row, the others follow it without gaps.
    pub fn append(&self, rows: Vec<NewRow>) -> Result<RowId, LedgerError> {
        self.appended(&LedgerRequest::Append { rows })
    }

    /// Writes these rows likewise, and signs the head of this session.
    pub fn append_and_sign(
        &self,
        rows: Vec<NewRow>,
        session: SessionId,
    ) -> Result<RowId, LedgerError> {
        self.appended(&LedgerRequest::AppendAndSign { rows, session })
    }

    /// Writes the row of this value; what comes back is the proof that it is there.
    pub fn record<T: Recordable>(&self, value: T) -> Result<Recorded<T>, LedgerError> {
        self.record_with(value, Vec::new())
    }

    /// Writes these rows and then that of this value, all or none.
    pub fn record_with<T: Recordable>(
        &self,
        value: T,
        before: Vec<NewRow>,
    ) -> Result<Recorded<T>, LedgerError> {
        let mut rows = before;
        let earlier = rows.len() as u64;
        rows.push(value.row());
        let RowId(first) = self.append(rows)?;
        Ok(Recorded {
            value,
            row: RowId(first + earlier),
        })
    }

    /// The rows of a session after this one, oldest first, at most `limit`. Fewer are all there are.
    pub fn read(
        &self,
        session: &SessionId,
        after: RowId,
        limit: u32,
    ) -> Result<Vec<Row>, LedgerError> {
        let mut rows: Vec<Row> = Vec::new();
        loop {
            // An answer has at most as many rows as fit a frame.
            let missing = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
            if missing == 0 {
                return Ok(rows);
            }
            let after = rows.last().map_or(after, |row| row.row);
            let request = LedgerRequest::Read {
                session: session.clone(),
                after,
                limit: missing,
            };
            match self.ask(&request)? {
                LedgerReply::Rows { rows: more } if more.is_empty() => return Ok(rows),
                // Numbers that do not rise would make this loop endless.
                LedgerReply::Rows { rows: more } if rising(after, &more) => rows.extend(more),
                LedgerReply::Failed { reason } => return Err(LedgerError::Refused(reason)),
                LedgerReply::Rows { .. }
                | LedgerReply::Appended { .. }
                | LedgerReply::Sessions { .. } => {
                    return Err(self.give_up(LedgerError::OutOfStep));
                }
            }
        }
    }

    /// The sessions with a turn that started and did not end, in the order of their oldest open turn.
    pub fn unfinished(&self) -> Result<Vec<SessionId>, LedgerError> {
        match self.ask(&LedgerRequest::Unfinished)? {
            LedgerReply::Sessions { sessions } => Ok(sessions),
            LedgerReply::Failed { reason } => Err(LedgerError::Refused(reason)),
            LedgerReply::Appended { .. } | LedgerReply::Rows { .. } => {
                Err(self.give_up(LedgerError::OutOfStep))
            }
        }
    }

    fn appended(&self, request: &LedgerRequest) -> Result<RowId, LedgerError> {
        match self.ask(request)? {
            LedgerReply::Appended { first } => Ok(first),
            LedgerReply::Failed { reason } => Err(LedgerError::Refused(reason)),
            LedgerReply::Rows { .. } | LedgerReply::Sessions { .. } => {
                Err(self.give_up(LedgerError::OutOfStep))
            }
        }
    }

    fn ask(&self, request: &LedgerRequest) -> Result<LedgerReply, LedgerError> {
        let mut held = self.lock();
        let link = held.as_ref().ok_or(LedgerError::Unavailable)?;
        let error = match link.send(request) {
            Ok(()) => match link.receive() {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            },
            // Found before the first byte went out, so the link is still in step.
            Err(error @ (LinkError::TooLong(_) | LinkError::Malformed(_))) => {
                return Err(LedgerError::TooLarge(error));
            }
            Err(error) => error,
        };
        link.close();
        *held = None;
        Err(match error {
            LinkError::Io(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                LedgerError::TimedOut
            }
            error => LedgerError::Link(error),
        })
    }

    fn give_up(&self, error: LedgerError) -> LedgerError {
        if let Some(link) = self.lock().take() {
            link.close();
        }
        error
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Link<LedgerRequest, LedgerReply>>> {
        // A thread that panicked in between may have left half an exchange on the link.
        self.link.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            let mut held = poisoned.into_inner();
            *held = None;
            held
        })
    }
}

fn rising(after: RowId, rows: &[Row]) -> bool {
    let mut last = after;
    rows.iter().all(|row| {
        let higher = row.row > last;
        last = row.row;
        higher
    })
}

/// Something that is in the record. Only [`LedgerClient`] makes one, after the ledger's answer,
/// so a function that takes a `Recorded<Permit>` cannot be reached without a row.
///
/// ```
/// fn row_of<T>(recorded: &bulkhead_ledger::Recorded<T>) -> protocol::ids::RowId {
///     recorded.row()
/// }
/// ```
///
/// Nobody else can make one from its parts:
///
/// ```compile_fail,E0451
/// fn forge(row: protocol::ids::RowId) -> bulkhead_ledger::Recorded<u8> {
///     bulkhead_ledger::Recorded { value: 7, row }
/// }
/// ```
///
/// nor copy one that was used:
///
/// ```compile_fail,E0277
/// fn copy<T: Clone>(_: &T) {}
/// fn twice(recorded: &bulkhead_ledger::Recorded<u8>) {
///     copy(recorded)
/// }
/// ```
///
/// nor read one from bytes that came over a link:
///
/// ```compile_fail,E0277
/// fn forge(text: &str) -> Option<bulkhead_ledger::Recorded<u8>> {
///     serde_json::from_str(text).ok()
/// }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Recorded<T> {
    value: T,
    row: RowId,
}

impl<T> Recorded<T> {
    /// What was recorded.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// The row that it is in.
    pub fn row(&self) -> RowId {
        self.row
    }

    /// What was recorded, without the proof.
    pub fn into_inner(self) -> T {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use protocol::event::Event;
    use protocol::ids::ChannelId;
    use protocol::record::system_session;

    use super::*;

    fn up() -> NewRow {
        NewRow {
            session: system_session(),
            event: Event::ChannelUp {
                channel: ChannelId::parse("web").unwrap(),
            },
        }
    }

    struct Up;
    impl Recordable for Up {
        fn row(&self) -> NewRow {
            up()
        }
    }

    fn pair() -> (LedgerClient, Link<LedgerReply, LedgerRequest>) {
        let (a, b) = UnixStream::pair().unwrap();
        (
            LedgerClient::new(a).with_limit(Duration::from_millis(500)),
            Link::new(b),
        )
    }

    #[test]
    fn a_ledger_that_does_not_answer_costs_the_link_and_every_later_call_fails_at_once() {
        let (client, ledger) = pair();
        assert!(matches!(
            client.append(vec![up()]),
            Err(LedgerError::TimedOut)
        ));
        // The late answer must not be taken for that of the next request.
        let _ = ledger.send(&LedgerReply::Appended { first: RowId(1) });
        let start = Instant::now();
        assert!(matches!(
            client.append(vec![up()]),
            Err(LedgerError::Unavailable)
        ));
        assert!(matches!(client.unfinished(), Err(LedgerError::Unavailable)));
        assert!(start.elapsed() < Duration::from_millis(400));

        let (a, b) = UnixStream::pair().unwrap();
        client.replace(a);
        let b = Link::<LedgerReply, LedgerRequest>::new(b);
        b.send(&LedgerReply::Appended { first: RowId(9) }).unwrap();
        assert_eq!(client.append(vec![up()]).unwrap(), RowId(9));
    }

    #[test]
    fn the_proof_names_the_row_of_the_value_not_of_the_rows_before_it() {
        let (client, ledger) = pair();
        ledger
            .send(&LedgerReply::Appended { first: RowId(5) })
            .unwrap();
        let recorded = client.record_with(Up, vec![up(), up()]).unwrap();
        assert_eq!(recorded.row(), RowId(7));
        let LedgerRequest::Append { rows } = ledger.receive().unwrap() else {
            panic!("not an append")
        };
        assert_eq!(rows.len(), 3);
    }

    #[test]
    fn a_refusal_gives_no_proof_and_keeps_the_link() {
        let (client, ledger) = pair();
        ledger
            .send(&LedgerReply::Failed {
                reason: "full".to_owned(),
            })
            .unwrap();
        assert!(matches!(client.record(Up), Err(LedgerError::Refused(reason)) if reason == "full"));
        assert!(client.is_connected());
    }

    #[test]
    fn an_answer_of_another_kind_costs_the_link() {
        let (client, ledger) = pair();
        ledger
            .send(&LedgerReply::Sessions {
                sessions: Vec::new(),
            })
            .unwrap();
        assert!(matches!(client.record(Up), Err(LedgerError::OutOfStep)));
        assert!(!client.is_connected());
    }

    #[test]
    fn rows_that_do_not_fit_a_frame_are_refused_here_and_keep_the_link() {
        let (client, _ledger) = pair();
        let big = Event::EgressRefused {
            subject: "x".repeat(protocol::frame::MAX_FRAME),
            target: String::new(),
            reason: String::new(),
        };
        let row = NewRow {
            session: system_session(),
            event: big,
        };
        assert!(matches!(
            client.append(vec![row]),
            Err(LedgerError::TooLarge(_))
        ));
        assert!(client.is_connected());
    }

    #[test]
    fn reading_goes_on_until_the_limit_or_until_there_is_no_more() {
        let row = |n| Row {
            row: RowId(n),
            time: protocol::time::Millis(0),
            session: system_session(),
            event: up().event,
            hash: protocol::ids::Digest([0; 32]),
        };
        let (client, ledger) = pair();
        ledger
            .send(&LedgerReply::Rows { rows: vec![row(1)] })
            .unwrap();
        ledger
            .send(&LedgerReply::Rows { rows: vec![row(2)] })
            .unwrap();
        ledger
            .send(&LedgerReply::Rows { rows: Vec::new() })
            .unwrap();
        assert_eq!(
            client.read(&system_session(), RowId(0), 10).unwrap(),
            [row(1), row(2)]
        );
        ledger
            .send(&LedgerReply::Rows {
                rows: vec![row(1), row(1)],
            })
            .unwrap();
        assert!(matches!(
            client.read(&system_session(), RowId(0), 10),
            Err(LedgerError::OutOfStep)
        ));
    }
}
