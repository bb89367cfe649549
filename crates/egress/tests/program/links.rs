//! What agents, the ledger and the supervisor do to their links.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use protocol::control::Peer;
use protocol::egress::{EgressFault, ModelReply, ModelRequest};
use protocol::event::Event;
use protocol::frame::{self, Link, LinkError};
use protocol::ids::RowId;
use protocol::record::{LedgerReply, LedgerRequest};

use crate::support::{
    Agent, CHUNKED, Egress, Events, LIMIT, Server, answer, chat, ended, fault, hear, ledger,
    loopback, next, piece, wait_for_close, wait_until,
};

/// A server that answers "quick" at once, begins an answer to "begin" and none to the rest,
/// and tells when a connection was closed on it.
fn waiting_server() -> (Server, Receiver<()>, Receiver<()>) {
    let (heard, was_heard) = channel();
    let (closed, was_closed) = channel();
    let server = Server::start(move |mut stream: TcpStream| {
        let body = hear(&stream).body;
        if body == b"quick" {
            let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            return stream.write_all(ok).unwrap();
        }
        if body == b"begin" {
            stream.write_all(CHUNKED).unwrap();
            piece(&mut stream, b"x").unwrap();
        }
        heard.send(()).unwrap();
        wait_for_close(&mut stream);
        closed.send(()).unwrap();
    });
    (server, was_heard, was_closed)
}

/// Long enough that only a cancel ends a request.
fn patient(server: &Server) -> (Egress, Agent, Events) {
    let mut route = loopback(server.port);
    route.idle_seconds = 600;
    let egress = Egress::start(route, Vec::new());
    let events = ledger(egress.link(Peer::Ledger));
    let agent = egress.agent();
    (egress, agent, events)
}

