//! What people type.
//!
//! `bulkhead` holds no authority of its own beyond the files of the person who runs it: it
//! proves itself with the operator's or the terminal's key and asks the programs that do
//! the work. What it prints from models and platforms is made harmless for a terminal
//! first ([`terminal`]).
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage.

mod bench;
mod blast;
mod cards;
mod checks;
mod commands;
mod config_text;
mod connect;
mod conversation;
mod dates;
mod demo;
mod events;
mod fault;
mod folder;
mod frozen;
mod habits;
mod http;
mod interrupt;
mod keyring;
mod lines;
mod model_server;
mod output;
mod programs;
mod scratch;
mod secrets;
mod terminal;
mod vault_link;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use config::Home;

use commands::{Command, Context};
use fault::Fault;

/// Bulkhead: an AI agent on this machine, behind walls that hold when the model is turned
/// against you.
#[derive(Debug, Parser)]
#[command(name = "bulkhead", version, max_term_width = 100)]
struct Cli {
    /// Where everything lives; otherwise BULKHEAD_HOME, ~/.bulkhead, or the XDG folders.
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

/// Runs the command that was typed.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let done = context(cli.home).and_then(|context| cli.command.run(&context));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => fault.report(),
    }
}

fn context(chosen: Option<PathBuf>) -> Result<Context, Fault> {
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).map_err(Fault::io(format!("find the folder {path:?}")))
    };
    let chosen = chosen.map(absolute).transpose()?;
    let home = Home::find(chosen.as_deref(), |name| std::env::var_os(name))?;
    Ok(Context { home, chosen })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(line.split_whitespace()).is_ok()
    }

    #[test]
    fn the_definitions_of_all_commands_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_stable_command_forms_are_understood() {
        for line in [
            "bulkhead up",
            "bulkhead up --detach",
            "bulkhead down",
            "bulkhead panic",
            "bulkhead panic --reason odd --json",
            "bulkhead resume --json",
            "bulkhead status --json",
            "bulkhead login",
            "bulkhead login --json",
            "bulkhead setup --model-url http://127.0.0.1:11434 --model m --api ollama --tool-calls native",
            "bulkhead setup --list",
            "bulkhead doctor --json",
            "bulkhead ask hello --json --no-wait",
            "bulkhead ask --session s-1 hello",
            "bulkhead chat --session s-1",
            "bulkhead channel add telegram --token-file t",
            "bulkhead channel list --json",
            "bulkhead channel remove telegram",
            "bulkhead pair list",
            "bulkhead pair approve ABC --as owner",
            "bulkhead pair revoke telegram 77",
            "bulkhead approvals",
            "bulkhead approvals --json",
            "bulkhead approvals show 0011223344556677",
            "bulkhead approvals approve 0011223344556677 --confirm-digest 0011223344556677",
            "bulkhead approvals deny 0011223344556677",
            "bulkhead approvals deny 0011223344556677 --reason later",
            "bulkhead approvals watch",
            "bulkhead passkey",
            "bulkhead passkey add laptop",
            "bulkhead passkey list --json",
            "bulkhead passkey remove 1",
            "bulkhead grants",
            "bulkhead grants revoke 3",
            "bulkhead grants revoke 3 --json",
            "bulkhead grants advise --json",
            "bulkhead approvals stats --json",
            "bulkhead vault add name --for channel:telegram --file f",
            "bulkhead vault list --json",
            "bulkhead vault rotate name",
            "bulkhead vault remove name",
            "bulkhead audit log --session s --last 5 --json",
            "bulkhead audit show 7",
            "bulkhead audit verify --db a --key b --json",
            "bulkhead undo",
            "bulkhead undo --list --json",
            "bulkhead undo s-1/3 --diff --yes --force --json",
            "bulkhead undo 3",
            "bulkhead undo entry:7",
            "bulkhead policy explain --json",
            "bulkhead policy check",
            "bulkhead policy check --json",
            "bulkhead egress scan --json",
            "bulkhead egress scan --allow docs.rs",
            "bulkhead sandbox exec --json --workspace /tmp -- ls -l",
            "bulkhead sandbox exec -- ls --json",
            "bulkhead sandbox probe",
            "bulkhead sandbox probe --json --backend docker",
            "bulkhead bench --json --quick --check --folder /tmp",
            "bulkhead bench --boxes --docker-socket /tmp/engine.sock",
            "bulkhead blast-radius",
            "bulkhead blast-radius --json",
            "bulkhead demo",
            "bulkhead demo --json --keep",
            "bulkhead --home /x status",
            "bulkhead status --home /x",
        ] {
            assert!(parses(line), "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "bulkhead",
            "bulkhead ask",
            "bulkhead ask hello --yes",
            "bulkhead approvals approve nonsense",
            "bulkhead vault add name",
            "bulkhead vault add name secret --for model",
            "bulkhead audit show minus",
            "bulkhead passkey remove laptop",
            "bulkhead channel add irc",
            "bulkhead undo --list --yes",
            "bulkhead undo yesterday",
            "bulkhead sandbox exec",
            "bulkhead sandbox exec --backend host -- ls",
            "bulkhead sandbox probe --backend host",
        ] {
            assert!(!parses(line), "{line}");
        }
    }
}
