//! The gateway as the owner's commands speak to it, without what they check themselves.

use config::{Home, OPERATOR, TERMINAL, read_key};
use protocol::channel::{ChannelEvent, ChannelRequest};
use protocol::frame::Link;
use protocol::identity::IdentityKey;
use protocol::ids::ChannelId;
use protocol::operator::{OperatorReply, OperatorRequest};

use crate::system::System;

/// A link on which requests are answered.
pub fn operator(system: &System) -> Link<OperatorRequest, OperatorReply> {
    Link::new(proven(system, OPERATOR).into_stream())
}

/// A terminal: a channel whose program may do anything but read the operator key.
pub fn terminal(system: &System) -> Link<ChannelRequest, ChannelEvent> {
    proven(system, TERMINAL)
}

/// The operator key.
pub fn operator_key(system: &System) -> IdentityKey {
    key(system, OPERATOR)
}

fn proven(system: &System, name: &str) -> Link<ChannelRequest, ChannelEvent> {
    let home = Home::at(system.home()).expect("a home");
    let link: Link<ChannelRequest, ChannelEvent> =
        Link::new(home.connect("operator.sock").expect("it listens"));
    let channel = ChannelId::parse(name).expect("a name");
    let Ok(ChannelEvent::Challenge { nonce }) = link.receive() else {
        panic!("no challenge")
    };
    let signature = key(system, name).prove(&channel, nonce);
    link.send(&ChannelRequest::Prove { channel, signature })
        .expect("it is sent");
    assert_eq!(link.receive().expect("an answer"), ChannelEvent::Welcome);
    link
}

fn key(system: &System, name: &str) -> IdentityKey {
    let home = Home::at(system.home()).expect("a home");
    read_key(&home, &ChannelId::parse(name).expect("a name")).expect("the key")
}
