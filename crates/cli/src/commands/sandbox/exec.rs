//! `bulkhead sandbox exec`: one command in a fresh box, as tools run. No server is needed.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use config::{Config, ConfigError, Home, history_beside};
use protocol::call::Action;
use protocol::control::{BoxGroups, HistoryLimits, MemoryPolicy};
use protocol::engine::EngineConfig;
use protocol::runner::{Backend, Change, Fate, Limits, Receipt, RunEnd, RunOutcome};
use sandbox::boxes::{self, Boxes};
use sandbox::engine::Engines;
use sandbox::layers::Keeper;
use sandbox::run::{Job, Refused, Then};
use serde::Serialize;

use super::Kind;
use crate::fault::Fault;
use crate::folder::Temporary;
use crate::terminal::harmless;
use crate::{output, programs};

/// What can be said with `sandbox exec`.
#[derive(Debug, Args)]
pub(super) struct Exec {
    /// Print one line of JSON: how it ended, its output, the receipt, what it changed.
    #[arg(long)]
    json: bool,
    /// Which kind of box; otherwise that of the configuration. One that is not to be had is never replaced
    /// by another.
    #[arg(long)]
    backend: Option<Kind>,
    /// Where the container engine listens; otherwise as configured, or in the usual places.
    #[arg(long, value_name = "SOCKET")]
    engine_socket: Option<PathBuf>,
    /// What it changes is kept, as one step (the default).
    #[arg(long, conflicts_with = "discard")]
    keep: bool,
    /// What it changes is told and thrown away.
    #[arg(long)]
    discard: bool,
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
    /// How many more changes there are than are listed.
    more: u64,
    /// What became of the changes.
    #[serde(flatten)]
    fate: &'a Fate,
}

pub(super) fn run(exec: &Exec, home: &Home) -> Result<(), Fault> {
    let outcome = execute(exec, home)?;
    match exec.json {
        true => output::json(&done(&outcome)),
        false => pass_on(&outcome),
    }
}

fn execute(exec: &Exec, home: &Home) -> Result<RunOutcome, Fault> {
    let place = Place::choose(exec, home)?;
    let job = Job {
        action: Action::Argv {
            argv: exec.command.clone(),
        },
        limits: place.limits.clone(),
        then: match exec.discard {
            true => Then::Discard,
            false => Then::Keep {
                origin: None,
                git: protocol::workspace::GitFolders::Open,
            },
        },
    };
    let refused = |Refused { reason, fix }| Fault::Refused(format!("{reason}. {fix}"));
    let keeper = Keeper::start(
        &programs::path("bulkhead-workspace")?,
        &place.workspace,
        &place.history,
        place.keep,
    )
    .map_err(refused)?;
    let config = boxes::Config {
        program: programs::path("bulkhead-sandbox")?,
        tool_program: programs::path("bulkhead-tool")?,
        workspace: place.workspace.clone(),
        memory: place.memory,
        groups: BoxGroups::Own,
    };
    let outcome = match place.backend {
        Backend::Native => Boxes::start(config, keeper.layers())
            .and_then(|boxes| boxes.run(job))
            .map_err(refused),
        Backend::Docker | Backend::Podman | Backend::Gvisor => {
            let engines = Engines {
                program: programs::path("bulkhead-engine")?,
                config: EngineConfig {
                    backend: place.backend,
                    socket: place.engine_socket.clone(),
                    home: home.digest(),
                    sandbox_program: config.program,
                    tool_program: config.tool_program,
                    files: place.history.join("engine"),
                    memory: config.memory,
                },
                workspace: config.workspace,
                layers: keeper.layers(),
            };
            engines.run_killable(job, drop).map_err(refused)
        }
    };
    drop(keeper);
    place.leave();
    outcome
}

/// What becomes of the history of a workspace afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// It stays: `bulkhead undo` works with it.
    Stays,
    /// It goes: it only had to survive an interruption.
    Goes,
}

