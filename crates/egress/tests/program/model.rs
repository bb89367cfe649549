//! Requests to a model that is well.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use protocol::control::{Peer, Scheme};
use protocol::egress::ModelReply;
use protocol::event::{Event, Tokens};
use protocol::ids::{Digest, TurnId};

use crate::support::{
    CHUNKED, Egress, LIMIT, Server, answer, chat, hear, ledger, loopback, next, piece, replies,
};

#[test]
fn an_answer_comes_piece_by_piece_and_both_ends_are_in_the_record() {
    let (heard, request) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let server = Server::start(move |mut stream| {
        heard.send(hear(&stream)).unwrap();
        stream.write_all(CHUNKED).unwrap();
        for text in [
            &b"one "[..],
            b"two ",
            br#"{"prompt_eval_count":3,"eval_count":2}"#,
        ] {
            piece(&mut stream, text).unwrap();
            // Nothing more before the agent has this.
            may_go_on.lock().unwrap().recv_timeout(LIMIT).unwrap();
        }
        piece(&mut stream, b"").unwrap();
    });
    let (egress, agent, events) = Egress::with_model(server.port);
    let body = "{\"messages\": [ \"\u{1f600} exactly\"  ]}";
    agent.send(&chat(1, body)).unwrap();
    let request = request.recv_timeout(LIMIT).unwrap();
    assert!(
        request.head.starts_with("POST /api/chat HTTP/1.1\r\n"),
        "{}",
        request.head
    );
    assert_eq!(request.body, body.as_bytes());
    assert!(
        request.has_header("content-type", "application/json"),
        "{}",
        request.head
    );
    assert!(
        request.has_header("host", &format!("127.0.0.1:{}", server.port)),
        "{}",
        request.head
    );
    assert!(!request.head.to_ascii_lowercase().contains("authorization"));
    // The server has heard nothing that is not in the record.
    let asked = Event::ModelRequest {
        turn: TurnId(7),
        model: "scripted".to_owned(),
        sha256: Digest::of(body),
        bytes: body.len() as u64,
    };
    assert_eq!(events.try_recv().unwrap().1, asked);

    let status = agent.receive().unwrap();
    assert_eq!(
        status,
        ModelReply::Status {
            id: 1,
            status: 200,
            retry_after: None
        }
    );
    let mut text = String::new();
    for _ in 0..3 {
        match agent.receive().unwrap() {
            ModelReply::Chunk { id: 1, text: piece } => text.push_str(&piece),
            other => panic!("{other:?}"),
        }
        assert!(events.try_recv().is_err(), "it is not over");
        go_on.send(()).unwrap();
    }
    assert_eq!(agent.receive().unwrap(), ModelReply::End { id: 1 });
    // Recorded before the agent is told.
    match events.try_recv().unwrap().1 {
        Event::ModelResponse {
            turn,
            status,
            sha256,
            bytes,
            tokens,
            fault,
            ..
        } => {
            assert_eq!((turn, status, fault), (TurnId(7), 200, None));
            assert_eq!((sha256, bytes), (Digest::of(&text), text.len() as u64));
            assert_eq!(
                tokens,
                Some(Tokens {
                    prompt: 3,
                    answer: 2
                })
            );
        }
        other => panic!("{other:?}"),
    }
    egress.stop();
}

#[test]
fn pieces_are_not_held_back() {
    const PIECES: usize = 51;
    let (sent, when_sent) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let server = Server::start(move |mut stream| {
        hear(&stream);
        stream.set_nodelay(true).unwrap();
        stream.write_all(CHUNKED).unwrap();
        for _ in 0..PIECES {
            sent.send(Instant::now()).unwrap();
            piece(&mut stream, b"x").unwrap();
            may_go_on.lock().unwrap().recv_timeout(LIMIT).unwrap();
        }
        piece(&mut stream, b"").unwrap();
    });
    let (_egress, agent, _events) = Egress::with_model(server.port);
    agent.send(&chat(1, "{}")).unwrap();
    assert!(matches!(
        agent.receive().unwrap(),
        ModelReply::Status { .. }
    ));
    let mut delays: Vec<Duration> = Vec::new();
    for _ in 0..PIECES {
        assert!(matches!(agent.receive().unwrap(), ModelReply::Chunk { .. }));
        delays.push(when_sent.recv().unwrap().elapsed());
        go_on.send(()).unwrap();
    }
    delays.sort();
    // Less than the 40 ms that a delayed acknowledgement costs, also on a busy machine.
    let median = delays[PIECES / 2];
    assert!(median < Duration::from_millis(30), "{median:?}");
}

