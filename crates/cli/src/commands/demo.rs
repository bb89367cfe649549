//! `bulkhead demo`: a hijacked model against the real programs.

use clap::Args;

use crate::demo::{self, Form};
use crate::fault::Fault;
use crate::scratch::Afterwards;

/// What can be said with `demo`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print one line of JSON at the end.
    #[arg(long)]
    json: bool,
    /// Leave the demo's folder behind, with its record.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Fault> {
    let form = if arguments.json {
        Form::Json
    } else {
        Form::Text
    };
    let afterwards = if arguments.keep {
        Afterwards::Keep
    } else {
        Afterwards::Remove
    };
    demo::run(form, afterwards)
}
