//! The link to the ledger: rows go out in order, replies come back in order.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use protocol::event::Event;
use protocol::frame::LinkError;
use protocol::ids::SessionId;
use protocol::record::{LedgerReply, LedgerRequest, NewRow};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::wire;

/// How long the ledger may take, and how long its restart may.
const LIMIT: Duration = Duration::from_secs(5);

/// Rows that may wait for the ledger; further ones are not recorded.
const WAITING: usize = 64;

/// The record did not take it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotRecorded;

/// The record as egress sees it. A clone is another handle on the same.
#[derive(Clone)]
pub(crate) struct Record(watch::Sender<Option<mpsc::Sender<Job>>>);

struct Job {
    row: NewRow,
    done: oneshot::Sender<()>,
    unawaited: Unawaited,
}

/// What becomes of a row that nobody waits for any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unawaited {
    /// What it announces does not happen.
    Skip,
    /// What it tells has happened.
    Write,
}

impl Record {
    /// Without a link yet.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Uses this link from now on. Rows that wait on an older one count as not recorded.
    pub(crate) fn replace(&self, stream: UnixStream) {
        let (reader, writer) = match wire::halves(stream) {
            Ok(halves) => halves,
            Err(error) => return protocol::log!("bulkhead-egress: the ledger's link: {error}"),
        };
        let (jobs, waiting) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            if let Err(error) = serve(reader, writer, waiting).await {
                protocol::log!(
                    "bulkhead-egress: the ledger's link ended: {}",
                    wire::brief(&error)
                );
            }
        });
        self.0.send_replace(Some(jobs));
    }

    /// Records what is about to happen; durable when this returns. Five seconds at most.
    pub(crate) async fn append(
        &self,
        session: &SessionId,
        event: Event,
    ) -> Result<(), NotRecorded> {
        self.written(row(session, event), Unawaited::Skip).await
    }

    /// Records what has happened; durable when this returns. Five seconds at most.
    pub(crate) async fn complete(
        &self,
        session: &SessionId,
        event: Event,
    ) -> Result<(), NotRecorded> {
        self.written(row(session, event), Unawaited::Write).await
    }

    /// Records what has happened, without waiting for it.
    pub(crate) fn note(&self, session: &SessionId, event: Event) {
        let row = row(session, event);
        let link = self.0.borrow().clone();
        let queued = link
            .ok_or(NotRecorded)
            .and_then(|link| queue(&link, row, Unawaited::Write));
        if queued.is_err() {
            protocol::log!("bulkhead-egress: how a request ended is not in the record");
        }
    }

    async fn written(&self, row: NewRow, unawaited: Unawaited) -> Result<(), NotRecorded> {
        let written = async {
            let written = queue(&self.link().await?, row, unawaited)?;
            written.await.map_err(|_| NotRecorded)
        };
        timeout(LIMIT, written).await.unwrap_or(Err(NotRecorded))
    }

    /// The link, as soon as there is one.
    async fn link(&self) -> Result<mpsc::Sender<Job>, NotRecorded> {
        let mut links = self.0.subscribe();
        let alive =
            |link: &Option<mpsc::Sender<Job>>| link.as_ref().is_some_and(|l| !l.is_closed());
        let link = links.wait_for(alive).await.map_err(|_| NotRecorded)?;
        link.clone().ok_or(NotRecorded)
    }
}

fn row(session: &SessionId, event: Event) -> NewRow {
    NewRow {
        session: session.clone(),
        event,
    }
}

fn queue(
    link: &mpsc::Sender<Job>,
    row: NewRow,
    unawaited: Unawaited,
) -> Result<oneshot::Receiver<()>, NotRecorded> {
    let (done, written) = oneshot::channel();
    link.try_send(Job {
        row,
        done,
        unawaited,
    })
    .map_err(|_| NotRecorded)?;
    Ok(written)
}

async fn serve(
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    jobs: mpsc::Receiver<Job>,
) -> Result<(), LinkError> {
    let (sent, expected) = mpsc::channel(WAITING);
    // The first of the two to end takes the other with it, and with it all that wait.
    tokio::select! {
        ended = send(writer, jobs, sent) => ended,
        ended = receive(reader, expected) => ended,
    }
}

async fn send(
    mut writer: OwnedWriteHalf,
    mut jobs: mpsc::Receiver<Job>,
    sent: mpsc::Sender<oneshot::Sender<()>>,
) -> Result<(), LinkError> {
    while let Some(Job {
        row,
        done,
        unawaited,
    }) = jobs.recv().await
    {
        if done.is_closed() && unawaited == Unawaited::Skip {
            continue;
        }
        if sent.send(done).await.is_err() {
            break;
        }
        wire::write(&mut writer, &LedgerRequest::Append { rows: vec![row] }).await?;
    }
    Ok(())
}

async fn receive(
    mut reader: OwnedReadHalf,
    mut expected: mpsc::Receiver<oneshot::Sender<()>>,
) -> Result<(), LinkError> {
    loop {
        let reply = wire::read(&mut reader).await?;
        let Ok(done) = expected.try_recv() else {
            return Err(LinkError::OutOfOrder {
                expected: "nothing",
                got: "a reply",
            });
        };
        match reply {
            // Whoever waited may have given up; it counts as not recorded for them.
            LedgerReply::Appended { .. } => drop(done.send(())),
            LedgerReply::Failed { reason } => {
                protocol::log!("bulkhead-egress: the ledger did not take a row: {reason}");
            }
            LedgerReply::Rows { .. } | LedgerReply::Sessions { .. } => {
                return Err(LinkError::OutOfOrder {
                    expected: "appended",
                    got: "rows",
                });
            }
        }
    }
}
