//! `bulkhead-vault`: one thread for each link, all of them over one store.
//!
//! SECURITY: reads only typed requests from Bulkhead's own programs and from the operator's
//! command. Has no network. Writes its own folder and nothing else.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use protocol::control::{Control, NoConfig, Peer, ProgramEnd, Report};
use protocol::frame::LinkError;
use protocol::ids::{Nonce, PublicKey, random};
use protocol::marks::MarkKey;
use protocol::vault::{KeySource, LockState, SecretText, Unlocking, VaultReply, VaultRequest};
use sandbox::Program;
use sandbox::memory::Locked;

use crate::frames::{FrameReader, Memory, Patience, brief, send};
use crate::handle::{Asker, Journal, Refusal, Seen, Vault};
use crate::manage::{Operator, no_record_yet};
use crate::place::read_short;
use crate::store::Store;

const USAGE: &str =
    "usage: bulkhead-vault --dir DIR --operator-key-pub FILE [--credential FILE] [--once]";

/// The longest credential in bytes.
const MAX_CREDENTIAL: u64 = 4096;

/// Connections of the operator at a time; a further one is closed.
const MAX_OPERATORS: u32 = 8;

/// How long the operator's command may be silent.
const OPERATOR_PATIENCE: Duration = Duration::from_secs(60);

/// How long a peer may take to read a reply.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// Whom the vault serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The links that the supervisor hands over.
    System,
    /// One operator, whose connection is standard input, while the system is down.
    Once,
}

#[derive(Debug, PartialEq, Eq)]
struct Args {
    dir: PathBuf,
    operator_key: PathBuf,
    /// What systemd hands to the service; opens a vault that is protected with it.
    credential: Option<PathBuf>,
    mode: Mode,
}

/// The program.
pub fn run() -> ExitCode {
    let Some(args) = Args::parse(std::env::args().skip(1)) else {
        protocol::log!("{USAGE}");
        return ExitCode::from(2);
    };
    let outcome = match args.mode {
        Mode::System => serve_system(&args),
        Mode::Once => serve_once(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            protocol::log!("bulkhead-vault: {reason}");
            ExitCode::FAILURE
        }
    }
}

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let (mut dir, mut operator_key, mut mode) = (None, None, Mode::System);
        let mut credential = None;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--dir" => dir = Some(words.next()?.into()),
                "--operator-key-pub" => operator_key = Some(words.next()?.into()),
                "--credential" => credential = Some(words.next()?.into()),
                "--once" => mode = Mode::Once,
                _ => return None,
            }
        }
        Some(Self {
            dir: dir?,
            operator_key: operator_key?,
            credential,
            mode,
        })
    }
}

fn serve_system(args: &Args) -> Result<(), String> {
    let control = ProgramEnd::<NoConfig>::from_stdin().map_err(|error| error.to_string())?;
    let vault = match open(args, no_record_yet()) {
        Ok(vault) => Arc::new(vault),
        Err(reason) => {
            // If the supervisor is gone too, standard error has the reason.
            let _ = control.send(&Report::Failed {
                reason: reason.clone(),
            });
            return Err(reason);
        }
    };
    let outcome = control
        .start()
        .and_then(|NoConfig {}| control.send(&Report::Ready))
        .and_then(|()| obey(&control, &vault));
    // Whoever writes at this moment finishes; nobody begins after it.
    let _last = vault.store();
    match outcome {
        Ok(()) | Err(LinkError::Closed) => Ok(()),
        Err(error) => Err(format!("the control link: {}", brief(&error))),
    }
}

fn serve_once(args: &Args) -> Result<(), String> {
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let stream = UnixStream::from(stdin.map_err(|error| error.to_string())?);
    match open(args, Journal::Later) {
        Ok(vault) => serve_operator(&vault, &stream).map_err(|error| brief(&error)),
        Err(reason) => {
            let refused = VaultReply::Refused {
                reason: reason.clone(),
            };
            // If the command is gone too, standard error has the reason.
            let _ = send(&stream, &refused, SEND_LIMIT, Memory::Locked);
            Err(reason)
        }
    }
}

