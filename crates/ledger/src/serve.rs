//! Links to the record, and the one thread that writes it.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use protocol::control::Peer;
use protocol::event::Event;
use protocol::frame::{Link, LinkError};
use protocol::record::{LedgerReply, LedgerRequest, NewRow, vault_session};

use crate::store::{Store, StoreError, Write};

/// How long rows may wait for a signature while nobody writes.
const QUIET: Duration = Duration::from_secs(1);

/// The most requests written with one sync.
const MAX_BATCH: usize = 64;

/// A peer that does not take its answer for so long loses its link.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A request that its peer may make, and where the answer goes.
struct Job {
    request: LedgerRequest,
    answer: SyncSender<LedgerReply>,
}

enum Message {
    Job(Job),
    Stop,
}

/// The thread that has the record open. All links send to it.
pub struct Writer {
    queue: SyncSender<Message>,
    thread: thread::JoinHandle<()>,
    links: Vec<Serving>,
}

/// A link that is served, and the thread that does it.
struct Serving {
    peer: Peer,
    socket: UnixStream,
    thread: thread::JoinHandle<()>,
}

impl Writer {
    /// Starts it over an open record.
    pub fn start(store: Store) -> std::io::Result<Self> {
        let (queue, messages) = sync_channel(MAX_BATCH);
        let thread = thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || write_loop(store, &messages))?;
        Ok(Self {
            queue,
            thread,
            links: Vec::new(),
        })
    }

    /// Serves a link in a thread of its own until the peer closes it or breaks the protocol.
    ///
    /// A peer has one link, the newest. What it still said on the one before is written before
    /// this returns, or never: otherwise a row that its sender has given up could come after
    /// rows that the sender wrote because of that.
    pub fn serve(&mut self, peer: Peer, stream: UnixStream) -> std::io::Result<()> {
        let ended = |link: &mut Serving| link.peer == peer || link.thread.is_finished();
        for old in self.links.extract_if(.., ended) {
            // One that its peer closed has nothing left to shut down.
            let _ = old.socket.shutdown(Shutdown::Both);
            if old.thread.join().is_err() {
                protocol::log!(
                    "bulkhead-ledger: the link to {:?} ended in a panic",
                    old.peer
                );
            }
        }
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let socket = stream.try_clone()?;
        let (queue, link, of) = (self.queue.clone(), Link::new(stream), peer.clone());
        let thread = thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || {
                match link_loop(&of, &link, &queue) {
                    LinkError::Closed => {}
                    error => protocol::log!("bulkhead-ledger: dropped the link to {of:?}: {error}"),
                }
                link.close();
            })?;
        self.links.push(Serving {
            peer,
            socket,
            thread,
        });
        Ok(())
    }

    /// Writes what is under way, signs what is not signed, and closes the record.
    pub fn stop(self) {
        // If the thread is gone already there is nothing to stop.
        let _ = self.queue.send(Message::Stop);
        let _ = self.thread.join();
    }
}

/// Whether this peer may ask for this.
pub fn allowed(peer: &Peer, request: &LedgerRequest) -> Result<(), &'static str> {
    match request {
        LedgerRequest::Append { rows } => rows.iter().try_for_each(|row| may_write(peer, row)),
        LedgerRequest::AppendAndSign { .. }
        | LedgerRequest::Read { .. }
        | LedgerRequest::Unfinished => match peer {
            Peer::Gateway => Ok(()),
            Peer::Ledger
            | Peer::Vault
            | Peer::Egress
            | Peer::Sandbox
            | Peer::Workspace
            | Peer::Channel(_)
            | Peer::Agent(_) => Err("only the gateway may ask the record for this"),
        },
        LedgerRequest::LastVaultChange => match peer {
            Peer::Vault => Ok(()),
            Peer::Gateway
            | Peer::Ledger
            | Peer::Egress
            | Peer::Sandbox
            | Peer::Workspace
            | Peer::Channel(_)
            | Peer::Agent(_) => Err("only the vault may ask the record for this"),
        },
    }
}

/// Only the gateway decides, so only the gateway can say that something was decided; the
/// others write what they did themselves.
fn may_write(peer: &Peer, row: &NewRow) -> Result<(), &'static str> {
    let own = match peer {
        // What the vault is held to, the vault writes.
        Peer::Gateway => !matches!(row.event, Event::VaultChanged { .. }),
        Peer::Egress => matches!(
            row.event,
            Event::ModelRequest { .. }
                | Event::ModelResponse { .. }
                | Event::EgressRequest { .. }
                | Event::EgressResponse { .. }
                | Event::LeakStopped { .. }
                | Event::EgressRefused { .. }
                | Event::TunnelOpened { .. }
                | Event::BoxTunnelOpened { .. }
                | Event::BoxTunnelClosed { .. }
                | Event::BoxRequest { .. }
                | Event::BoxResponse { .. }
                | Event::SecretUsed { .. }
        ),
        Peer::Vault => matches!(
            row.event,
            Event::SecretUsed { .. } | Event::VaultChanged { .. } | Event::HoneytokenTouched { .. }
        ),
        Peer::Ledger | Peer::Sandbox | Peer::Workspace | Peer::Channel(_) | Peer::Agent(_) => false,
    };
    // The chain that the vault is held to has its rows and no others.
    let of_vault = matches!(row.event, Event::VaultChanged { .. });
    if own && of_vault == (row.session == vault_session()) {
        Ok(())
    } else {
        Err("this program may not write this kind of event")
    }
}

