//! `bulkhead passkey`: what signs your yes on the web page.

use clap::{Args, Subcommand};
use config::Home;
use protocol::operator::{OperatorReply, OperatorRequest};
use protocol::passkey::Enrolled;
use serde_json::json;

use crate::connect::Operator;
use crate::fault::Fault;
use crate::terminal::harmless_line;
use crate::{cards, output};

/// What can be said with `passkey`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON, one passkey a line.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The passkeys that are enrolled.
    List,
    /// Print a one-time link; open it in a browser that is logged in, to enrol a passkey there.
    Add {
        /// What to call it.
        #[arg(default_value = "passkey")]
        name: String,
    },
    /// Forget a passkey: what it signs counts for nothing.
    Remove {
        /// Its number in the list.
        passkey: u64,
    },
}

pub(crate) fn run(arguments: Arguments, home: &Home) -> Result<(), Fault> {
    let operator = Operator::connect(home)?;
    match arguments.action.unwrap_or(Action::List) {
        Action::List => list(&operator, arguments.json),
        Action::Add { name } => match operator.ask(&OperatorRequest::PasskeyLink { name })? {
            OperatorReply::PasskeyLink { url } => {
                eprintln!(
                    "Open this within ten minutes in a browser that is logged in (`bulkhead login`):"
                );
                output::done(arguments.json, &url, &json!({ "url": url }))
            }
            _ => Err(Fault::Unexpected("the gateway")),
        },
        Action::Remove { passkey } => {
            operator.tell(&OperatorRequest::PasskeyRemove { passkey })?;
            let facts = json!({ "done": "removed", "passkey": passkey });
            output::done(arguments.json, "removed", &facts)
        }
    }
}

fn list(operator: &Operator, json: bool) -> Result<(), Fault> {
    let OperatorReply::Passkeys { passkeys } = operator.ask(&OperatorRequest::Passkeys)? else {
        return Err(Fault::Unexpected("the gateway"));
    };
    if json {
        return passkeys.iter().try_for_each(output::json);
    }
    if passkeys.is_empty() {
        return output::line(
            "no passkey is enrolled; `bulkhead passkey add` prints a link for one",
        );
    }
    let rows: Vec<_> = passkeys.iter().map(row).collect();
    output::table(["PASSKEY", "NAME", "OF", "SINCE", "ID (SHA-256)"], &rows)
}

fn row(passkey: &Enrolled) -> [String; 5] {
    [
        passkey.passkey.to_string(),
        harmless_line(&passkey.name).into_owned(),
        passkey.principal.to_string(),
        cards::shown(passkey.since),
        passkey.credential.to_string(),
    ]
}
