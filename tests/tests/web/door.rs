//! Who gets in, and who is put out again.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener, TcpStream};

use serde_json::{Value, json};
use testkit::http::{self, Request};
use testkit::model::{Script, ScriptedModel};
use testkit::system::{System, said, wait_for};

use crate::{Browser, log_in_with, next, origin, page_origin, token};

/// The files of the page, which hold nothing of anybody.
const FILES: [&str; 12] = [
    "/",
    "/login",
    "/app.js",
    "/approvals.js",
    "/cards.js",
    "/freeze.js",
    "/link.js",
    "/passkey",
    "/passkeys.js",
    "/markdown.js",
    "/style.css",
    "/mark.svg",
];

#[test]
fn the_link_that_login_prints_is_good_once() {
    let model = ScriptedModel::start(Script::echo()).expect("a scripted model");
    let system = System::start(model.port(), "");
    let link = system.login_link();
    assert!(
        link.starts_with(&format!("{}/login#", page_origin(system.web_port()))),
        "{link}"
    );
    assert_eq!(log_in_with(&system, &token(&link)).status, 200);
    let again = log_in_with(&system, &token(&link));
    assert_eq!((again.status, again.header("set-cookie")), (401, None));
    for made_up in ["", "0", &"0".repeat(48), &"x".repeat(300)] {
        assert_eq!(log_in_with(&system, made_up).status, 401, "{made_up:?}");
    }
    assert_eq!(system.rows("logged_in").len(), 1);
}

/// Every address that reads or changes something: its method and a body that would do.
fn api() -> Vec<(&'static str, Option<Value>)> {
    let answer = json!({
        "approval": "01".repeat(8), "digest": "02".repeat(32), "nonce": "03".repeat(16),
        "answer": "deny",
    });
    let passkey = json!({ "code": "0".repeat(48), "enrolment": {
        "credential": "01", "public_key": "02", "authenticator_data": "03", "client_data": "04",
    }});
    vec![
        ("/events", None),
        ("/transcript", None),
        ("/message", Some(json!({ "id": "m-1", "text": "hello" }))),
        ("/stop", Some(json!({}))),
        ("/panic", Some(json!({}))),
        ("/answer", Some(answer)),
        ("/passkey", Some(passkey)),
        ("/grants", None),
        ("/revoke", Some(json!({ "grant": 1 }))),
        ("/logout", Some(json!({}))),
        ("/login", Some(json!({ "token": "0".repeat(48) }))),
    ]
}

fn request(port: u16, path: &str, body: Option<&Value>) -> Request {
    match body {
        Some(body) => http::post(port, path, body),
        None => http::get(port, path),
    }
}

#[test]
fn foreign_pages_rebound_names_and_strangers_are_refused_on_every_address() {
    let model = ScriptedModel::start(Script::echo()).expect("a scripted model");
    let system = System::start(model.port(), "");
    let (port, browser) = (system.web_port(), Browser::log_in(&system));
    let files = FILES.into_iter().map(|path| (path, None));
    for (path, body) in api().into_iter().chain(files) {
        let new = || browser.of(request(port, path, body.as_ref()));
        let refused = |request: Request| request.stream().0.status;
        for foreign in [
            "http://evil.example",
            "null",
            &origin(port ^ 1),
            &format!("https://127.0.0.1:{port}"),
        ] {
            assert_eq!(
                refused(new().header("Origin", foreign)),
                403,
                "{path} from {foreign}"
            );
        }
        for rebound in [
            "evil.example",
            &format!("evil.example:{port}"),
            "127.0.0.1",
            &format!("0.0.0.0:{port}"),
        ] {
            let with_origin = new()
                .header("Host", rebound)
                .header("Origin", &format!("http://{rebound}"));
            assert_eq!(refused(with_origin), 421, "{path} as {rebound}");
        }
    }
    for (path, body) in api() {
        let new = || request(port, path, body.as_ref());
        assert_eq!(
            browser.of(new()).stream().0.status,
            403,
            "{path} without an origin"
        );
        let cross = browser
            .of(new())
            .header("Origin", &origin(port))
            .header("Sec-Fetch-Site", "cross-site");
        assert_eq!(cross.stream().0.status, 403, "{path} from another site");
        let ours = || new().header("Origin", &origin(port));
        let without = [
            ours(),
            ours().header("Cookie", &browser.cookie),
            ours().header("X-Bulkhead-Page-Key", &browser.page_key),
            ours()
                .header("Cookie", &format!("bulkhead_{port}={}", "0".repeat(24)))
                .header("X-Bulkhead-Page-Key", &browser.page_key),
        ];
        for request in without {
            assert_eq!(request.stream().0.status, 401, "{path} without a login");
        }
    }
    assert_eq!(model.requests().len(), 0);
    assert_eq!(system.rows("inbound").len(), 0);
    assert_eq!(browser.get("/transcript").send().status, 200);
}

