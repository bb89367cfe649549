//! `bulkhead login`: a new one-time link to the web page.

use config::Home;
use protocol::operator::{OperatorReply, OperatorRequest};

use crate::connect::Operator;
use crate::fault::Fault;
use crate::output;

pub(crate) fn run(home: &Home) -> Result<(), Fault> {
    output::line(link(&Operator::connect(home)?)?)
}

/// A new link from a running gateway.
pub(crate) fn link(operator: &Operator) -> Result<String, Fault> {
    match operator.ask(&OperatorRequest::LoginLink)? {
        OperatorReply::LoginLink { url } => Ok(url),
        _ => Err(Fault::Unexpected("the gateway")),
    }
}
