//! `bulkhead-egress`: takes links from the supervisor and serves each by a task.
//!
//! SECURITY: reads requests of hijacked agents and channels, and the heads of what servers
//! answer; bodies are passed on unread. Has the network, one secret at a time, and no file.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use protocol::control::{Control, EgressConfig, Peer, ProgramEnd, Report};
use protocol::frame::LinkError;
use sandbox::{Files, Program};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use vault::VaultClient;

use crate::chat::{ModelDoor, VaultLink};
use crate::forward::BoxDoor;
use crate::record::Record;
use crate::tunnel::TunnelDoor;
use crate::wire::brief;
use crate::{box_link, dial, model_link, tunnel_link};

type Frame = Result<(Control<EgressConfig>, Option<OwnedFd>), LinkError>;

/// The program.
pub fn run() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bulkhead-egress: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), String> {
    let control = ProgramEnd::<EgressConfig>::from_stdin().map_err(|error| error.to_string())?;
    let files = Files {
        read: resolver_files(),
        ..Files::default()
    };
    if let Err(error) = sandbox::confine(Program::Egress, &files) {
        let reason = error.to_string();
        // If the supervisor is gone too, standard error has the reason.
        let _ = control.send(&Report::Failed {
            reason: reason.clone(),
        });
        return Err(reason);
    }
    let config = match control.start() {
        Ok(config) => config,
        Err(LinkError::Closed) => return Ok(()),
        Err(error) => return Err(format!("the control link: {}", brief(&error))),
    };
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the runtime: {error}"))?;
    let served = runtime.block_on(serve(control, config));
    // A name that is still being looked up may take long, and nobody waits for it.
    runtime.shutdown_background();
    served
}

/// What the confinement does not know of itself: where resolv.conf(5) is a link, as with
/// systemd-resolved, the file is replaced whole where it really is, so its folder is read.
fn resolver_files() -> Vec<PathBuf> {
    let real = Path::new("/etc/resolv.conf").canonicalize().ok();
    let folder = real
        .as_deref()
        .and_then(Path::parent)
        .filter(|path| path.starts_with("/run"));
    folder.map(Path::to_owned).into_iter().collect()
}

async fn serve(control: ProgramEnd<EgressConfig>, config: EgressConfig) -> Result<(), String> {
    let EgressConfig {
        model,
        tunnels,
        extra_roots,
    } = config;
    let roots = dial::roots(&extra_roots).map_err(|error| format!("an extra root: {error}"))?;
    let tls = dial::tls(roots).map_err(|error| format!("TLS: {error}"))?;
    let record = Record::new();
    let mut doors = Doors {
        model: Arc::new(ModelDoor {
            route: model,
            tls: tls.clone(),
            record: record.clone(),
            vault: VaultLink::default(),
        }),
        tunnels: Arc::new(TunnelDoor {
            rules: tunnels,
            record: record.clone(),
        }),
        boxes: Arc::new(BoxDoor::new(tls, record.clone())),
        record,
        links: HashMap::new(),
    };
    let reading = control.try_clone().map_err(|error| error.to_string())?;
    let (frames, mut received) = mpsc::channel::<Frame>(8);
    let reader = thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            loop {
                let frame = reading.receive();
                let last = frame.is_err();
                if frames.blocking_send(frame).is_err() || last {
                    return;
                }
            }
        });
    reader.map_err(|error| format!("a thread: {error}"))?;
    control
        .send(&Report::Ready)
        .map_err(|error| format!("the control link: {}", brief(&error)))?;
    while let Some(frame) = received.recv().await {
        match frame {
            Ok((Control::Link { peer }, Some(fd))) => doors.take_link(peer, UnixStream::from(fd)),
            Ok((Control::Stop, _)) | Err(LinkError::Closed) => return Ok(()),
            Ok((
                other @ (Control::Start { .. }
                | Control::Link { .. }
                | Control::Listener
                | Control::NoAgent { .. }
                | Control::Rules { .. }),
                _,
            )) => {
                return Err(format!(
                    "the control link: {} is out of order",
                    other.name()
                ));
            }
            Err(error) => return Err(format!("the control link: {}", brief(&error))),
        }
    }
    Ok(())
}

/// What the links lead to, and the links that are served.
struct Doors {
    model: Arc<ModelDoor>,
    tunnels: Arc<TunnelDoor>,
    boxes: Arc<BoxDoor>,
    record: Record,
    links: HashMap<Peer, AbortHandle>,
}

impl Doors {
    /// Serves this link from now on, instead of an older one of the same peer.
    fn take_link(&mut self, peer: Peer, stream: UnixStream) {
        let task = match peer.clone() {
            Peer::Ledger => return self.record.replace(stream),
            Peer::Vault => return self.model.vault.replace(VaultClient::new(stream)),
            Peer::Agent(session) => {
                tokio::spawn(model_link::serve(Arc::clone(&self.model), session, stream))
            }
            Peer::Channel(channel) => tokio::spawn(tunnel_link::serve(
                Arc::clone(&self.tunnels),
                channel,
                stream,
            )),
            Peer::Sandbox => tokio::spawn(box_link::serve(Arc::clone(&self.boxes), stream)),
            Peer::Gateway | Peer::Egress | Peer::Workspace => {
                return eprintln!(
                    "bulkhead-egress: a link to {peer:?} was closed; it has no business here"
                );
            }
        };
        self.links.retain(|_, task| !task.is_finished());
        if let Some(older) = self.links.insert(peer, task.abort_handle()) {
            older.abort();
        }
    }
}
