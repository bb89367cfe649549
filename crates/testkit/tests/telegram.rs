//! The Telegram stand-in keeps to the rules that the published ones break.

#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bulkhead_testkit::telegram::{Chat, Fault, TelegramServer};
use serde_json::{Value, json};

const TOKEN: &str = "4242:abc-DEF";

/// One request over a connection of its own; `None` if the server cuts it.
fn call(server: &TelegramServer, token: &str, method: &str, body: &Value) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let body = body.to_string();
    write!(
        stream,
        "POST /bot{token}/{method} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.get(9..12)?.parse().unwrap();
    let body = answer.split_once("\r\n\r\n")?.1;
    Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

fn ok(server: &TelegramServer, method: &str, body: Value) -> Value {
    let (status, answer) = call(server, TOKEN, method, &body).unwrap();
    assert_eq!(
        (status, &answer["ok"]),
        (200, &json!(true)),
        "{method}: {answer}"
    );
    answer["result"].clone()
}

fn refused(server: &TelegramServer, method: &str, body: Value) -> (u16, String) {
    let (status, answer) = call(server, TOKEN, method, &body).unwrap();
    assert_eq!(answer["ok"], json!(false), "{method}: {answer}");
    assert_eq!(answer["error_code"], json!(status));
    (status, answer["description"].as_str().unwrap().to_owned())
}

fn texts(updates: &Value) -> Vec<&str> {
    updates
        .as_array()
        .unwrap()
        .iter()
        .map(|update| update["message"]["text"].as_str().unwrap())
        .collect()
}

#[test]
fn an_update_comes_again_until_a_higher_offset_confirms_it() {
    let server = TelegramServer::start(TOKEN).unwrap();
    for text in ["a", "b", "c"] {
        server.user_writes(7, &Chat::private(7), text);
    }
    let updates = ok(&server, "getUpdates", json!({}));
    assert_eq!(texts(&updates), ["a", "b", "c"]);
    assert_eq!(
        texts(&ok(&server, "getUpdates", json!({ "limit": 1 }))),
        ["a"]
    );
    let second = updates[1]["update_id"].as_i64().unwrap();
    assert_eq!(
        texts(&ok(&server, "getUpdates", json!({ "offset": second }))),
        ["b", "c"]
    );
    assert_eq!(server.unconfirmed(), 2);
    assert_eq!(
        texts(&ok(&server, "getUpdates", json!({ "offset": -1 }))),
        ["c"]
    );
    assert_eq!(server.unconfirmed(), 1);
    let from = &updates[0]["message"]["from"];
    assert_eq!((&from["id"], &from["is_bot"]), (&json!(7), &json!(false)));
    assert!(updates[0]["message"]["date"].as_u64().unwrap() < 100_000_000_000);
}

#[test]
fn a_long_poll_waits_and_returns_with_the_first_update() {
    let server = TelegramServer::start(TOKEN).unwrap();
    let start = Instant::now();
    assert_eq!(
        ok(&server, "getUpdates", json!({ "timeout": 1 })),
        json!([])
    );
    assert!(start.elapsed() >= Duration::from_secs(1));
    std::thread::scope(|scope| {
        let poll = scope.spawn(|| ok(&server, "getUpdates", json!({ "timeout": 50 })));
        std::thread::sleep(Duration::from_millis(100));
        server.user_writes(7, &Chat::private(7), "now");
        assert_eq!(texts(&poll.join().unwrap()), ["now"]);
    });
    assert!(start.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_second_poller_ends_the_first() {
    let server = TelegramServer::start(TOKEN).unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| refused(&server, "getUpdates", json!({ "timeout": 50 })));
        let waits = server.wait(Duration::from_secs(5), |server| {
            (server.requests().len() == 1).then_some(())
        });
        waits.unwrap();
        std::thread::sleep(Duration::from_millis(50));
        ok(&server, "getUpdates", json!({ "timeout": 0 }));
        let (status, text) = first.join().unwrap();
        assert_eq!(status, 409);
        assert!(
            text.starts_with("Conflict: terminated by other getUpdates request;"),
            "{text}"
        );
    });
    server.set_webhook();
    assert_eq!(refused(&server, "getUpdates", json!({})).0, 409);
    ok(&server, "deleteWebhook", json!({}));
    ok(&server, "getUpdates", json!({}));
}

