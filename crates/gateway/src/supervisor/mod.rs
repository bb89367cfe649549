//! The supervisor: a table of programs, a table of links between them, and one loop.

mod backoff;
mod child;
mod freeze;
mod plan;
mod requests;
mod resume;
mod rules;
mod run;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use config::{Config, ConfigError, Home, HomeError, KeyError, OPERATOR, read_public};
use sandbox::{ConfineError, Files, Program, confine};

/// Why the supervisor cannot start anything.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its own confinement failed.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// No home.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// No usable configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No usable rules.
    #[error("{0}")]
    Rules(String),
    /// A channel has no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Another supervisor runs with this home.
    #[error("Bulkhead already runs with this home; see `bulkhead status`")]
    AlreadyRuns,
    /// The port of the web page is taken.
    #[error(
        "cannot listen on port {port} of 127.0.0.1 and ::1: {error}. Choose another `port` under [channel.web] in bulkhead.toml, or stop what uses it"
    )]
    Port {
        /// Which.
        port: u16,
        /// The system's words.
        error: std::io::Error,
    },
    /// Something the system did not do.
    #[error("cannot {doing}: {error}")]
    System {
        /// What was tried.
        doing: String,
        /// The system's words.
        error: std::io::Error,
    },
    /// The arguments make no sense.
    #[error("usage: bulkhead-supervisor [--home DIR]")]
    Usage,
}

impl StartError {
    fn system(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::System {
            doing: doing.into(),
            error,
        }
    }
}

/// Confines itself, reads the configuration, and runs until it is told to stop.
pub fn main() -> ExitCode {
    match start(std::env::args_os().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            protocol::log!("bulkhead-supervisor: {error}");
            ExitCode::from(if matches!(error, StartError::Usage) {
                2
            } else {
                1
            })
        }
    }
}

fn start(arguments: Vec<OsString>) -> Result<(), StartError> {
    // Every later thread inherits the mask, so that only the one that waits gets the signals.
    sandbox::signals::block_stop_signals().map_err(StartError::system("block signals"))?;
    // As root this takes privileges that are given up in the next line.
    let groups = sandbox::prepare_cgroups();
    confine(Program::Supervisor, &Files::default())?;
    let chosen = match arguments.as_slice() {
        [] => None,
        [flag, folder] if flag == "--home" => Some(PathBuf::from(folder)),
        _ => return Err(StartError::Usage),
    };
    let home = Home::find(chosen.as_deref(), |name| std::env::var_os(name))?;
    home.create()?;
    // Before it is read: what is changed from here on is looked at again.
    let stamp = watch::stamp(&home);
    let config = Config::load(&home)?;
    let checker = rules::Checker::beside(&plan::programs_folder()?);
    checker.check(&config.rules).map_err(StartError::Rules)?;
    let sockets = plan::Sockets::open(&home, &config)?;
    let plans = plan::plans(&home, &config, &sockets, &groups)?;
    let operator = read_public(&home, &plan::channel(OPERATOR))?;
    let switch = freeze::Switch::new(&home);
    if let Err(error) = switch.reserve() {
        protocol::log!("bulkhead-supervisor: no room is kept for the mark of a freeze: {error}");
    }
    let watch = watch::Watch::new(home, config, stamp);
    run::Supervisor::new(plans, watch, checker, switch, operator)?.run(sockets.supervisor)
}