/// Confines the process, then reads the key and the secrets.
fn open(args: &Args, journal: Journal) -> Result<Vault, String> {
    Store::create_folder(&args.dir).map_err(|error| error.to_string())?;
    let files = sandbox::files_of(Program::Vault, std::env::args_os().skip(1));
    let files = files.map_err(|error| error.to_string())?;
    sandbox::confine(Program::Vault, &files).map_err(|error| error.to_string())?;
    let operator = read_public(&args.operator_key)?;
    let mut store = Store::open(&args.dir).map_err(|error| error.to_string())?;
    if let Some(credential) = &args.credential
        && store.key_source() == KeySource::Credential
        && store.lock_state() == LockState::Locked
        && let Err(reason) = unlock_with(&mut store, credential)
    {
        // It stays locked, which `bulkhead status` says; the right credential may come.
        protocol::log!("bulkhead-vault: the credential does not open the vault: {reason}");
    }
    let mark_key = MarkKey::random().map_err(|error| error.to_string())?;
    Ok(Vault {
        seen: Mutex::new(Seen::NotYet),
        store: Mutex::new(store),
        journal,
        operator,
        mark_key,
    })
}

fn unlock_with(store: &mut Store, credential: &Path) -> Result<(), String> {
    // Who can read it is up to systemd, which gives a service's user leave in ways that the mode does not show.
    let mut bytes = read_short(credential, MAX_CREDENTIAL).map_err(|error| error.to_string())?;
    let _held = sandbox::memory::lock(&bytes).map_err(|error| error.to_string())?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    let text = String::from_utf8(std::mem::take(&mut *bytes))
        .map_err(|_| "it is not UTF-8 text".to_owned())?;
    let key = SecretText::new(text);
    store
        .unlock(&Unlocking::Key { key })
        .map_err(|error| error.to_string())
}

fn read_public(path: &Path) -> Result<PublicKey, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path:?}: {error}"))?;
    PublicKey::parse(text.trim_end()).map_err(|error| format!("{path:?}: {error}"))
}

/// Until the supervisor says stop.
fn obey(control: &ProgramEnd<NoConfig>, vault: &Arc<Vault>) -> Result<(), LinkError> {
    loop {
        match control.receive()? {
            (Control::Link { peer }, Some(fd)) => take_link(vault, peer, fd)?,
            (Control::Listener, Some(fd)) => {
                let (vault, listener) = (Arc::clone(vault), UnixListener::from(fd));
                spawn("operators", move || accept(&vault, &listener))?;
            }
            (Control::Stop, _) => return Ok(()),
            (
                other @ (Control::Start { .. }
                | Control::NoAgent { .. }
                | Control::Rules { .. }
                | Control::Frozen { .. }
                | Control::Resume { .. }
                | Control::Link { .. }
                | Control::Listener),
                _,
            ) => {
                return Err(LinkError::OutOfOrder {
                    expected: "a link with its socket, or stop",
                    got: other.name(),
                });
            }
        }
    }
}

fn take_link(vault: &Arc<Vault>, peer: Peer, fd: OwnedFd) -> Result<(), LinkError> {
    let stream = UnixStream::from(fd);
    let asker = match peer {
        Peer::Ledger => {
            match &vault.journal {
                Journal::Record(record) => record.replace(stream),
                Journal::Later => {}
            }
            return Ok(());
        }
        Peer::Channel(channel) => Asker::Channel(channel),
        Peer::Egress => Asker::Egress,
        Peer::Gateway => Asker::Gateway,
        Peer::Vault | Peer::Sandbox | Peer::Workspace | Peer::Agent(_) => {
            protocol::log!(
                "bulkhead-vault: a link to {peer:?} was closed; it has no business here"
            );
            return Ok(());
        }
    };
    let vault = Arc::clone(vault);
    spawn("link", move || {
        match serve_program(&vault, &asker, &stream) {
            Ok(()) | Err(LinkError::Closed) => {}
            Err(error) => protocol::log!(
                "bulkhead-vault: the link of {asker:?} ended: {}",
                brief(&error)
            ),
        }
        hang_up(&stream);
    })
}

fn serve_program(vault: &Vault, asker: &Asker, stream: &UnixStream) -> Result<(), LinkError> {
    let mut reader = FrameReader::within(Memory::Locked);
    loop {
        let (_held, request) = receive(&mut reader, stream, Patience::Endless)?;
        answer(stream, &vault.program(asker, request)?)?;
    }
}

