//! `bulkhead doctor`: is this machine fit, and is this installation sound?

use clap::Args;
use config::Home;

use crate::checks::{self, Check, Status};
use crate::fault::Fault;
use crate::output;
use crate::terminal::harmless_line;

/// What can be said with `doctor`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print one JSON list.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    let checks = checks::all(home);
    if arguments.json {
        output::json(&checks)?;
    } else {
        checks.iter().try_for_each(print)?;
    }
    match checks.iter().any(|check| check.status == Status::Fail) {
        true => Err(Fault::Said),
        false => Ok(()),
    }
}

fn print(check: &Check) -> Result<(), Fault> {
    let word = match check.status {
        Status::Ok => "ok  ",
        Status::Warn => "WARN",
        Status::Fail => "FAIL",
    };
    output::line(format!(
        "{word}  {:<12}  {}",
        check.check,
        harmless_line(&check.detail)
    ))?;
    if !check.fix.is_empty() {
        output::line(format!(
            "      {:<12}  to do: {}",
            "",
            harmless_line(&check.fix)
        ))?;
    }
    Ok(())
}
