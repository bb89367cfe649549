//! `bulkhead pair`: who is known on which platform.

use clap::{Args, Subcommand};
use config::Home;
use protocol::ids::{ChannelId, PrincipalId, SenderId};
use protocol::operator::{OperatorReply, OperatorRequest, Pair, PairState};
use protocol::time::Millis;
use serde_json::json;

use crate::connect::Operator;
use crate::fault::Fault;
use crate::terminal::harmless_line;
use crate::{cards, output};

/// What can be said with `pair`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON, one sender a line.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Who is known, and who asked to be.
    List,
    /// Make the sender with this pairing code known. Only for people you trust with the agent.
    Approve {
        /// The code that they were shown.
        code: String,
        /// Who they are; by default yourself.
        #[arg(long = "as", value_name = "PRINCIPAL", default_value = "owner")]
        principal: PrincipalId,
    },
    /// Make a sender unknown again.
    Revoke {
        /// On which channel.
        channel: ChannelId,
        /// Who, in the platform's numbering, as `pair list` shows it.
        sender: SenderId,
    },
}

pub(crate) fn run(arguments: Arguments, home: &Home) -> Result<(), Fault> {
    let operator = Operator::connect(home)?;
    match arguments.action.unwrap_or(Action::List) {
        Action::List => list(&operator, arguments.json),
        Action::Approve { code, principal } => {
            operator.tell(&OperatorRequest::PairApprove {
                code: code.clone(),
                principal: principal.clone(),
            })?;
            let facts = json!({ "done": "paired", "code": code, "principal": principal });
            output::done(arguments.json, &format!("paired as {principal}"), &facts)
        }
        Action::Revoke { channel, sender } => {
            let facts = json!({ "done": "revoked", "channel": channel, "sender": sender });
            operator.tell(&OperatorRequest::PairRevoke { channel, sender })?;
            output::done(arguments.json, "revoked", &facts)
        }
    }
}

fn list(operator: &Operator, json: bool) -> Result<(), Fault> {
    let OperatorReply::Pairs { pairs } = operator.ask(&OperatorRequest::Pairs)? else {
        return Err(Fault::Unexpected("the gateway"));
    };
    if json {
        return pairs.iter().try_for_each(output::json);
    }
    if pairs.is_empty() {
        return output::line("nobody is paired; who writes to a bot of yours first gets a code");
    }
    let rows: Vec<_> = pairs.iter().map(row).collect();
    output::table(
        [
            "CHANNEL",
            "SENDER",
            "NAME (THEIR OWN WORDS)",
            "STATE",
            "SINCE",
        ],
        &rows,
    )
}

fn row(pair: &Pair) -> [String; 5] {
    let state = match &pair.state {
        PairState::Paired { principal } => format!("paired as {principal}"),
        PairState::Waiting { code, expires } => format!(
            "waits with code {}, expires {}",
            harmless_line(code),
            cards::until(*expires, Millis::now())
        ),
    };
    [
        pair.channel.to_string(),
        harmless_line(pair.sender.as_str()).into_owned(),
        harmless_line(&pair.sender_name).into_owned(),
        state,
        cards::shown(pair.since),
    ]
}