/// Answers one request after the other. Returns why the link cannot go on.
fn link_loop(
    peer: &Peer,
    link: &Link<LedgerReply, LedgerRequest>,
    queue: &SyncSender<Message>,
) -> LinkError {
    loop {
        let request = match link.receive() {
            Ok(request) => request,
            Err(error) => return error,
        };
        let reply = match allowed(peer, &request) {
            Err(reason) => failed(reason),
            Ok(()) => ask(queue, request),
        };
        match link.send(&reply) {
            Ok(()) => {}
            Err(LinkError::TooLong(_)) => {
                match link.send(&failed("the answer does not fit a frame")) {
                    Ok(()) => {}
                    Err(error) => return error,
                }
            }
            Err(error) => return error,
        }
    }
}

fn ask(queue: &SyncSender<Message>, request: LedgerRequest) -> LedgerReply {
    let (answer, reply) = sync_channel(1);
    let gone = || failed("the record is being closed");
    match queue.send(Message::Job(Job { request, answer })) {
        Ok(()) => reply.recv().unwrap_or_else(|_| gone()),
        Err(_) => gone(),
    }
}

fn failed(reason: impl ToString) -> LedgerReply {
    LedgerReply::Failed {
        reason: reason.to_string(),
    }
}

fn write_loop(mut store: Store, messages: &Receiver<Message>) {
    let mut state = State::Open;
    while state == State::Open {
        let first = match messages.recv_timeout(QUIET) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => {
                sign_rest(&mut store);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let (jobs, after) = take_waiting(first, messages);
        state = after;
        work(&mut store, jobs);
    }
    sign_rest(&mut store);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Stopping,
}

/// The first message and those that came while the last commit was under way.
fn take_waiting(first: Message, messages: &Receiver<Message>) -> (Vec<Job>, State) {
    let mut jobs = Vec::new();
    let mut message = first;
    loop {
        match message {
            Message::Job(job) => jobs.push(job),
            Message::Stop => return (jobs, State::Stopping),
        }
        if jobs.len() >= MAX_BATCH {
            return (jobs, State::Open);
        }
        match messages.try_recv() {
            Ok(next) => message = next,
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return (jobs, State::Open),
        }
    }
}

/// Writes first, with one sync; then reads.
fn work(store: &mut Store, jobs: Vec<Job>) {
    let (mut writes, mut writers, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    for Job { request, answer } in jobs {
        match request {
            LedgerRequest::Append { rows } => {
                writes.push(Write { rows, sign: None });
                writers.push(answer);
            }
            LedgerRequest::AppendAndSign { rows, session } => {
                writes.push(Write {
                    rows,
                    sign: Some(session),
                });
                writers.push(answer);
            }
            LedgerRequest::Read {
                session,
                after,
                limit,
            } => {
                reads.push((
                    answer,
                    ReadJob::Rows {
                        session,
                        after,
                        limit,
                    },
                ));
            }
            LedgerRequest::Unfinished => reads.push((answer, ReadJob::Unfinished)),
            LedgerRequest::LastVaultChange => reads.push((answer, ReadJob::LastVaultChange)),
        }
    }
    if !writes.is_empty() {
        for (answer, result) in writers.into_iter().zip(store.write(&writes)) {
            give(&answer, result.map(|first| LedgerReply::Appended { first }));
        }
    }
    for (answer, job) in reads {
        give(
            &answer,
            match job {
                ReadJob::Rows {
                    session,
                    after,
                    limit,
                } => store
                    .read(&session, after, limit)
                    .map(|rows| LedgerReply::Rows { rows }),
                ReadJob::Unfinished => store
                    .unfinished()
                    .map(|sessions| LedgerReply::Sessions { sessions }),
                ReadJob::LastVaultChange => store
                    .last(&vault_session())
                    .map(|rows| LedgerReply::Rows { rows }),
            },
        );
    }
}

enum ReadJob {
    Rows {
        session: protocol::ids::SessionId,
        after: protocol::ids::RowId,
        limit: u32,
    },
    Unfinished,
    LastVaultChange,
}

fn give(answer: &SyncSender<LedgerReply>, result: Result<LedgerReply, StoreError>) {
    let reply = result.unwrap_or_else(|error| {
        protocol::log!("bulkhead-ledger: {error}");
        failed(error)
    });
    // The link's thread may be gone; the row is written all the same.
    let _ = answer.send(reply);
}

fn sign_rest(store: &mut Store) {
    if store.has_unsigned()
        && let Err(error) = store.sign_rest()
    {
        protocol::log!("bulkhead-ledger: the newest rows are not signed yet: {error}");
    }
}
