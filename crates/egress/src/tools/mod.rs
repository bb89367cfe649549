//! What tools ask of hosts: the gateway's link, and requests that egress makes itself.

pub(crate) mod attempt;
mod exchange;
pub(crate) mod fetch;
pub(crate) mod link;
pub(crate) mod oauth;
mod returned;
