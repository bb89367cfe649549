//! `bulkhead ask`: one turn.

use clap::Args;
use config::Home;
use protocol::ids::SessionId;

use crate::conversation::{Conversation, Display, Outcome, Wait};
use crate::fault::Fault;
use crate::output;
use crate::terminal::{dim, harmless};

/// What can be said with `ask`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to ask.
    text: String,
    /// Go on with this session instead of beginning a new one.
    #[arg(long)]
    session: Option<SessionId>,
    /// Print what came of it as one line of JSON, at the end.
    #[arg(long)]
    json: bool,
    /// With --json: do not wait for answers to questions; print them and leave.
    #[arg(long, requires = "json")]
    no_wait: bool,
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    let mut conversation = Conversation::open(home, arguments.session.as_ref())?;
    let display = if arguments.json {
        Display::Nothing
    } else {
        Display::Live
    };
    let wait = if arguments.no_wait {
        Wait::ForQuestion
    } else {
        Wait::ForEnd
    };
    let outcome = conversation.turn(&arguments.text, display, wait)?;
    if arguments.json {
        output::json(&outcome)?;
    } else {
        footnote(&outcome);
    }
    match outcome.error {
        None => Ok(()),
        Some(_) if arguments.json => Err(Fault::Said),
        Some(error) => Err(Fault::Refused(harmless(&error).into_owned())),
    }
}

/// How to go on, for somebody who watches.
fn footnote(outcome: &Outcome) {
    use std::io::IsTerminal as _;
    if let (true, Some(session)) = (std::io::stderr().is_terminal(), &outcome.session) {
        eprintln!(
            "{}",
            dim(&format!(
                "session {session}; go on with --session {session}"
            ))
        );
    }
}