#[test]
fn characters_cut_by_the_server_arrive_whole() {
    let server = Server::start(|mut stream| {
        hear(&stream);
        stream.write_all(CHUNKED).unwrap();
        for byte in "é€😀".bytes() {
            piece(&mut stream, &[byte]).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        piece(&mut stream, b"\xff|\xe2\x82").unwrap();
        piece(&mut stream, b"").unwrap();
    });
    let (_egress, agent, _events) = Egress::with_model(server.port);
    agent.send(&chat(1, "{}")).unwrap();
    assert_eq!(answer(&agent), (200, "é€😀\u{fffd}|\u{fffd}".to_owned()));
}

#[test]
fn an_answer_longer_than_a_frame_arrives_whole() {
    // Quotes grow to twice their size in a frame, which holds 4 MiB.
    let server = Server::start(|mut stream| {
        hear(&stream);
        let body = vec![b'"'; 5 << 20];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
    });
    let (_egress, agent, _events) = Egress::with_model(server.port);
    agent.send(&chat(1, "{}")).unwrap();
    let (status, text) = answer(&agent);
    assert!(status == 200 && text.len() == 5 << 20 && text.bytes().all(|b| b == b'"'));
}

#[test]
fn requests_follow_one_another_on_a_link() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (egress, agent, events) = Egress::with_model(server.port);
    for id in 1..=20 {
        agent.send(&chat(id, "{}")).unwrap();
        assert_eq!(answer(&agent), (200, "ok".to_owned()));
        assert!(matches!(next(&events), Event::ModelRequest { .. }));
        assert!(matches!(
            next(&events),
            Event::ModelResponse {
                status: 200,
                fault: None,
                ..
            }
        ));
    }
    assert_eq!(server.connections(), 20);
    egress.stop();
}

#[test]
fn error_statuses_and_redirects_are_passed_on_and_not_acted_on() {
    let elsewhere = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let location = format!("http://127.0.0.1:{}/", elsewhere.port);
    let server = Server::start(move |mut stream| {
        let response = match hear(&stream).body.as_slice() {
            b"busy" => "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nslow".to_owned(),
            b"date" => "HTTP/1.1 503 No\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n".to_owned(),
            _ => format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"),
        };
        stream.write_all(response.as_bytes()).unwrap();
    });
    let (_egress, agent, _events) = Egress::with_model(server.port);
    agent.send(&chat(1, "busy")).unwrap();
    let busy = replies(&agent);
    assert_eq!(
        busy[0],
        ModelReply::Status {
            id: 1,
            status: 429,
            retry_after: Some(7)
        }
    );
    assert_eq!(
        busy[1],
        ModelReply::Chunk {
            id: 1,
            text: "slow".to_owned()
        }
    );
    assert_eq!(busy[2], ModelReply::End { id: 1 });
    agent.send(&chat(2, "date")).unwrap();
    let dated = replies(&agent);
    assert_eq!(
        dated[0],
        ModelReply::Status {
            id: 2,
            status: 503,
            retry_after: None
        }
    );
    agent.send(&chat(3, "redirect")).unwrap();
    assert_eq!(answer(&agent), (307, String::new()));
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn localhost_is_resolved_inside_the_confinement() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut route = loopback(server.port);
    route.host = "localhost".to_owned();
    route.scheme = Scheme::Http;
    let egress = Egress::start(route, Vec::new());
    let _events = ledger(egress.link(Peer::Ledger));
    let agent = egress.agent();
    agent.send(&chat(1, "{}")).unwrap();
    assert_eq!(answer(&agent), (200, "ok".to_owned()));
}
