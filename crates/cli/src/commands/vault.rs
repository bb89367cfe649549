//! `bulkhead vault`: secrets. A value is typed without being shown, or comes from a file or
//! a pipe; never from the command line, which every process of this machine can read.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use config::Home;
use protocol::ids::SecretName;
use protocol::vault::{NewDate, SecretEntry, SecretText, Subject, Terms};
use serde_json::json;

use crate::fault::Fault;
use crate::vault_link::VaultLink;
use crate::{cards, output, terminal};

/// What can be said with `vault`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON, one secret a line (without its value).
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Keep a new secret.
    Add {
        /// A name not yet taken.
        name: SecretName,
        /// Who may use it: `model`, `tool` or `channel:NAME`.
        #[arg(long = "for", value_name = "SUBJECT")]
        subject: Subject,
        #[command(flatten)]
        value: Value,
    },
    /// The names, who may use them, and when they were used last.
    List,
    /// Replace the value of a secret.
    Rotate {
        /// Its name.
        name: SecretName,
        #[command(flatten)]
        value: Value,
    },
    /// Forget a secret.
    Remove {
        /// Its name.
        name: SecretName,
    },
}

/// Where a value comes from.
#[derive(Debug, Args)]
pub(crate) struct Value {
    /// Read the value from this file instead of standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(crate) fn run(arguments: Arguments, home: &Home) -> Result<(), Fault> {
    let json = arguments.json;
    match arguments.action.unwrap_or(Action::List) {
        Action::Add {
            name,
            subject,
            value,
        } => {
            let value = secret(
                value.file.as_deref(),
                &format!("Value of {name} (not shown): "),
            )?;
            let facts = json!({ "done": "kept", "name": name });
            VaultLink::open(home)?
                .ask(|vault| vault.add(name, subject, Terms::default(), value))?;
            output::done(json, "kept", &facts)
        }
        Action::List => list(home, json),
        Action::Rotate { name, value } => {
            let question = format!("New value of {name} (not shown): ");
            let value = secret(value.file.as_deref(), &question)?;
            let facts = json!({ "done": "rotated", "name": name });
            VaultLink::open(home)?
                .ask(|vault| vault.rotate(name, value, NewDate::SameSpan, NewDate::SameSpan))?;
            let words = "rotated; programs use the new value the next time they open it";
            output::done(json, words, &facts)
        }
        Action::Remove { name } => {
            let facts = json!({ "done": "removed", "name": name });
            VaultLink::open(home)?.ask(|vault| vault.remove(name))?;
            output::done(json, "removed", &facts)
        }
    }
}

/// Takes a secret from the file, from a person, or from a pipe.
pub(crate) fn secret(file: Option<&Path>, question: &str) -> Result<SecretText, Fault> {
    match file {
        Some(path) => {
            let file = File::open(path).map_err(Fault::io(format!("read {path:?}")))?;
            terminal::read_secret(file)
        }
        None if io::stdin().is_terminal() => terminal::ask_secret(question),
        None => terminal::read_secret(io::stdin()),
    }
}

fn list(home: &Home, json: bool) -> Result<(), Fault> {
    let entries = VaultLink::open(home)?.ask(|vault| vault.list())?;
    if json {
        return entries.iter().try_for_each(output::json);
    }
    if entries.is_empty() {
        return output::line("the vault is empty");
    }
    let rows: Vec<_> = entries.iter().map(row).collect();
    output::table(["NAME", "FOR", "CREATED", "LAST USED"], &rows)
}

fn row(entry: &SecretEntry) -> [String; 4] {
    [
        entry.name.to_string(),
        entry.subject.to_string(),
        cards::shown(entry.created),
        entry.last_used.map_or("never".to_owned(), cards::shown),
    ]
}
