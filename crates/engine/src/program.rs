//! The program: its link is its standard input, and it lives for one box.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::process::ExitCode;

use protocol::engine::{EngineConfig, EngineReply, EngineRequest};
use protocol::frame::LinkError;
use protocol::runner::Backend;
use sandbox::run::Refused;
use sandbox::{Files, Program, confine};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use crate::connect::Engine;
use crate::run::{Order, Stop, run};
use crate::wire;

/// Requests that wait; there are never so many.
const WAITING: usize = 4;

/// The main function.
pub fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            protocol::log!("bulkhead-engine: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), String> {
    let mut arguments = std::env::args_os().skip(1);
    let files = match (arguments.next(), arguments.next()) {
        (Some(folder), None) => PathBuf::from(folder),
        (_, _) => {
            return Err(
                "takes the folder that it may write to; bulkhead-sandbox starts it".to_owned(),
            );
        }
    };
    let may = Files {
        read: Vec::new(),
        write: vec![files.clone()],
        ..Files::default()
    };
    confine(Program::Engine, &may).map_err(|error| error.to_string())?;
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| error.to_string())?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the runtime: {error}"))?;
    match runtime.block_on(serve(StdStream::from(socket), files)) {
        Ok(()) | Err(LinkError::Closed) => Ok(()),
        Err(error) => Err(format!("the link: {error}")),
    }
}

async fn serve(stream: StdStream, files: PathBuf) -> Result<(), LinkError> {
    stream.set_nonblocking(true)?;
    let (reader, mut writer) = UnixStream::from_std(stream)?.into_split();
    let (asked, mut requests) = mpsc::channel(WAITING);
    // A frame that is being read cannot be given up half-way, so this task only reads.
    tokio::spawn(read(reader, asked));
    let config = match requests.recv().await {
        Some(EngineRequest::Connect { config }) => config,
        Some(EngineRequest::Run { .. }) => return Err(out_of_order("Connect", "Run")),
        Some(EngineRequest::Kill) => return Err(out_of_order("Connect", "Kill")),
        None => return Ok(()),
    };
    let engine = match connect(config).await {
        Ok(engine) => engine,
        Err(refused) => return wire::write(&mut writer, &refusal(refused)).await,
    };
    let layer = engine.layer();
    wire::write(&mut writer, &EngineReply::Connected { layer }).await?;
    let order = match requests.recv().await {
        Some(EngineRequest::Run {
            action,
            limits,
            workspace,
            layer,
        }) => Order {
            action,
            limits,
            workspace,
            layer,
        },
        Some(EngineRequest::Connect { .. }) => return Err(out_of_order("Run", "Connect")),
        // Nobody wants anything.
        Some(EngineRequest::Kill) | None => return Ok(()),
    };
    let (stop, mut stops) = mpsc::channel(WAITING);
    tokio::spawn(pass_on(requests, stop));
    let reply = match run(&engine, &files, order, &mut stops).await {
        Ok(outcome) => EngineReply::Finished { outcome },
        Err(refused) => refusal(refused),
    };
    match wire::write(&mut writer, &reply).await {
        // Nobody is there any more, which is why it ended.
        Err(LinkError::Io(_)) => Ok(()),
        other => other,
    }
}

async fn connect(config: EngineConfig) -> Result<Engine, Refused> {
    if config.backend == Backend::Native {
        return Err(Refused {
            reason: "the native box needs no container engine".to_owned(),
            fix: "report this; bulkhead-sandbox makes it".to_owned(),
        });
    }
    let engine = Engine::connect(config).await?;
    engine.remove_leftovers().await.map_err(|error| Refused {
        reason: format!(
            "what earlier boxes left in {} cannot be removed: {error}",
            engine.config.backend.name()
        ),
        fix: "look at the engine's log".to_owned(),
    })?;
    Ok(engine)
}

/// Until the link ends, in whatever way.
async fn read(mut reader: OwnedReadHalf, asked: mpsc::Sender<EngineRequest>) {
    loop {
        match wire::read(&mut reader).await {
            Ok(request) => {
                if asked.send(request).await.is_err() {
                    return;
                }
            }
            Err(LinkError::Closed) => return,
            Err(error) => return protocol::log!("bulkhead-engine: the link: {error}"),
        }
    }
}

async fn pass_on(mut requests: mpsc::Receiver<EngineRequest>, stop: mpsc::Sender<Stop>) {
    loop {
        let what = match requests.recv().await {
            Some(EngineRequest::Kill) => Stop::Kill,
            Some(EngineRequest::Connect { .. } | EngineRequest::Run { .. }) | None => Stop::Gone,
        };
        // The run may be over.
        if stop.send(what).await.is_err() || what == Stop::Gone {
            return;
        }
    }
}

fn refusal(refused: Refused) -> EngineReply {
    let Refused { reason, fix } = refused;
    EngineReply::Refused { reason, fix }
}

fn out_of_order(expected: &'static str, got: &'static str) -> LinkError {
    LinkError::OutOfOrder { expected, got }
}