#[test]
fn a_wrong_token_is_401_and_a_malformed_one_404() {
    let server = TelegramServer::start(TOKEN).unwrap();
    assert_eq!(
        call(&server, "4242:other", "getMe", &json!({})).unwrap().0,
        401
    );
    assert_eq!(
        call(&server, "nonsense", "getMe", &json!({})).unwrap().0,
        404
    );
    assert_eq!(refused(&server, "getNothing", json!({})).0, 404);
    assert_eq!(ok(&server, "getMe", json!({}))["is_bot"], json!(true));
}

#[test]
fn messages_are_checked_as_the_server_does() {
    let server = TelegramServer::start(TOKEN).unwrap();
    let send = |text: &str| json!({ "chat_id": 7, "text": text });
    assert_eq!(
        refused(&server, "sendMessage", send("x")).1,
        "Bad Request: chat not found"
    );
    server.user_writes(7, &Chat::private(7), "hi");
    let sent = ok(&server, "sendMessage", send("hello"));
    assert_eq!(
        (&sent["chat"]["id"], &sent["from"]["is_bot"]),
        (&json!(7), &json!(true))
    );
    assert_eq!(
        refused(&server, "sendMessage", send(&"x".repeat(4097))).1,
        "Bad Request: message is too long"
    );
    assert_eq!(
        refused(&server, "sendMessage", send(" ")).1,
        "Bad Request: message text is empty"
    );
    let long = json!({ "inline_keyboard": [[{ "text": "x", "callback_data": "x".repeat(65) }]] });
    let mut body = send("x");
    body["reply_markup"] = long;
    assert_eq!(
        refused(&server, "sendMessage", body).1,
        "Bad Request: BUTTON_DATA_INVALID"
    );
    let edit = json!({ "chat_id": 7, "message_id": sent["message_id"], "text": "hello" });
    assert!(
        refused(&server, "editMessageText", edit)
            .1
            .starts_with("Bad Request: message is not modified")
    );
    let edit = json!({ "chat_id": 7, "message_id": sent["message_id"], "text": "other" });
    ok(&server, "editMessageText", edit);
    assert_eq!(server.texts(7), ["other"]);
    server.user_blocks(7);
    assert_eq!(refused(&server, "sendMessage", send("x")).0, 403);
}

#[test]
fn a_callback_query_is_answered_once() {
    let server = TelegramServer::start(TOKEN).unwrap();
    let query = server.user_presses(7, 1, "data");
    let answer = json!({ "callback_query_id": query, "text": "ok" });
    ok(&server, "answerCallbackQuery", answer.clone());
    assert_eq!(refused(&server, "answerCallbackQuery", answer).0, 400);
}

#[test]
fn too_many_requests_say_how_long_to_wait_and_an_early_one_is_noticed() {
    let server = TelegramServer::start(TOKEN).unwrap();
    server.user_writes(7, &Chat::private(7), "hi");
    server.fail_next("sendMessage", 1, Fault::TooMany(1));
    let send = json!({ "chat_id": 7, "text": "x" });
    let (status, answer) = call(&server, TOKEN, "sendMessage", &send).unwrap();
    assert_eq!(
        (status, &answer["parameters"]["retry_after"]),
        (429, &json!(1))
    );
    assert_eq!(refused(&server, "sendMessage", send.clone()).0, 429);
    assert_eq!(server.violations().len(), 1);
    std::thread::sleep(Duration::from_millis(1100));
    ok(&server, "sendMessage", send);
    assert_eq!(server.violations().len(), 1);
}

#[test]
fn a_cut_connection_leaves_the_effect_or_does_not() {
    let server = TelegramServer::start(TOKEN).unwrap();
    server.user_writes(7, &Chat::private(7), "hi");
    server.fail_next("sendMessage", 1, Fault::CutBefore);
    server.fail_next("sendMessage", 1, Fault::CutAfter);
    for (text, there) in [("before", 0), ("after", 1)] {
        let answer = call(
            &server,
            TOKEN,
            "sendMessage",
            &json!({ "chat_id": 7, "text": text }),
        );
        assert_eq!(answer, None);
        assert_eq!(server.texts(7).len(), there);
    }
}
