//! Requests that go wrong, and what is said about them.

use std::io::Write as _;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use protocol::control::{ModelRoute, Peer, Reach, Scheme};
use protocol::egress::{EgressFault, ModelReply};
use protocol::event::Event;

use crate::support::{
    Agent, CHUNKED, Egress, Events, LIMIT, Server, chat, closed_port, fault, hear, ledger,
    loopback, next, piece, replies, wait_for_close,
};

/// Asks once; the fault, and what the record says of it.
fn ask(agent: &Agent, events: &Events) -> (EgressFault, u16, String) {
    agent.send(&chat(1, "{}")).unwrap();
    let fault = fault(agent);
    assert!(matches!(next(events), Event::ModelRequest { .. }));
    match next(events) {
        Event::ModelResponse {
            status,
            fault: Some(word),
            ..
        } => (fault, status, word),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_there() {
    let (_egress, agent, events) = Egress::with_model(closed_port());
    let (fault, status, word) = ask(&agent, &events);
    assert!(
        matches!(fault, EgressFault::Unreachable { .. }),
        "{fault:?}"
    );
    assert_eq!((status, word.as_str()), (0, "unreachable"));
}

#[test]
fn cut_off_before_and_in_the_answer() {
    let before = Server::start(|stream| drop(hear(&stream)));
    let (_egress, agent, events) = Egress::with_model(before.port);
    assert_eq!(
        ask(&agent, &events),
        (EgressFault::CutOff, 0, "cut off".to_owned())
    );

    let within = Server::start(|mut stream| {
        hear(&stream);
        stream.write_all(CHUNKED).unwrap();
        piece(&mut stream, b"half of ").unwrap();
    });
    let (_egress, agent, _events) = Egress::with_model(within.port);
    agent.send(&chat(1, "{}")).unwrap();
    let got = replies(&agent);
    assert_eq!(
        got[1],
        ModelReply::Chunk {
            id: 1,
            text: "half of ".to_owned()
        }
    );
    assert_eq!(
        got[2],
        ModelReply::Failed {
            id: 1,
            fault: EgressFault::CutOff
        }
    );

    let short = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    let (_egress, agent, events) = Egress::with_model(short.port);
    assert_eq!(
        ask(&agent, &events),
        (EgressFault::CutOff, 200, "cut off".to_owned())
    );
}

#[test]
fn too_slow_before_and_in_the_answer_and_the_connection_is_closed() {
    let (closed, was_closed) = channel();
    let server = Server::start(move |mut stream| {
        if hear(&stream).body == b"{}" {
            stream.write_all(CHUNKED).unwrap();
            piece(&mut stream, b"x").unwrap();
        }
        wait_for_close(&mut stream);
        closed.send(()).unwrap();
    });
    let (_egress, agent, events) = Egress::with_model(server.port);
    let slow = EgressFault::Slow { seconds: 1 };
    assert_eq!(
        ask(&agent, &events),
        (slow.clone(), 200, "too slow".to_owned())
    );
    was_closed.recv_timeout(LIMIT).unwrap();
    agent.send(&chat(2, "nothing comes")).unwrap();
    let start = Instant::now();
    assert_eq!(fault(&agent), slow);
    assert!(start.elapsed() > Duration::from_millis(900));
    was_closed.recv_timeout(LIMIT).unwrap();
}

#[test]
fn slow_but_steady_is_not_too_slow() {
    let server = Server::start(|mut stream| {
        hear(&stream);
        stream.write_all(CHUNKED).unwrap();
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(500));
            piece(&mut stream, b"x").unwrap();
        }
        piece(&mut stream, b"").unwrap();
    });
    let (_egress, agent, _events) = Egress::with_model(server.port);
    agent.send(&chat(1, "{}")).unwrap();
    assert!(matches!(
        replies(&agent).pop(),
        Some(ModelReply::End { id: 1 })
    ));
}

#[test]
fn what_is_not_http() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n",
    ] {
        let server = Server::answering(garbage);
        let (_egress, agent, events) = Egress::with_model(server.port);
        let (fault, _, word) = ask(&agent, &events);
        assert!(
            matches!(fault, EgressFault::Protocol { .. }),
            "{garbage:?}: {fault:?}"
        );
        assert_eq!(word, "not the protocol");
    }
    let endless = Server::start(|mut stream| {
        hear(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        // More than any head; it ends when egress hangs up.
        for _ in 0..100_000 {
            if stream
                .write_all(b"X-Filler: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n")
                .is_err()
            {
                return;
            }
        }
    });
    let (_egress, agent, events) = Egress::with_model(endless.port);
    let (fault, _, _) = ask(&agent, &events);
    assert!(matches!(fault, EgressFault::Protocol { .. }), "{fault:?}");
}

#[test]
fn an_answer_without_end_is_too_large() {
    let server = Server::start(|mut stream| {
        hear(&stream);
        stream.write_all(CHUNKED).unwrap();
        let text = vec![b'x'; 64 * 1024];
        for _ in 0..4096 {
            if piece(&mut stream, &text).is_err() {
                return;
            }
        }
        panic!("256 MiB were taken");
    });
    let (_egress, agent, events) = Egress::with_model(server.port);
    let limit = 32 << 20;
    agent.send(&chat(1, "{}")).unwrap();
    let mut bytes = 0;
    let last = loop {
        match agent.receive().unwrap() {
            ModelReply::Status { .. } => {}
            ModelReply::Chunk { text, .. } => bytes += text.len() as u64,
            last => break last,
        }
    };
    assert_eq!(
        last,
        ModelReply::Failed {
            id: 1,
            fault: EgressFault::TooLarge { bytes: limit }
        }
    );
    assert!(bytes <= limit);
    assert!(matches!(next(&events), Event::ModelRequest { .. }));
    assert!(matches!(
        next(&events),
        Event::ModelResponse { fault: Some(_), .. }
    ));
}

/// Asks over this route, which has to be refused, and is in the record as such.
fn refused(route: ModelRoute) -> String {
    let target = format!("{}:{}", route.host, route.port);
    let egress = Egress::start(route, Vec::new());
    let events = ledger(egress.link(Peer::Ledger));
    let agent = egress.agent();
    agent.send(&chat(1, "{}")).unwrap();
    let EgressFault::NotAllowed { reason } = fault(&agent) else {
        panic!("it was allowed")
    };
    assert!(matches!(next(&events), Event::ModelRequest { .. }));
    match next(&events) {
        Event::EgressRefused {
            subject,
            target: to,
            reason: why,
        } => {
            assert_eq!((subject.as_str(), to, &why), ("agent:s1", target, &reason));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        next(&events),
        Event::ModelResponse {
            status: 0,
            fault: Some(_),
            ..
        }
    ));
    reason
}

#[test]
fn an_address_that_is_not_loopback_is_refused() {
    for host in [
        "192.0.2.1",
        "0.0.0.0",
        "10.1.2.3",
        "::ffff:127.0.0.1",
        "169.254.169.254",
    ] {
        let reason = refused(ModelRoute {
            host: host.to_owned(),
            ..loopback(1)
        });
        assert!(reason.contains(host), "{reason}");
    }
}

#[test]
fn a_remote_model_in_the_clear_is_refused() {
    let reach = Reach::Remote { secret: None };
    let host = "192.0.2.1".to_owned();
    let route = ModelRoute {
        host,
        reach,
        scheme: Scheme::Http,
        ..loopback(80)
    };
    assert!(refused(route).contains("https"));
}
