//! A vault as far as egress sees it.

use std::thread;

use protocol::control::Peer;
use protocol::frame::Link;
use protocol::vault::{VaultReply, VaultRequest};

use crate::support::Egress;

/// What it holds.
pub(crate) struct Secret {}

pub(crate) fn vault(egress: &Egress, _secrets: Vec<Secret>) {
    let link = Link::<VaultReply, VaultRequest>::new(egress.link(Peer::Vault));
    thread::spawn(move || while let Ok(_request) = link.receive() {});
}
