//! `bulkhead bench`: what the line costs on this machine.

use std::path::PathBuf;

use clap::Args;

use crate::bench::{self, Extent, Form, Targets};
use crate::fault::Fault;

/// What can be said with `bench`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
    /// Measure little: whether it works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Fail if a figure misses its target.
    #[arg(long)]
    check: bool,
    /// Measure in this folder, so on its disk, instead of TMPDIR or /var/tmp.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Fault> {
    let form = if arguments.json {
        Form::Json
    } else {
        Form::Text
    };
    let extent = if arguments.quick {
        Extent::QUICK
    } else {
        Extent::FULL
    };
    let targets = if arguments.check {
        Targets::Demand
    } else {
        Targets::Show
    };
    let folder = arguments.folder.as_deref().map(std::path::absolute);
    let folder = folder.transpose().map_err(Fault::io("find the folder"))?;
    bench::run(form, extent, targets, folder.as_deref())
}
