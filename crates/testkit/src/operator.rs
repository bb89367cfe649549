//! The gateway as the owner's commands speak to it, without what they check themselves.

use config::{Home, OPERATOR, read_key};
use protocol::channel::{ChannelEvent, ChannelRequest};
use protocol::frame::Link;
use protocol::ids::ChannelId;
use protocol::operator::{OperatorReply, OperatorRequest};

use crate::system::System;

/// A link on which requests are answered.
pub fn operator(system: &System) -> Link<OperatorRequest, OperatorReply> {
    let home = Home::at(system.home()).expect("a home");
    let link: Link<ChannelRequest, ChannelEvent> =
        Link::new(home.connect("operator.sock").expect("it listens"));
    let channel = ChannelId::parse(OPERATOR).expect("a name");
    let Ok(ChannelEvent::Challenge { nonce }) = link.receive() else {
        panic!("no challenge")
    };
    let key = read_key(&home, &channel).expect("the key");
    let signature = key.prove(&channel, nonce);
    link.send(&ChannelRequest::Prove { channel, signature })
        .expect("it is sent");
    assert_eq!(link.receive().expect("an answer"), ChannelEvent::Welcome);
    Link::new(link.into_stream())
}