#[test]
fn after_logging_out_the_cookie_is_worth_nothing() {
    let model = ScriptedModel::start(Script::echo()).expect("a scripted model");
    let system = System::start(model.port(), "");
    let (browser, other) = (Browser::log_in(&system), Browser::log_in(&system));
    let mut events = browser.events();
    next(&mut events, "link");
    let gone = browser.post("/logout", &json!({})).send();
    assert_eq!(gone.status, 202);
    assert!(
        gone.header("set-cookie")
            .is_some_and(|cookie| cookie.contains("Max-Age=0")),
        "{gone:?}"
    );
    assert_eq!(events.next(), None);
    for path in ["/transcript", "/events"] {
        assert_eq!(browser.get(path).stream().0.status, 401, "{path}");
    }
    assert_eq!(other.get("/transcript").send().status, 200);
    system.signal("bulkhead-channel-web", "KILL");
    wait_for("the page is served again", || {
        (other.get("/transcript").stream().0.status == 200).then_some(())
    });
    assert_eq!(browser.get("/transcript").send().status, 401);
}

#[test]
fn a_browser_whose_pairing_was_revoked_hears_and_says_nothing_more() {
    let model = ScriptedModel::start(Script::echo()).expect("a scripted model");
    let system = System::start(model.port(), "");
    let browser = Browser::log_in(&system);
    browser.says("m-1", "hello");
    browser.wait_for_answer("You said: hello");
    let mut events = browser.events();
    next(&mut events, "link");
    let sender = system.json(&["pair", "list"])["sender"]
        .as_str()
        .expect("a browser")
        .to_owned();
    let revoked = system.bulkhead(&["pair", "revoke", "web", &sender]);
    assert!(revoked.status.success(), "{}", said(&revoked));
    assert_eq!(events.next(), None);
    let said = browser.post("/message", &json!({ "id": "m-2", "text": "again" }));
    for request in [said, browser.get("/transcript"), browser.get("/events")] {
        assert_eq!(request.stream().0.status, 401);
    }
    assert_eq!(model.requests().len(), 1);
}

#[test]
fn nobody_else_can_listen_where_browsers_look_for_the_page() {
    let model = ScriptedModel::start(Script::echo()).expect("a scripted model");
    let system = System::start(model.port(), "");
    let port = system.web_port();
    // Where there is no IPv6, nobody can listen on it.
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).expect_err("somebody has it");
    let there = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if there {
        assert_eq!(six.kind(), ErrorKind::AddrInUse);
        let mut page = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("the page");
        let ask = format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
        page.write_all(ask.as_bytes()).expect("it listens");
        let mut reply = String::new();
        page.read_to_string(&mut reply).expect("an answer");
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        assert!(reply.contains("<title>Bulkhead</title>"), "{reply}");

        // Whoever was there first is not let be.
        assert!(system.bulkhead(&["down"]).status.success());
        let squatter = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).expect("it is free");
        let refused = system.bulkhead(&["up", "--detach"]);
        assert!(!refused.status.success());
        assert!(said(&refused).contains("::1"), "{}", said(&refused));
        drop(squatter);
        system.up();
    }
}
