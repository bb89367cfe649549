//! Why a command did not do what was asked: what, why, and what to do.

use std::io;
use std::process::ExitCode;

use config::{ConfigError, HomeError, KeyError};
use protocol::frame::LinkError;
use protocol::ids::NoRandom;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// What was typed cannot be carried out by anybody.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Rules(#[from] policy::BadRules),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// Nobody listens on its socket.
    #[error("Bulkhead is not running; start it with `bulkhead up`")]
    NotUp,
    /// The link to a program broke.
    #[error("the link to {program}: {error}. `bulkhead status` shows what runs")]
    Link {
        /// Which program.
        program: &'static str,
        /// How.
        error: LinkError,
    },
    /// A program answered another question than the one that was asked.
    #[error(
        "{0} gave an answer that does not belong to the question; \
         are all programs of the same version? `bulkhead down` and `bulkhead up` start them anew"
    )]
    Unexpected(&'static str),
    /// A program said no; its words.
    #[error("{0}")]
    Refused(String),
    /// A file, a terminal or a process.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's words.
        error: io::Error,
    },
    /// Bulkhead was started, and what was to open its vault did not.
    #[error(
        "Bulkhead runs with a locked vault: what needs a secret waits. Look at what `--passphrase-file` names, then \
         `bulkhead vault unlock`"
    )]
    VaultLocked,
    /// Everything is said already, on standard output.
    #[error("failed")]
    Said,
    /// Whoever read standard output has enough.
    #[error("standard output is closed")]
    OutputClosed,
}

impl Fault {
    /// For `map_err`: what was tried when the system said no.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }

    /// For `map_err`: whose link broke.
    pub(crate) fn link(program: &'static str) -> impl FnOnce(LinkError) -> Self {
        move |error| Self::Link { program, error }
    }

    /// Prints it and gives its exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::OutputClosed => return ExitCode::SUCCESS,
            Self::Said => return ExitCode::from(1),
            Self::Usage(_) => {
                eprintln!("bulkhead: {self}");
                return ExitCode::from(2);
            }
            Self::VaultLocked => {
                eprintln!("bulkhead: {self}");
                return ExitCode::from(3);
            }
            Self::Home(_)
            | Self::Rules(_)
            | Self::Config(_)
            | Self::Key(_)
            | Self::NoRandom(_)
            | Self::NotUp
            | Self::Link { .. }
            | Self::Unexpected(_)
            | Self::Refused(_)
            | Self::Io { .. } => {}
        }
        eprintln!("bulkhead: {self}");
        ExitCode::from(1)
    }
}
