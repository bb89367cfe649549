//! `bulkhead egress`: what may go out, without a server.

mod check;
mod scan;

use clap::{Args, Subcommand};
use config::Home;

use crate::fault::Fault;

/// What can be said with `egress`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Read requests from standard input, one JSON object a line, and say whether each may go out. Nothing is sent.
    Check(check::Check),
    /// Read texts from standard input, one JSON object a line, and say where secrets and links that carry data out are in each.
    Scan(scan::Scan),
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    match &arguments.action {
        What::Check(check) => check::run(check, home),
        What::Scan(scan) => scan::run(scan, home),
    }
}
