//! `bulkhead sandbox exec`: one command in a fresh box, as tools run. No server is needed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use config::{Config, ConfigError, Home};
use protocol::call::Action;
use protocol::runner::{Limits, Receipt, RunEnd, RunOutcome};
use protocol::workspace::LayerFolders;
use sandbox::run::{RunSpec, run_once};
use serde::Serialize;

use crate::fault::Fault;
use crate::folder::{Change, Snapshot, Temporary};
use crate::terminal::harmless;
use crate::{output, programs};

/// What can be said with `sandbox`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run a command in a fresh box, without a shell.
    Exec(Exec),
}

#[derive(Debug, Args)]
struct Exec {
    /// Print one line of JSON: how it ended, its output, the receipt, what it changed.
    #[arg(long)]
    json: bool,
    /// Which kind of box. One that is not to be had is never replaced by another.
    #[arg(long, default_value = "native")]
    backend: Backend,
    /// The folder it works in; otherwise that of the configuration, or an empty one.
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// Seconds until it is killed.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    timeout: Option<u32>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// The kinds of boxes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Backend {
    /// Made of namespaces by Bulkhead itself.
    Native,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Done<'a> {
    exit: Option<i32>,
    signal: Option<i32>,
    stdout: &'a str,
    stderr: &'a str,
    truncated: bool,
    timed_out: bool,
    duration_ms: u64,
    receipt: &'a Receipt,
    changes: &'a [Change],
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    let What::Exec(exec) = &arguments.action;
    match exec.backend {
        Backend::Native => native(exec, home),
    }
}

fn native(exec: &Exec, home: &Home) -> Result<(), Fault> {
    let place = Place::choose(exec, home)?;
    let looked_at = |error| Fault::io(format!("look at {:?}", place.workspace))(error);
    let before = Snapshot::take(&place.workspace).map_err(looked_at)?;
    let spec = RunSpec {
        action: Action::Argv {
            argv: exec.command.clone(),
        },
        limits: place.limits.clone(),
        workspace: place.workspace.clone(),
        layer: LayerFolders::Copy {
            folder: place.workspace.clone(),
        },
        tool_program: programs::path("bulkhead-tool")?,
    };
    let outcome = run_once(spec, &programs::path("bulkhead-sandbox")?)
        .map_err(|refused| Fault::Refused(format!("{}. {}", refused.reason, refused.fix)))?;
    let changes = before.changes(&Snapshot::take(&place.workspace).map_err(looked_at)?);
    match exec.json {
        true => output::json(&done(&outcome, &changes)),
        false => pass_on(&outcome),
    }
}

/// Where it works, and within which bounds.
struct Place {
    workspace: PathBuf,
    limits: Limits,
    /// Kept until the command is over.
    _empty: Option<Temporary>,
}

impl Place {
    fn choose(exec: &Exec, home: &Home) -> Result<Self, Fault> {
        let config = match Config::load(home) {
            Ok(config) => Some(config),
            Err(ConfigError::Missing(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let mut limits = config
            .as_ref()
            .map_or_else(Limits::default, |it| it.limits.clone());
        if let Some(seconds) = exec.timeout {
            limits.wall_seconds = seconds;
        }
        let named = exec
            .workspace
            .clone()
            .or(config.map(|config| config.workspace));
        let (workspace, empty) = match named {
            Some(folder) => {
                let found = folder.canonicalize();
                (
                    found.map_err(Fault::io(format!("open the workspace {folder:?}")))?,
                    None,
                )
            }
            None => {
                let empty = Temporary::create().map_err(Fault::io("make an empty workspace"))?;
                (empty.path().to_owned(), Some(empty))
            }
        };
        Ok(Self {
            workspace,
            limits,
            _empty: empty,
        })
    }
}

fn done<'a>(outcome: &'a RunOutcome, changes: &'a [Change]) -> Done<'a> {
    let (exit, signal) = match outcome.end {
        RunEnd::Exited { code } => (Some(code), None),
        RunEnd::Signalled { signal } => (None, Some(signal)),
        RunEnd::TimedOut | RunEnd::Killed => (None, None),
    };
    Done {
        exit,
        signal,
        stdout: &outcome.stdout,
        stderr: &outcome.stderr,
        truncated: outcome.truncated,
        timed_out: outcome.end == RunEnd::TimedOut,
        duration_ms: outcome.duration_ms,
        receipt: &outcome.receipt,
        changes,
    }
}

/// Its output as ours, made harmless; a command that failed is a failure.
fn pass_on(outcome: &RunOutcome) -> Result<(), Fault> {
    output::text(&harmless(&outcome.stdout))?;
    eprint!("{}", harmless(&outcome.stderr));
    let cut = if outcome.truncated {
        "; its output was cut"
    } else {
        ""
    };
    match outcome.end {
        RunEnd::Exited { code: 0 } if cut.is_empty() => Ok(()),
        RunEnd::Exited { code: 0 } => {
            eprintln!("bulkhead: the output was cut");
            Ok(())
        }
        RunEnd::Exited { code } => Err(Fault::Refused(format!(
            "it ended with exit code {code}{cut}"
        ))),
        RunEnd::Signalled { signal } => {
            Err(Fault::Refused(format!("signal {signal} ended it{cut}")))
        }
        RunEnd::TimedOut => Err(Fault::Refused(format!("its time was up{cut}"))),
        RunEnd::Killed => Err(Fault::Refused(format!("it was killed{cut}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(end: RunEnd) -> RunOutcome {
        RunOutcome {
            end,
            stdout: "o".to_owned(),
            stderr: String::new(),
            truncated: false,
            duration_ms: 3,
            receipt: Receipt::default(),
            changes: protocol::runner::Changes::default(),
        }
    }

    #[test]
    fn the_json_form_has_an_exit_code_or_a_signal_or_neither() {
        let form = |end| serde_json::to_value(done(&outcome(end), &[])).unwrap();
        let exited = form(RunEnd::Exited { code: 3 });
        assert_eq!(
            (&exited["exit"], &exited["signal"]),
            (&3.into(), &serde_json::Value::Null)
        );
        assert_eq!(form(RunEnd::Signalled { signal: 9 })["signal"], 9);
        let late = form(RunEnd::TimedOut);
        assert!(late["timed_out"] == true && late["exit"].is_null() && late["signal"].is_null());
        let keys: Vec<_> = late.as_object().unwrap().keys().cloned().collect();
        for key in [
            "stdout",
            "stderr",
            "truncated",
            "duration_ms",
            "receipt",
            "changes",
        ] {
            assert!(keys.iter().any(|have| have == key), "{key}");
        }
    }
}
