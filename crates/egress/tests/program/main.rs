//! The real `bulkhead-egress`, with the test as its supervisor, ledger, vault, agent, channel,
//! and as the servers that it reaches; all of them on loopback.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

mod carried;
mod faults;
mod fetch;
mod fetch_secrets;
mod links;
mod model;
mod secrets;
mod support;
mod tunnels;
mod vault;
mod world;