fn cancelled(events: &Events) {
    assert!(matches!(next(events), Event::ModelRequest { .. }));
    match next(events) {
        Event::ModelResponse {
            fault: Some(word), ..
        } => assert_eq!(word, "cancelled"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cancel_closes_the_connection_at_once_before_and_in_the_answer() {
    let (server, heard, closed) = waiting_server();
    let (_egress, agent, events) = patient(&server);
    for (id, body) in [(1, "no answer"), (2, "begin")] {
        agent.send(&chat(id, body)).unwrap();
        heard.recv_timeout(LIMIT).unwrap();
        if body == "begin" {
            assert!(matches!(
                agent.receive().unwrap(),
                ModelReply::Status { id: 2, .. }
            ));
            assert!(matches!(
                agent.receive().unwrap(),
                ModelReply::Chunk { id: 2, .. }
            ));
        }
        let start = Instant::now();
        // One that is not running is no concern.
        agent.send(&ModelRequest::Cancel { id: id + 10 }).unwrap();
        agent.send(&ModelRequest::Cancel { id }).unwrap();
        closed.recv_timeout(LIMIT).unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        cancelled(&events);
    }
    agent.send(&chat(3, "quick")).unwrap();
    assert_eq!(
        answer(&agent),
        (200, "ok".to_owned()),
        "nothing came for the others"
    );
}

#[test]
fn an_agent_that_goes_or_is_replaced_takes_its_request_with_it() {
    let (server, heard, closed) = waiting_server();
    let (egress, agent, events) = patient(&server);
    agent.send(&chat(1, "begin")).unwrap();
    heard.recv_timeout(LIMIT).unwrap();
    drop(agent);
    closed.recv_timeout(LIMIT).unwrap();
    cancelled(&events);

    let older = egress.agent();
    older.send(&chat(1, "no answer")).unwrap();
    heard.recv_timeout(LIMIT).unwrap();
    let newer = egress.agent();
    closed.recv_timeout(LIMIT).unwrap();
    assert!(matches!(older.receive(), Err(LinkError::Closed)));
    newer.send(&chat(1, "quick")).unwrap();
    assert_eq!(answer(&newer), (200, "ok".to_owned()));
}

#[test]
fn a_second_request_is_refused_and_the_first_goes_on() {
    let (server, heard, _closed) = waiting_server();
    let (_egress, agent, _events) = patient(&server);
    agent.send(&chat(1, "no answer")).unwrap();
    heard.recv_timeout(LIMIT).unwrap();
    agent.send(&chat(2, "quick")).unwrap();
    match agent.receive().unwrap() {
        ModelReply::Failed {
            id: 2,
            fault: EgressFault::NotAllowed { .. },
        } => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(server.connections(), 1);
    agent.send(&ModelRequest::Cancel { id: 1 }).unwrap();
    agent.send(&chat(3, "quick")).unwrap();
    assert_eq!(answer(&agent), (200, "ok".to_owned()));
}

#[test]
fn a_malformed_frame_ends_the_link_and_no_other() {
    let (server, heard, closed) = waiting_server();
    let (egress, agent, _events) = patient(&server);
    agent.send(&chat(1, "no answer")).unwrap();
    heard.recv_timeout(LIMIT).unwrap();
    let other = Peer::Agent("s2".parse().unwrap());
    let framed = |json: &str| {
        let length = u32::try_from(json.len()).unwrap().to_be_bytes();
        [&length[..], json.as_bytes()].concat()
    };
    for bad in [
        framed("nope"),
        framed(r#"{"type":"unknown"}"#),
        framed(r#"{"type":"cancel","id":1,"url":"http://x/"}"#),
        framed(r#"{"type":"cancel","id":1}{}"#),
        u32::MAX.to_be_bytes().to_vec(),
    ] {
        let link = egress.link(other.clone());
        (&link).write_all(&bad).unwrap();
        assert!(frame::read::<ModelReply>(&link).is_err(), "{bad:?}");
    }
    assert!(closed.try_recv().is_err());
    let stream = agent.into_stream();
    (&stream).write_all(b"\0\0\0\x04nope").unwrap();
    closed.recv_timeout(LIMIT).unwrap();
    assert!(frame::read::<ModelReply>(&stream).is_err());
}

#[test]
fn an_agent_that_does_not_read_makes_the_server_wait() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let server = Server::start(move |mut stream| {
        hear(&stream);
        stream.write_all(CHUNKED).unwrap();
        let text = vec![b'x'; 16 * 1024];
        while piece(&mut stream, &text).is_ok() {
            counter.fetch_add(text.len(), Ordering::SeqCst);
        }
    });
    let (_egress, agent, events) = patient(&server);
    agent.send(&chat(1, "{}")).unwrap();
    let settled = || {
        let before = sent.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(300));
        before > 0 && before == sent.load(Ordering::SeqCst)
    };
    wait_until(settled);
    // What the kernel holds on both sides and sixteen frames; far from the 32 MiB of an answer.
    let held = sent.load(Ordering::SeqCst);
    assert!(held < 16 << 20, "{held} bytes are held for it");
    // Cancelling works all the same.
    agent.send(&ModelRequest::Cancel { id: 1 }).unwrap();
    cancelled(&events);
}

fn no_record(egress: &Egress, server: &Server) -> Duration {
    let agent = egress.agent();
    let start = Instant::now();
    agent.send(&chat(1, "quick")).unwrap();
    assert_eq!(fault(&agent), EgressFault::NoRecord);
    assert_eq!(server.connections(), 0, "it was sent without a record");
    start.elapsed()
}

#[test]
fn without_a_record_nothing_is_sent() {
    let (server, _heard, _closed) = waiting_server();
    let egress = Egress::start(loopback(server.port), Vec::new());
    // No ledger at all, then one that hangs, as when it is stopped.
    let waited = no_record(&egress, &server);
    assert!((4..8).contains(&waited.as_secs()), "{waited:?}");
    let hanging = egress.link(Peer::Ledger);
    let waited = no_record(&egress, &server);
    assert!((4..8).contains(&waited.as_secs()), "{waited:?}");

    // It goes on, and answers what nobody waits for any more: that lets nothing out.
    let refusing = Link::<LedgerReply, LedgerRequest>::new(hanging);
    let answering = thread::spawn(move || {
        refusing.receive().unwrap();
        refusing
            .send(&LedgerReply::Appended { first: RowId(1) })
            .unwrap();
        refusing.receive().unwrap();
        refusing
            .send(&LedgerReply::Failed {
                reason: "disk full".to_owned(),
            })
            .unwrap();
        refusing
    });
    let waited = no_record(&egress, &server);
    assert!(waited < Duration::from_secs(4), "{waited:?}");

    // It dies in the middle.
    let refusing = answering.join().unwrap();
    let dying = thread::spawn(move || drop(refusing.receive()));
    no_record(&egress, &server);
    dying.join().unwrap();

    // It is started again.
    let events = ledger(egress.link(Peer::Ledger));
    let agent = egress.agent();
    agent.send(&chat(1, "quick")).unwrap();
    assert_eq!(answer(&agent), (200, "ok".to_owned()));
    assert!(matches!(next(&events), Event::ModelRequest { .. }));
}

#[test]
fn a_ledger_that_is_just_starting_is_waited_for() {
    let (server, _heard, _closed) = waiting_server();
    let egress = Egress::start(loopback(server.port), Vec::new());
    let agent = egress.agent();
    agent.send(&chat(1, "quick")).unwrap();
    thread::sleep(Duration::from_millis(300));
    let _events = ledger(egress.link(Peer::Ledger));
    assert_eq!(answer(&agent), (200, "ok".to_owned()));
}

#[test]
fn an_answer_whose_end_is_not_recorded_is_not_complete() {
    let (server, _heard, _closed) = waiting_server();
    let egress = Egress::start(loopback(server.port), Vec::new());
    let link = Link::<LedgerReply, LedgerRequest>::new(egress.link(Peer::Ledger));
    thread::spawn(move || {
        link.receive().unwrap();
        link.send(&LedgerReply::Appended { first: RowId(1) })
            .unwrap();
        link.receive().unwrap();
        link.send(&LedgerReply::Failed {
            reason: "disk full".to_owned(),
        })
        .unwrap();
        // Stays open until egress ends.
        assert!(link.receive().is_err());
    });
    let agent = egress.agent();
    agent.send(&chat(1, "quick")).unwrap();
    assert_eq!(fault(&agent), EgressFault::NoRecord);
}

#[test]
fn links_that_have_no_business_here_are_closed() {
    let (egress, _agent, _events) = Egress::with_model(1);
    for peer in [Peer::Workspace, Peer::Egress] {
        let link: UnixStream = egress.link(peer);
        assert!(matches!(
            frame::read::<ModelReply>(&link),
            Err(LinkError::Closed)
        ));
    }
    egress.stop();
}

#[test]
fn it_ends_with_its_supervisor() {
    let (mut egress, _agent, _events) = Egress::with_model(1);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    egress.control = protocol::control::ControlEnd::new(ours);
    assert!(ended(&mut egress.child).success());
}
