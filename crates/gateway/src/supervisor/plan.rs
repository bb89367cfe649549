//! Which programs there are, what each is told, and which of them are linked.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use config::{Config, Home, OPERATOR, TERMINAL, read_public};
use protocol::control::{
    BoxGroups, ChannelConfig, EgressConfig, GatewayConfig, NoConfig, Peer, SandboxConfig,
    TunnelRule, WorkspaceConfig,
};
use protocol::engine::EngineConfig;
use protocol::ids::ChannelId;
use protocol::passkey::RP_ID;
use serde::Serialize;

use super::StartError;

/// The sockets on which somebody outside can reach a program.
pub(super) struct Sockets {
    /// `bulkhead` to the supervisor.
    pub(super) supervisor: UnixListener,
    operator: UnixListener,
    vault: UnixListener,
    web: Vec<TcpListener>,
}

impl Sockets {
    /// Listens on all of them, so that a port that is taken is known before anything starts.
    pub(super) fn open(home: &Home, config: &Config) -> Result<Self, StartError> {
        let supervisor = home
            .listen("supervisor.sock")
            .map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => StartError::AlreadyRuns,
                _ => StartError::System {
                    doing: "listen on supervisor.sock".to_owned(),
                    error,
                },
            })?;
        let listen = |name: &str| {
            home.listen(name)
                .map_err(StartError::system(format!("listen on {name}")))
        };
        Ok(Self {
            supervisor,
            operator: listen("operator.sock")?,
            vault: listen("vault.sock")?,
            web: config
                .web
                .as_ref()
                .map_or(Ok(Vec::new()), |web| page(web.port))?,
        })
    }
}

/// Both addresses that browsers take `localhost` for, so that nobody else on this machine can
/// listen on one of them and pass for the page.
fn page(port: u16) -> Result<Vec<TcpListener>, StartError> {
    let failed = |error| StartError::Port { port, error };
    let four = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
    match TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
        Ok(six) => Ok(vec![four, six]),
        // Without IPv6 there is no such address for anybody.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
            ) || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) =>
        {
            Ok(vec![four])
        }
        Err(error) => Err(failed(error)),
    }
}

/// A program as it is to be started.
pub(super) struct Plan {
    /// Its name, as `ps` shows it.
    pub(super) name: &'static str,
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<OsString>,
    /// How others know it.
    pub(super) peer: Peer,
    /// Whom it has links to; stands at one of the two ends.
    pub(super) links: Vec<Peer>,
    /// What it listens on.
    pub(super) listeners: Vec<OwnedFd>,
    /// What it is told at its start.
    pub(super) config: serde_json::Value,
    /// In which round it is stopped; those of a round together.
    pub(super) stop_round: u8,
}

/// The last round of stopping.
pub(super) const LAST_ROUND: u8 = 4;

/// All programs but agents, in the order they are started.
pub(super) fn plans(
    home: &Home,
    config: &Config,
    sockets: &Sockets,
    groups: &BoxGroups,
) -> Result<Vec<Plan>, StartError> {
    let programs = programs_folder()?;
    fs::create_dir_all(&config.workspace)
        .map_err(StartError::system("make the workspace folder"))?;
    let dir = |path: PathBuf| vec![OsString::from("--dir"), path.into()];
    let key = |name: &str| {
        vec![
            OsString::from("--key"),
            home.keys().join(format!("{name}.key")).into(),
        ]
    };
    let plan = |name: &'static str, peer: Peer, stop_round: u8| Plan {
        name,
        path: programs.join(name),
        arguments: Vec::new(),
        peer,
        links: Vec::new(),
        listeners: Vec::new(),
        config: told(&NoConfig {}),
        stop_round,
    };
    let copy = |fd: io::Result<OwnedFd>| fd.map_err(StartError::system("copy a socket"));

    let mut vault_arguments = dir(home.vault());
    vault_arguments.extend([
        "--operator-key-pub".into(),
        home.keys().join("operator.pub").into(),
    ]);
    // systemd.exec(5): the path of a folder with credentials. The vault reads the file itself.
    if let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        let credential = Path::new(&folder).join("bulkhead-vault");
        if credential.is_file() {
            vault_arguments.extend(["--credential".into(), credential.into()]);
        }
    }
    let mut plans = vec![
        Plan {
            arguments: dir(home.ledger()),
            ..plan("bulkhead-ledger", Peer::Ledger, LAST_ROUND)
        },
        Plan {
            arguments: vault_arguments,
            links: vec![Peer::Ledger],
            listeners: vec![copy(sockets.vault.try_clone().map(Into::into))?],
            ..plan("bulkhead-vault", Peer::Vault, 3)
        },
        Plan {
            links: vec![Peer::Ledger, Peer::Vault],
            config: told(&egress(config)),
            ..plan("bulkhead-egress", Peer::Egress, 2)
        },
        Plan {
            arguments: vec![
                "--workspace".into(),
                config.workspace.clone().into(),
                "--history".into(),
                home.history_of(&config.workspace).into(),
            ],
            config: told(&WorkspaceConfig {
                keep: config.history,
                read_only: config.rules.read_only.clone(),
            }),
            // It outlives whoever has something to keep or to undo.
            ..plan("bulkhead-workspace", Peer::Workspace, 3)
        },
        Plan {
            arguments: runner_arguments(home, config)?,
            links: vec![Peer::Workspace, Peer::Egress],
            config: told(&SandboxConfig {
                workspace: config.workspace.clone(),
                tool_program: programs.join("bulkhead-tool"),
                engine_program: programs.join("bulkhead-engine"),
                engine: EngineConfig {
                    backend: config.backend,
                    socket: config.engine_socket.clone(),
                    home: home.digest(),
                    sandbox_program: programs.join("bulkhead-sandbox"),
                    tool_program: programs.join("bulkhead-tool"),
                    files: home.engine(),
                    memory: config.memory,
                },
                groups: groups.clone(),
                spare_boxes: config.spare_boxes,
                limits: config.limits.clone(),
            }),
            ..plan("bulkhead-sandbox", Peer::Sandbox, 2)
        },
        Plan {
            arguments: dir(home.gateway()),
            links: vec![Peer::Ledger, Peer::Sandbox, Peer::Workspace, Peer::Egress],
            listeners: vec![copy(sockets.operator.try_clone().map(Into::into))?],
            config: told(&gateway(home, config)?),
            ..plan("bulkhead-gateway", Peer::Gateway, 1)
        },
    ];
    if let Some(web) = &config.web {
        plans.push(Plan {
            arguments: key("web"),
            links: vec![Peer::Gateway],
            listeners: sockets
                .web
                .iter()
                .map(|listener| copy(listener.try_clone().map(Into::into)))
                .collect::<Result<_, _>>()?,
            config: told(&ChannelConfig::Web {
                channel: channel("web"),
                port: web.port,
            }),
            ..plan("bulkhead-channel-web", Peer::Channel(channel("web")), 0)
        });
    }
    if let Some(telegram) = &config.telegram {
        let mut arguments = key("telegram");
        arguments.extend(dir(home.telegram()));
        plans.push(Plan {
            arguments,
            links: vec![Peer::Gateway, Peer::Egress, Peer::Vault],
            config: told(&ChannelConfig::Telegram {
                channel: channel("telegram"),
                scheme: telegram.api.scheme,
                host: telegram.api.host.clone(),
                port: telegram.api.port,
                token: telegram.token.clone(),
            }),
            ..plan(
                "bulkhead-channel-telegram",
                Peer::Channel(channel("telegram")),
                0,
            )
        });
    }
    Ok(plans)
}