/// Where it works, and within which bounds.
struct Place {
    workspace: PathBuf,
    history: PathBuf,
    after: After,
    keep: HistoryLimits,
    limits: Limits,
    backend: Backend,
    engine_socket: Option<PathBuf>,
    memory: MemoryPolicy,
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
        let configured = config.as_ref().map(|it| it.workspace.clone());
        let named = exec.workspace.as_ref().or(configured.as_ref());
        let real = |folder: &Path| {
            folder
                .canonicalize()
                .map_err(Fault::io(format!("open the workspace {folder:?}")))
        };
        let (workspace, history, after, empty) = match named {
            Some(folder) => {
                let folder = real(folder)?;
                let own = configured.is_some_and(|it| real(&it).is_ok_and(|it| it == folder));
                let (history, after) = match own {
                    true => (home.history_of(&folder), After::Stays),
                    false => (history_of(&folder), After::Goes),
                };
                (folder, history, after, None)
            }
            None => {
                let empty = Temporary::create().map_err(Fault::io("make an empty workspace"))?;
                let (workspace, history) = (empty.path().join("w"), empty.path().join("h"));
                std::fs::create_dir(&workspace).map_err(Fault::io("make an empty workspace"))?;
                (workspace, history, After::Stays, Some(empty))
            }
        };
        Ok(Self {
            workspace,
            history,
            after,
            keep: config
                .as_ref()
                .map_or_else(HistoryLimits::default, |it| it.history),
            limits,
            backend: exec.backend.map_or_else(
                || config.as_ref().map(|it| it.backend).unwrap_or_default(),
                Into::into,
            ),
            engine_socket: exec
                .engine_socket
                .clone()
                .or_else(|| config.as_ref().and_then(|it| it.engine_socket.clone())),
            memory: config.map(|it| it.memory).unwrap_or_default(),
            _empty: empty,
        })
    }
}

impl Place {
    /// Removes what is of use to nobody any more.
    fn leave(&self) {
        match self.after {
            // What cannot be removed is in nobody's way, and is used again.
            After::Goes => drop(std::fs::remove_dir_all(&self.history)),
            After::Stays => {}
        }
    }
}

/// Where the layers of a folder are that no installation calls its workspace: beside it, so that an
/// interrupted step is found again, or, where nothing can be made there, among temporary files.
fn history_of(workspace: &Path) -> PathBuf {
    let beside = history_beside(workspace);
    match beside {
        Some(beside) if beside.is_dir() || made(&beside).is_ok() => beside,
        Some(beside) => std::env::temp_dir().join(beside.file_name().unwrap_or_default()),
        None => std::env::temp_dir().join(".bulkhead-root"),
    }
}

fn made(folder: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(folder)
}

fn done(outcome: &RunOutcome) -> Done<'_> {
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
        changes: &outcome.changes.list,
        more: outcome.changes.more,
        fate: &outcome.changes.fate,
    }
}

/// Its output as ours, made harmless; a command that failed is a failure.
fn pass_on(outcome: &RunOutcome) -> Result<(), Fault> {
    output::text(&harmless(&outcome.stdout))?;
    eprint!("{}", harmless(&outcome.stderr));
    match &outcome.changes.fate {
        Fate::Unchanged | Fate::Kept { .. } | Fate::Discarded => {}
        Fate::Conflict { paths } => {
            let paths = paths.join(", ");
            return Err(Fault::Refused(format!(
                "what it changed was not kept, since somebody else changed the same: {}",
                harmless(&paths)
            )));
        }
        Fate::ReadOnly { paths } => {
            let paths = paths.join(", ");
            return Err(Fault::Refused(format!(
                "what it changed was not kept, since bulkhead.toml keeps it read-only: {}",
                harmless(&paths)
            )));
        }
        Fate::Failed { reason, fix } => {
            let (reason, fix) = (harmless(reason), harmless(fix));
            return Err(Fault::Refused(format!(
                "what it changed was not kept: {reason}; {fix}"
            )));
        }
    }
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
        let form = |end| serde_json::to_value(done(&outcome(end))).unwrap();
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
