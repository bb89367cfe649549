//! `bulkhead chat`: a conversation, line by line.

use std::io::IsTerminal as _;

use clap::Args;
use config::Home;
use protocol::ids::SessionId;

use crate::conversation::{Conversation, Display, Wait};
use crate::fault::Fault;
use crate::terminal::harmless;

/// What can be said with `chat`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Go on with this session instead of beginning a new one.
    #[arg(long)]
    session: Option<SessionId>,
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    let mut conversation = Conversation::open(home, arguments.session.as_ref())?;
    let prompt = if std::io::stdin().is_terminal() {
        "> "
    } else {
        ""
    };
    if !prompt.is_empty() {
        eprintln!("/new begins a new conversation, /quit or Ctrl-D ends, Ctrl-C stops an answer");
    }
    while let Some(line) = conversation.ask_line(prompt)? {
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            "/new" => conversation.renew()?,
            text => {
                let outcome = conversation.turn(text, Display::Live, Wait::ForEnd)?;
                if let Some(error) = outcome.error {
                    eprintln!("{}", harmless(&error));
                }
            }
        }
    }
    if !prompt.is_empty() {
        eprintln!();
    }
    Ok(())
}
