//! `bulkhead login`: a new one-time link to the web page.

use clap::Args;
use config::Home;
use protocol::operator::{OperatorReply, OperatorRequest};
use serde_json::json;

use crate::connect::Operator;
use crate::fault::Fault;
use crate::output;

/// What can be said with `login`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    let url = link(&Operator::connect(home)?)?;
    output::done(arguments.json, &url, &json!({ "url": url }))
}

/// A new link from a running gateway.
pub(crate) fn link(operator: &Operator) -> Result<String, Fault> {
    match operator.ask(&OperatorRequest::LoginLink)? {
        OperatorReply::LoginLink { url } => Ok(url),
        _ => Err(Fault::Unexpected("the gateway")),
    }
}
