//! Channels' tunnels.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use protocol::control::{ControlEnd, Peer, TunnelRule};
use protocol::egress::{EgressFault, TunnelReply, TunnelRequest};
use protocol::event::Event;
use protocol::frame::LinkError;
use protocol::ids::ChannelId;

use crate::support::{
    Egress, Events, LIMIT, Server, closed_port, ledger, loopback, next, telegram, wait_until,
};

type Channel = ControlEnd<TunnelRequest, TunnelReply>;

fn rule(host: &str, port: u16) -> TunnelRule {
    TunnelRule {
        channel: telegram(),
        host: host.to_owned(),
        port,
    }
}

/// A system with these rules, and the link of the channel they are for.
fn system(rules: Vec<TunnelRule>) -> (Egress, Channel, Events) {
    let egress = Egress::start(loopback(1), rules);
    let events = ledger(egress.link(Peer::Ledger));
    let channel = Channel::new(egress.link(Peer::Channel(telegram())));
    (egress, channel, events)
}

fn open(channel: &Channel, host: &str, port: u16) -> (TunnelReply, Option<OwnedFd>) {
    channel
        .send(&TunnelRequest::Open {
            id: 5,
            host: host.to_owned(),
            port,
        })
        .unwrap();
    channel.receive().unwrap()
}

fn tunnel(channel: &Channel, host: &str, port: u16) -> UnixStream {
    let (reply, fd) = open(channel, host, port);
    assert_eq!(reply, TunnelReply::Opened { id: 5 });
    let stream = UnixStream::from(fd.unwrap());
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn refused(channel: &Channel, host: &str, port: u16) -> EgressFault {
    match open(channel, host, port) {
        (TunnelReply::Failed { id: 5, fault }, None) => fault,
        other => panic!("{other:?}"),
    }
}

/// Sends back what it gets, and "bye" when the other side has ended.
fn echo() -> Server {
    Server::start(|mut stream| {
        let mut buffer = [0; 4096];
        // A reset ends it as well.
        while let Ok(got @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..got]).is_err() {
                return;
            }
        }
        let _ = stream.write_all(b"bye");
    })
}

#[test]
fn bytes_go_both_ways_and_one_direction_may_end_first() {
    let server = echo();
    let (egress, channel, events) = system(vec![rule("127.0.0.1", server.port)]);
    let mut stream = tunnel(&channel, "127.0.0.1", server.port);
    let opened = Event::TunnelOpened {
        channel: telegram(),
        host: "127.0.0.1".to_owned(),
        port: server.port,
    };
    assert_eq!(
        events.try_recv().unwrap().1,
        opened,
        "before it was handed over"
    );

    let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut writing = stream.try_clone().unwrap();
    let bytes = sent.clone();
    let writer = std::thread::spawn(move || {
        writing.write_all(&bytes).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(
        got.ends_with(b"bye"),
        "the end of one direction was passed on, the other stayed"
    );
    assert!(got[..got.len() - 3] == sent);
    egress.stop();
}

#[test]
fn a_server_that_ends_first_is_seen_to_end() {
    let server = Server::start(|mut stream| {
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"still");
    });
    let (_egress, channel, _events) = system(vec![rule("localhost", server.port)]);
    let mut stream = tunnel(&channel, "localhost", server.port);
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"hello");
    stream.write_all(b"still").unwrap();
}

#[test]
fn what_no_rule_allows_is_refused_and_recorded() {
    let server = echo();
    let (egress, channel, events) = system(vec![
        rule("127.0.0.1", server.port),
        rule("10.0.0.1", 443),
        TunnelRule {
            channel: "matrix".parse().unwrap(),
            ..rule("localhost", server.port)
        },
    ]);
    let long = "x".repeat(100_000);
    for (host, port, shown) in [
        ("127.0.0.1", closed_port(), None),
        ("127.0.0.2", server.port, None),
        ("localhost", server.port, None),
        ("10.0.0.1", 443, None),
        ("", server.port, None),
        (
            long.as_str(),
            server.port,
            Some("something that is no host name"),
        ),
        ("a\nb", server.port, Some("something that is no host name")),
    ] {
        let fault = refused(&channel, host, port);
        let EgressFault::NotAllowed { reason: told } = fault else {
            panic!("{fault:?}")
        };
        let Event::EgressRefused {
            subject,
            target,
            reason,
        } = next(&events)
        else {
            panic!("not recorded");
        };
        assert_eq!((subject.as_str(), reason), ("channel:telegram", told));
        assert_eq!(
            target,
            shown.map_or_else(|| format!("{host}:{port}"), str::to_owned)
        );
    }
    let other = ChannelId::parse("web").unwrap();
    let other = Channel::new(egress.link(Peer::Channel(other)));
    assert!(matches!(
        refused(&other, "127.0.0.1", server.port),
        EgressFault::NotAllowed { .. }
    ));
    assert_eq!(server.connections(), 0);
}

#[test]
fn nobody_there_is_unreachable_and_no_record_is_no_tunnel() {
    let (server, closed) = (echo(), closed_port());
    let (egress, channel, events) = system(vec![
        rule("127.0.0.1", closed),
        rule("127.0.0.1", server.port),
    ]);
    assert!(matches!(
        refused(&channel, "127.0.0.1", closed),
        EgressFault::Unreachable { .. }
    ));
    assert!(matches!(next(&events), Event::TunnelOpened { .. }));
    // A ledger that hangs.
    let _hanging = egress.link(Peer::Ledger);
    let channel = Channel::new(egress.link(Peer::Channel(telegram())));
    assert_eq!(
        refused(&channel, "127.0.0.1", server.port),
        EgressFault::NoRecord
    );
    assert_eq!(server.connections(), 0);
}

#[test]
fn tunnels_are_counted_and_end_with_the_link() {
    let server = echo();
    let (_egress, channel, events) = system(vec![rule("127.0.0.1", server.port)]);
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(tunnel(&channel, "127.0.0.1", server.port));
        assert!(matches!(next(&events), Event::TunnelOpened { .. }));
    }
    assert!(matches!(
        refused(&channel, "127.0.0.1", server.port),
        EgressFault::NotAllowed { .. }
    ));
    assert!(matches!(next(&events), Event::EgressRefused { .. }));
    open.pop();
    wait_until(|| {
        channel
            .send(&TunnelRequest::Open {
                id: 6,
                host: "127.0.0.1".to_owned(),
                port: server.port,
            })
            .unwrap();
        matches!(
            channel.receive().unwrap(),
            (TunnelReply::Opened { id: 6 }, Some(_))
        )
    });
    drop(channel);
    for mut stream in open {
        assert_eq!(
            stream.read(&mut [0]).unwrap_or(0),
            0,
            "it outlived its link"
        );
    }
}

#[test]
fn a_malformed_frame_ends_the_link() {
    let (egress, _channel, _events) = system(Vec::new());
    let mut raw = egress.link(Peer::Channel(telegram()));
    raw.write_all(b"\0\0\0\x04nope").unwrap();
    assert!(matches!(
        Channel::new(raw).receive(),
        Err(LinkError::Closed)
    ));
}
