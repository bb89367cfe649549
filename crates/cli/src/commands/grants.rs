//! `bulkhead grants`: remembered approvals.

use clap::{Args, Subcommand};
use config::Home;
use protocol::operator::{OperatorReply, OperatorRequest};
use protocol::time::Millis;
use serde_json::json;

use super::audit::habits;
use crate::connect::Operator;
use crate::fault::Fault;
use crate::habits::{Missing, Unneeded};
use crate::terminal::harmless_line;
use crate::{cards, output};

/// As long as a grant lasts, in days.
const MONTH: u32 = 30;

/// What can be said with `grants`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON, one grant a line.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Those in force.
    List,
    /// Take one back; from then on it is asked again.
    Revoke {
        /// Its number in the list.
        grant: u64,
    },
    /// Which of them nobody uses; read from the record.
    Advise,
}

pub(crate) fn run(arguments: Arguments, home: &Home) -> Result<(), Fault> {
    let json = arguments.json;
    match arguments.action.unwrap_or(Action::List) {
        // From the record, which is there also when no program runs.
        Action::Advise => {
            let habits = habits(home, MONTH)?;
            advise(&habits.unneeded(Millis::now()), &habits.missing(), json)
        }
        Action::List => list(&Operator::connect(home)?, json),
        Action::Revoke { grant } => {
            Operator::connect(home)?.tell(&OperatorRequest::GrantRevoke { grant })?;
            let facts = json!({ "done": "revoked", "grant": grant });
            output::done(json, "revoked", &facts)
        }
    }
}

fn advise(unneeded: &[Unneeded], missing: &[Missing], json: bool) -> Result<(), Fault> {
    if json {
        unneeded.iter().try_for_each(output::json)?;
        return missing.iter().try_for_each(output::json);
    }
    for rule in missing {
        output::line(format!(
            "{} questions in {MONTH} days, all answered with yes, would be spared by allow = [{:?}] under [policy]; it covers {} calls of these days",
            rule.approved, rule.allow, rule.calls
        ))?;
    }
    if unneeded.is_empty() {
        return output::line("every remembered answer is used, or younger than a week");
    }
    let rows: Vec<_> = unneeded
        .iter()
        .map(|grant| {
            [
                grant.principal.clone(),
                harmless_line(&grant.key).into_owned(),
                cards::shown(grant.made),
            ]
        })
        .collect();
    output::table(["PRINCIPAL", "CALLS", "GIVEN"], &rows)?;
    output::line(
        "nobody used these; see `bulkhead grants list`, then `bulkhead grants revoke GRANT`",
    )
}

fn list(operator: &Operator, json: bool) -> Result<(), Fault> {
    let OperatorReply::Grants { grants } = operator.ask(&OperatorRequest::Grants)? else {
        return Err(Fault::Unexpected("the gateway"));
    };
    if json {
        return grants.iter().try_for_each(output::json);
    }
    if grants.is_empty() {
        return output::line("no approval is remembered");
    }
    let now = Millis::now();
    let rows: Vec<_> = grants
        .iter()
        .map(|grant| {
            [
                grant.grant.to_string(),
                grant.principal.to_string(),
                grant.channel.to_string(),
                harmless_line(&grant.key).into_owned(),
                cards::until(grant.expires, now),
            ]
        })
        .collect();
    output::table(["GRANT", "PRINCIPAL", "CHANNEL", "CALLS", "EXPIRES"], &rows)
}