/// A request, and what keeps the secret in it out of the swap.
fn receive(
    reader: &mut FrameReader,
    stream: &UnixStream,
    patience: Patience,
) -> Result<(Option<Locked>, VaultRequest), LinkError> {
    let request: VaultRequest = reader.receive(stream, patience)?;
    let held = request.secret().map(hold).transpose()?;
    Ok((held, request))
}

fn hold(secret: &SecretText) -> io::Result<Locked> {
    sandbox::memory::lock(secret.expose().as_bytes())
}

fn answer(stream: &UnixStream, reply: &VaultReply) -> Result<(), LinkError> {
    let _held = match reply {
        VaultReply::Opened { value } => Some(hold(value)?),
        VaultReply::Challenge { .. }
        | VaultReply::Done
        | VaultReply::Locked
        | VaultReply::Marks { .. }
        | VaultReply::Unchanged
        | VaultReply::State { .. }
        | VaultReply::Backup { .. }
        | VaultReply::Entries { .. }
        | VaultReply::Refused { .. } => None,
    };
    match send(stream, reply, SEND_LIMIT, Memory::Locked) {
        // Nothing of it has gone out.
        Err(LinkError::TooLong(_)) => {
            let reply = Refusal::because("the answer does not fit a frame").reply();
            send(stream, &reply, SEND_LIMIT, Memory::Locked)
        }
        sent => sent,
    }
}

fn accept(vault: &Arc<Vault>, listener: &UnixListener) {
    let seats = Arc::new(AtomicU32::new(MAX_OPERATORS));
    for connection in listener.incoming() {
        let stream = match connection {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors, mostly; it may get better, and must not spin.
                protocol::log!("bulkhead-vault: accept: {error}");
                thread::sleep(Duration::from_millis(200));
                continue;
            }
        };
        let Some(seat) = Seat::take(&seats) else {
            continue;
        };
        let vault = Arc::clone(vault);
        let started = spawn("operator", move || {
            let _seat = seat;
            if let Err(error) = serve_operator(&vault, &stream) {
                protocol::log!(
                    "bulkhead-vault: the operator's connection ended: {}",
                    brief(&error)
                );
            }
            hang_up(&stream);
        });
        if let Err(error) = started {
            protocol::log!("bulkhead-vault: no thread for the operator: {error}");
        }
    }
}

/// One of the operator's connections; given back when dropped.
struct Seat(Arc<AtomicU32>);

impl Seat {
    fn take(free: &Arc<AtomicU32>) -> Option<Self> {
        free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .ok()?;
        Some(Self(Arc::clone(free)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Serves one connection of the operator until it is closed.
fn serve_operator(vault: &Vault, stream: &UnixStream) -> Result<(), LinkError> {
    let nonce = Nonce(random().map_err(io::Error::other)?);
    answer(stream, &VaultReply::Challenge { nonce })?;
    let mut phase = Operator::Challenged(nonce);
    let mut reader = FrameReader::within(Memory::Locked);
    loop {
        let patience = Patience::of(OPERATOR_PATIENCE);
        let (_held, request) = match receive(&mut reader, stream, patience) {
            Ok(request) => request,
            Err(LinkError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        let (next, reply) = vault.operator(phase, request)?;
        answer(stream, &reply)?;
        match next {
            Some(next) => phase = next,
            None => return Ok(()),
        }
    }
}

/// Closes the connection for every handle on it.
fn hang_up(stream: &UnixStream) {
    // The peer may have closed it first.
    let _ = stream.shutdown(Shutdown::Both);
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), LinkError> {
    thread::Builder::new().name(name.to_owned()).spawn(work)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Option<Args> {
        Args::parse(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn arguments_are_all_or_usage() {
        let args = parse(&["--dir", "d", "--operator-key-pub", "k"]).unwrap();
        assert_eq!(
            (args.dir, args.operator_key, args.mode),
            ("d".into(), "k".into(), Mode::System)
        );
        assert_eq!(args.credential, None);
        let words = [
            "--once",
            "--dir",
            "d",
            "--operator-key-pub",
            "k",
            "--credential",
            "c",
        ];
        let once = parse(&words).unwrap();
        assert_eq!((once.mode, once.credential), (Mode::Once, Some("c".into())));
        for bad in [&["--dir", "d"][..], &["--dir"], &["x"], &[]] {
            assert_eq!(parse(bad), None);
        }
    }
}
