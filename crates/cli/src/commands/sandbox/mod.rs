//! `bulkhead sandbox`: boxes, without a server.

mod exec;
mod probe;

use clap::{Args, Subcommand, ValueEnum};
use config::Home;
use protocol::runner::Backend;

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

/// The kinds of boxes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Made of namespaces by Bulkhead itself.
    Native,
    /// A container of the Docker engine.
    Docker,
    /// A container of Podman.
    Podman,
    /// A container of the Docker engine on gVisor's kernel.
    Gvisor,
}

impl From<Kind> for Backend {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Native => Self::Native,
            Kind::Docker => Self::Docker,
            Kind::Podman => Self::Podman,
            Kind::Gvisor => Self::Gvisor,
        }
    }
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    match &arguments.action {
        What::Exec(exec) => exec::run(exec, home),
        What::Probe(attack) => probe::run(attack, home),
    }
}
