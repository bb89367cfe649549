//! `bulkhead-egress`: takes links from the supervisor and serves each by a task.
//!
//! SECURITY: reads requests of hijacked agents, channels and boxes, looks for secrets in them, and
//! reads the heads of what servers answer. Has the network, one secret at a time, and no file.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use outbound::RuleSet;
use protocol::control::{Control, EgressConfig, Peer, ProgramEnd, Report};
use protocol::frame::LinkError;
use protocol::rules::RulesNews;
use sandbox::{Files, Program};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use vault::VaultClient;

use crate::boxes::forward::BoxDoor;
use crate::budget::Spent;
use crate::chat::ModelDoor;
use crate::leaks::Leaks;
use crate::record::Record;
use crate::tools::fetch::{FetchDoor, Rules};
use crate::tools::oauth::Tokens;
use crate::tunnel::TunnelDoor;
use crate::vault_link::VaultLink;
use crate::wire::brief;
use crate::{boxes, dial, model_link, tools, tunnel_link};

type Frame = Result<(Control<EgressConfig>, Option<OwnedFd>), LinkError>;

/// The program.
pub fn run() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            protocol::log!("bulkhead-egress: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), String> {
    let control = ProgramEnd::<EgressConfig>::from_stdin().map_err(|error| error.to_string())?;
    if let Err(error) = sandbox::confine(Program::Egress, &Files::default()) {
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

async fn serve(control: ProgramEnd<EgressConfig>, config: EgressConfig) -> Result<(), String> {
    let EgressConfig {
        model,
        tunnels,
        rules,
        extra_roots,
    } = config;
    let roots = dial::roots(&extra_roots);
    let roots =
        roots.map_err(|error| format!("a root certificate of the configuration: {error}"))?;
    let rules = RuleSet::new(rules).map_err(|error| error.to_string())?;
    let tls = |error| format!("TLS: {error}");
    let (record, vault) = (Record::new(), VaultLink::default());
    let tokens = Tokens::default();
    let leaks = Leaks::new(vault.clone(), record.clone(), tokens.clone());
    let rules = Rules::new(rules);
    let box_tls = dial::tls(roots.clone()).map_err(tls)?;
    let spent = Spent::default();
    let boxes = BoxDoor::new(
        box_tls,
        (leaks.clone(), record.clone()),
        (rules.clone(), spent.clone()),
    );
    let mut doors = Doors {
        model: Arc::new(ModelDoor {
            route: model,
            tls: dial::tls(roots.clone()).map_err(tls)?,
            record: record.clone(),
            vault: vault.clone(),
            leaks: leaks.clone(),
        }),
        tools: Arc::new(FetchDoor {
            rules,
            tls: dial::tls_for_tools(roots).map_err(tls)?,
            record: record.clone(),
            vault: vault.clone(),
            leaks: leaks.clone(),
            spent,
            tokens,
        }),
        boxes: Arc::new(boxes),
        vault,
        leaks,
        tunnels: Arc::new(TunnelDoor {
            rules: tunnels,
            record: record.clone(),
        }),
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
            // The model's server and the hosts of channels are as they were at the start.
            Ok((Control::Rules { news }, _)) => doors.rules_news(news),
            Ok((Control::Stop, _)) | Err(LinkError::Closed) => return Ok(()),
            Ok((
                other @ (Control::Start { .. }
                | Control::Link { .. }
                | Control::Listener
                | Control::NoAgent { .. }
                | Control::Frozen { .. }
                | Control::Resume { .. }),
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
    tools: Arc<FetchDoor>,
    tunnels: Arc<TunnelDoor>,
    vault: VaultLink,
    leaks: Leaks,
    boxes: Arc<BoxDoor>,
    record: Record,
    links: HashMap<Peer, AbortHandle>,
}

impl Doors {
    /// Serves this link from now on, instead of an older one of the same peer.
    fn take_link(&mut self, peer: Peer, stream: UnixStream) {
        let task = match peer.clone() {
            Peer::Ledger => return self.record.replace(stream),
            Peer::Vault => return self.take_vault(VaultClient::new(stream)),
            Peer::Gateway => tokio::spawn(tools::link::serve(Arc::clone(&self.tools), stream)),
            Peer::Agent(session) => {
                tokio::spawn(model_link::serve(Arc::clone(&self.model), session, stream))
            }
            Peer::Channel(channel) => tokio::spawn(tunnel_link::serve(
                Arc::clone(&self.tunnels),
                channel,
                stream,
            )),
            Peer::Sandbox => tokio::spawn(boxes::link::serve(Arc::clone(&self.boxes), stream)),
            Peer::Egress | Peer::Workspace => {
                return protocol::log!(
                    "bulkhead-egress: a link to {peer:?} was closed; it has no business here"
                );
            }
        };
        self.links.retain(|_, task| !task.is_finished());
        if let Some(older) = self.links.insert(peer, task.abort_handle()) {
            older.abort();
        }
    }

    /// What tools may ask of hosts from now on. Rules that cannot be used are not taken; those in
    /// force stay.
    fn rules_news(&self, news: RulesNews) {
        match news {
            RulesNews::Changed { rules } => match RuleSet::new(rules.egress) {
                Ok(rules) => self.tools.rules.replace(rules),
                Err(error) => {
                    protocol::log!("bulkhead-egress: changed rules were not taken: {error}")
                }
            },
            RulesNews::Broken { .. } | RulesNews::AsBefore => {}
        }
    }

    /// What the vault holds is looked for from the beginning, and not only when somebody sends
    /// something.
    fn take_vault(&self, client: VaultClient) {
        self.vault.replace(client);
        self.leaks.begin_anew();
        let leaks = self.leaks.clone();
        tokio::spawn(async move { leaks.refresh().await });
    }
}