/// What the program that makes boxes writes to, and what it does not see. A cover needs something to lie on,
/// so what may come later is made now.
fn runner_arguments(home: &Home, config: &Config) -> Result<Vec<OsString>, StartError> {
    let history = home.history_of(&config.workspace);
    let write = [config.workspace.clone(), history, home.engine()];
    for folder in write.iter().chain([&home.rules()]) {
        let mut maker = fs::DirBuilder::new();
        maker.recursive(true).mode(0o700);
        maker
            .create(folder)
            .map_err(StartError::system(format!("make the folder {folder:?}")))?;
    }
    let write = write.into_iter().map(|path| ("--write", path));
    let hide = home.hidden_from_the_runner().into_iter();
    let hide = hide.map(|path| ("--hide", path));
    let options = write.chain(hide);
    Ok(options
        .flat_map(|(option, path)| [OsString::from(option), path.into()])
        .collect())
}

/// The agent of a session.
pub(super) fn agent(programs: &Path, peer: Peer) -> Plan {
    Plan {
        name: "bulkhead-agent",
        path: programs.join("bulkhead-agent"),
        arguments: Vec::new(),
        peer,
        links: vec![Peer::Gateway, Peer::Egress],
        listeners: Vec::new(),
        config: told(&NoConfig {}),
        stop_round: 1,
    }
}

/// Where the programs are: beside this one.
pub(super) fn programs_folder() -> Result<PathBuf, StartError> {
    let own = std::env::current_exe().map_err(StartError::system("find the programs"))?;
    Ok(own.parent().map(Path::to_owned).unwrap_or(own))
}

/// The id of one of the channels that are known here.
pub(super) fn channel(name: &'static str) -> ChannelId {
    ChannelId::parse(name).expect("the names of the channels have only letters")
}

fn egress(config: &Config) -> EgressConfig {
    let telegram = config.telegram.iter().map(|telegram| TunnelRule {
        channel: channel("telegram"),
        host: telegram.api.host.clone(),
        port: telegram.api.port,
    });
    EgressConfig {
        model: config.route.clone(),
        tunnels: telegram.collect(),
        rules: config.rules.egress.clone(),
        extra_roots: config.extra_roots.clone(),
    }
}

fn gateway(home: &Home, config: &Config) -> Result<GatewayConfig, StartError> {
    let mut names = vec![OPERATOR, TERMINAL];
    names.extend(config.web.is_some().then_some("web"));
    names.extend(config.telegram.is_some().then_some("telegram"));
    let mut channels = Vec::new();
    for name in names {
        let id = channel(name);
        let public = read_public(home, &id)?;
        channels.push((id, public));
    }
    Ok(GatewayConfig {
        channels,
        model: config.model.clone(),
        workspace: config.workspace.clone(),
        approval_seconds: config.approval_seconds,
        max_rounds: config.max_rounds,
        agent_idle_seconds: config.agent_idle_seconds,
        limits: config.limits.clone(),
        backend: config.backend,
        web_origin: config
            .web
            .as_ref()
            .map(|web| format!("http://{RP_ID}:{}", web.port)),
        rules: config.rules.clone(),
        panic_word: config.panic_word.clone(),
    })
}

/// The configurations of the programs have different types; here they are only passed on.
pub(super) fn told<T: Serialize>(config: &T) -> serde_json::Value {
    // Plain structs of texts, numbers and lists always have a JSON form.
    serde_json::to_value(config).expect("a configuration has a JSON form")
}
