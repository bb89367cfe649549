//! When Telegram, the network or the token are not as they should be.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use protocol::channel::ChannelRequest;
use protocol::control::Report;
use testkit::telegram::Fault;

use crate::rig::{OWNER, Rig, TOKEN, accept, delivered, inbound, opened, reply};

#[test]
fn another_poller_is_named_and_outlived() {
    let (rig, gateway) = opened(OWNER);
    rig.until("a poll waits", |server| {
        server
            .requests()
            .last()
            .is_some_and(|request| request.method == "getUpdates" && request.status.is_none())
    });
    let mut other = TcpStream::connect(rig.server.address()).unwrap();
    write!(
        other,
        "GET /bot{TOKEN}/getUpdates?offset=0 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    rig.writes(OWNER, "still there?");
    let (message, text) = inbound(&gateway);
    assert_eq!(text, "still there?");
    accept(&gateway, message);
    let log = rig.stderr();
    assert!(log.contains("another program polls this bot"), "{log}");
}

#[test]
fn a_webhook_is_taken_away_at_the_start() {
    let mut rig = Rig::new();
    rig.server.set_webhook();
    rig.crash();
    let gateway = rig.gateway();
    rig.writes(OWNER, "hello");
    assert_eq!(inbound(&gateway).1, "hello");
}

#[test]
fn silence_that_telegram_asks_for_is_kept() {
    let (rig, gateway) = opened(OWNER);
    rig.server.fail_next("sendMessage", 2, Fault::TooMany(1));
    rig.server.fail_next("getUpdates", 1, Fault::TooMany(2));
    reply(&gateway, 1, "later");
    rig.writes(OWNER, "a");
    // Both wait for two seconds at the same time, so either may be first.
    let mut came = Vec::new();
    for _ in 0..2 {
        match gateway.receive().unwrap() {
            ChannelRequest::Delivered { delivery } => came.push(format!("delivered {delivery}")),
            ChannelRequest::Inbound { message, text, .. } => {
                accept(&gateway, message);
                came.push(text);
            }
            other => panic!("{other:?}"),
        }
    }
    came.sort_unstable();
    assert_eq!(came, ["a", "delivered 1"]);
    rig.writes(OWNER, "b");
    let (message, _) = inbound(&gateway);
    accept(&gateway, message);
    assert_eq!(rig.server.texts(OWNER), ["later"]);
    assert_eq!(rig.server.violations(), Vec::<String>::new());
    let flooded = rig
        .server
        .requests()
        .iter()
        .filter(|request| request.status == Some(429))
        .count();
    assert_eq!(flooded, 3);
}

#[test]
fn a_reply_cut_by_a_crash_goes_on_where_it_was() {
    let (mut rig, gateway) = opened(OWNER);
    rig.server.limit_messages(1, Duration::from_secs(3));
    let text = format!(
        "{}\n\n{}\n\n{}",
        "a".repeat(4000),
        "b".repeat(4000),
        "c".repeat(4000)
    );
    reply(&gateway, 9, &text);
    rig.messages(1);
    rig.until("the second part has to wait", |server| {
        server
            .requests()
            .iter()
            .any(|request| request.status == Some(429))
    });
    rig.crash();
    rig.server.limit_messages(100, Duration::from_secs(1));
    std::thread::sleep(Duration::from_secs(3));
    let gateway = rig.gateway();
    reply(&gateway, 9, &text);
    assert_eq!(delivered(&gateway), 9);
    let firsts: Vec<_> = rig
        .server
        .texts(OWNER)
        .iter()
        .map(|text| text.chars().next())
        .collect();
    assert_eq!(firsts, [Some('a'), Some('b'), Some('c')]);
}

#[test]
fn broken_connections_and_bad_answers_are_outlived() {
    let (rig, gateway) = opened(OWNER);
    rig.server.fail_next("sendMessage", 1, Fault::CutBefore);
    rig.server.fail_next("sendMessage", 1, Fault::BadGateway);
    rig.server.fail_next(
        "sendMessage",
        1,
        Fault::Status(500, "Internal Server Error"),
    );
    rig.server.fail_next("getUpdates", 1, Fault::CutBefore);
    rig.server.fail_next("getUpdates", 1, Fault::BadGateway);
    reply(&gateway, 1, "in the end");
    rig.writes(OWNER, "and back");
    let mut seen = Vec::new();
    for _ in 0..2 {
        match gateway.receive().unwrap() {
            protocol::channel::ChannelRequest::Inbound { text, .. } => seen.push(text),
            protocol::channel::ChannelRequest::Delivered { delivery } => {
                seen.push(delivery.to_string())
            }
            other => panic!("{other:?}"),
        }
    }
    seen.sort();
    assert_eq!(seen, ["1", "and back"]);
    assert_eq!(rig.server.texts(OWNER), ["in the end"]);
}

#[test]
fn when_an_answer_is_lost_the_message_comes_twice_rather_than_never() {
    let (rig, gateway) = opened(OWNER);
    rig.server.fail_next("sendMessage", 1, Fault::CutAfter);
    reply(&gateway, 1, "hello");
    assert_eq!(delivered(&gateway), 1);
    assert_eq!(rig.server.texts(OWNER), ["hello", "hello"]);
}

#[test]
fn who_blocked_the_bot_holds_up_nobody() {
    let (rig, gateway) = opened(OWNER);
    rig.server.user_blocks(OWNER);
    reply(&gateway, 1, "unwanted");
    assert_eq!(delivered(&gateway), 1);
    assert!(
        rig.stderr().contains("refuses delivery 1 (403)"),
        "{}",
        rig.stderr()
    );
}

#[test]
fn markup_that_telegram_refuses_is_sent_as_code() {
    let (rig, gateway) = opened(OWNER);
    rig.server.fail_next(
        "sendMessage",
        1,
        Fault::Status(400, "Bad Request: can't parse entities"),
    );
    reply(&gateway, 1, "**bold** and https://evil.example");
    assert_eq!(delivered(&gateway), 1);
    let sent = rig.messages(1);
    let kinds: Vec<_> = sent[0]
        .entities
        .iter()
        .map(|entity| entity.kind.as_str())
        .collect();
    assert_eq!(
        (sent[0].text.as_str(), kinds),
        ("bold and https://evil.example", vec!["pre"])
    );
}

#[test]
fn a_refused_token_ends_the_program_with_the_way_out() {
    let (mut rig, _gateway) = opened(OWNER);
    rig.rotate_at_telegram("4242:another-secret");
    // The poll that waits ends with the message; the next one has the old token.
    rig.writes(OWNER, "x");
    let (report, _) = rig.supervisor.receive().unwrap();
    let Report::Failed { reason } = report else {
        panic!("{report:?}")
    };
    assert!(
        reason.contains("bulkhead vault rotate telegram-token"),
        "{reason}"
    );
    assert_eq!(rig.exit(), Some(1));
}

#[test]
fn a_rotated_token_is_fetched_from_the_vault() {
    let (mut rig, gateway) = opened(OWNER);
    rig.rotate_at_telegram("4242:another-secret");
    *rig.vault.lock().unwrap() = "4242:another-secret".to_owned();
    reply(&gateway, 1, "with the new one");
    assert_eq!(delivered(&gateway), 1);
    rig.writes(OWNER, "hello again");
    let (message, _) = inbound(&gateway);
    accept(&gateway, message);
    assert_eq!(rig.server.texts(OWNER), ["with the new one"]);
}

#[test]
fn what_is_no_token_ends_the_program_with_the_way_out() {
    let mut rig = Rig::with_vault("not a token at all");
    let (report, _) = rig.supervisor.receive().unwrap();
    let Report::Failed { reason } = report else {
        panic!("{report:?}")
    };
    assert!(
        reason.contains("bulkhead vault rotate telegram-token"),
        "{reason}"
    );
    assert!(!reason.contains("not a token at all"), "{reason}");
    assert_eq!(rig.exit(), Some(1));
}

#[test]
fn where_tls_is_wanted_a_server_without_it_gets_no_token() {
    let rig = Rig::with_tls();
    let gateway = rig.gateway();
    reply(&gateway, 1, "x");
    rig.until_logged("cannot poll: TLS with 127.0.0.1");
    rig.until_logged("cannot send: TLS with 127.0.0.1");
    assert_eq!(rig.server.requests().len(), 0);
}
