//! `bulkhead policy`: what the rules say, without a server.

use clap::{Args, Subcommand};
use config::{Config, Home};

use crate::fault::Fault;
use crate::output;

/// What can be said with `policy`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Whether bulkhead.toml is sound.
    Check,
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    match arguments.action {
        Action::Check => {
            Config::load(home)?;
            output::line(format!("{:?} is sound", home.config_file()))
        }
    }
}
