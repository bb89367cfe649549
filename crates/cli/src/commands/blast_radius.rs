//! `bulkhead blast-radius`: what each program reaches when somebody else's code runs in it.

use clap::Args;

use crate::blast::{self, Form};
use crate::fault::Fault;

/// What can be said with `blast-radius`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print one line of JSON: a list with one entry for each program and thing to lose.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Fault> {
    blast::run(match arguments.json {
        true => Form::Json,
        false => Form::Text,
    })
}
