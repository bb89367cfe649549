//! `bulkhead sandbox`: boxes, without a server.

mod exec;
mod probe;

use clap::{Args, Subcommand};
use config::Home;

use crate::fault::Fault;

/// What can be said with `sandbox`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run a command in a fresh box, without a shell.
    Exec(exec::Exec),
    /// Attack a box on this machine from inside, harmlessly, and tell what held.
    Probe(probe::Attack),
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    match &arguments.action {
        What::Exec(exec) => exec::run(exec, home),
        What::Probe(attack) => probe::run(attack, home),
    }
}
