//! Who gets in: names, origins, logins.

use protocol::channel::{ChannelEvent, ChannelRequest};
use protocol::control::Control;
use protocol::identity::IdentityKey;
use serde_json::json;

use crate::http::Request;
use crate::page::{Page, logged_in, secret, transcript};

/// Every address that reads or changes something, but the login itself.
fn api(page: &Page) -> Vec<Request> {
    let answer = json!({ "approval": "01".repeat(8), "digest": "02".repeat(32), "nonce": "03".repeat(16), "answer": "deny" });
    let passkey = json!({ "code": "abc", "enrolment": {
        "credential": "01", "public_key": "02", "authenticator_data": "03", "client_data": "04",
    }});
    vec![
        page.get("/events"),
        page.get("/transcript"),
        page.post("/message", &json!({ "id": "m1", "text": "hello" })),
        page.post("/stop", &json!({})),
        page.post("/panic", &json!({})),
        page.post("/answer", &answer),
        page.post("/passkey", &passkey),
        page.get("/grants"),
        page.post("/revoke", &json!({ "grant": 1 })),
        page.post("/logout", &json!({})),
    ]
}

fn files(page: &Page) -> Vec<Request> {
    let paths = [
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
    let by_name = format!("localhost:{}", page.port);
    paths
        .map(|path| page.get(path).with("Host", &by_name))
        .to_vec()
}

/// All of them, and an address where there is nothing.
fn everything(page: &Page) -> Vec<Request> {
    let mut all = api(page);
    all.extend(files(page));
    all.push(page.login_with("token"));
    all.push(page.get("/nothing"));
    all
}

#[test]
fn a_one_time_link_logs_a_browser_in_and_only_once() {
    let page = Page::up();
    let session = page.log_in("anna");
    assert!(
        session
            .cookie
            .starts_with(&format!("bulkhead_{}=", page.port)),
        "{session:?}"
    );
    let reply = page.ask(session.of(page.get("/transcript")), |gateway| {
        let ChannelRequest::History {
            id,
            sender,
            conversation,
        } = gateway.receive().unwrap()
        else {
            panic!()
        };
        assert_eq!(
            (sender.as_str(), conversation.as_str()),
            ("sender-anna", "anna")
        );
        gateway.send(&transcript(id)).unwrap();
    });
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json(),
        json!({ "entries": [{ "entry": "user", "text": "hello" }], "running": 3 })
    );

    let refused = page.ask(page.login_with("good"), |gateway| {
        let ChannelRequest::Login { id, .. } = gateway.receive().unwrap() else {
            panic!()
        };
        gateway.send(&ChannelEvent::LoginRefused { id }).unwrap();
    });
    assert_eq!((refused.status, refused.header("set-cookie")), (401, None));
    assert!(
        refused.error().contains("bulkhead login"),
        "{}",
        refused.error()
    );
}

#[test]
fn the_cookie_is_closed_to_scripts_and_to_other_sites() {
    let page = Page::up();
    let reply = page.ask(page.login_with("good"), |gateway| {
        let ChannelRequest::Login { id, .. } = gateway.receive().unwrap() else {
            panic!()
        };
        gateway.send(&logged_in(id, "anna")).unwrap();
    });
    let set = reply.header("set-cookie").unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(!set.contains("Domain"), "{set}");
    // Neither half is the whole.
    let whole = secret("anna");
    assert!(!set.contains(&whole) && !String::from_utf8_lossy(&reply.body).contains(&whole));
}

#[test]
fn every_address_but_the_page_itself_needs_both_halves_of_the_login() {
    let page = Page::up();
    let session = page.log_in("anna");
    for request in api(&page) {
        let wrong = [
            request.clone(),
            request.clone().header("Cookie", &session.cookie),
            request
                .clone()
                .header("X-Bulkhead-Page-Key", &session.page_key),
            session
                .of(request.clone())
                .with("Cookie", &format!("{}; {}", session.cookie, session.cookie)),
            session
                .of(request.clone())
                .with("Cookie", &session.cookie.replace("bulkhead_", "other_")),
        ];
        for request in wrong {
            let shown = format!("{request:?}");
            assert_eq!(request.send().status, 401, "{shown}");
        }
    }
    for request in files(&page) {
        assert_eq!(request.send().status, 200);
    }
}

#[test]
fn a_browser_from_before_is_asked_about_once_and_a_made_up_cookie_is_refused() {
    let page = Page::up();
    let session = page.log_in("anna");
    let made_up = |request: Request| {
        request
            .header("Cookie", &session.cookie)
            .header("X-Bulkhead-Page-Key", &"c".repeat(32))
    };
    let refused = page.ask(made_up(page.get("/transcript")), |gateway| {
        let ChannelRequest::Resume { id, cookie } = gateway.receive().unwrap() else {
            panic!()
        };
        assert!(cookie.ends_with(&"c".repeat(32)));
        gateway.send(&ChannelEvent::LoginRefused { id }).unwrap();
    });
    assert_eq!(refused.status, 401);
    let stopped = page.ask(made_up(page.post("/stop", &json!({}))), |gateway| {
        let ChannelRequest::Resume { id, .. } = gateway.receive().unwrap() else { panic!() };
        gateway.send(&logged_in(id, "berta")).unwrap();
        assert!(matches!(gateway.receive().unwrap(), ChannelRequest::Cancel { sender, .. } if sender.as_str() == "sender-berta"));
    });
    assert_eq!(stopped.status, 202);
    let again = page.ask(made_up(page.post("/stop", &json!({}))), |gateway| {
        assert!(matches!(
            gateway.receive().unwrap(),
            ChannelRequest::Cancel { .. }
        ));
    });
    assert_eq!(again.status, 202);
}

#[test]
fn logins_are_limited_also_from_this_machine() {
    let page = Page::up();
    for _ in 0..10 {
        let reply = page.ask(page.login_with("guess"), |gateway| {
            let ChannelRequest::Login { id, .. } = gateway.receive().unwrap() else {
                panic!()
            };
            gateway.send(&ChannelEvent::LoginRefused { id }).unwrap();
        });
        assert_eq!(reply.status, 401);
    }
    assert_eq!(page.login_with("guess").send().status, 429);
}

#[test]
fn a_rebound_name_is_refused_on_every_address() {
    let page = Page::up();
    let session = page.log_in("anna");
    for request in everything(&page) {
        for host in [
            "evil.example".to_owned(),
            format!("evil.example:{}", page.port),
            "127.0.0.1".to_owned(),
            format!("[::1]:{}", page.port),
        ] {
            let reply = session.of(request.clone()).with("Host", &host).send();
            assert_eq!(reply.status, 421, "{host}: {request:?}");
        }
        let doubled = session
            .of(request.clone())
            .header("Host", &format!("127.0.0.1:{}", page.port))
            .send();
        assert!([400, 421].contains(&doubled.status), "{request:?}");
    }
}

#[test]
fn the_page_by_its_number_is_the_page_by_its_name_elsewhere_and_nothing_more() {
    let page = Page::up();
    for path in ["/", "/login", "/passkey"] {
        let moved = page.get(path).send();
        let there = format!("http://localhost:{}{path}", page.port);
        assert_eq!(
            (moved.status, moved.header("location")),
            (307, Some(there.as_str()))
        );
    }
    // Not what is asked for with it, which would end in logs.
    let moved = page.get("/login?to=http://evil.example").send();
    let there = format!("http://localhost:{}/login", page.port);
    assert_eq!(moved.header("location"), Some(there.as_str()));
    assert_eq!(page.get("//evil.example/").send().status, 404);
}

#[test]
fn another_page_is_refused_on_every_address() {
    let page = Page::up();
    let session = page.log_in("anna");
    let neighbour = format!("http://127.0.0.1:{}", page.port ^ 1);
    for request in everything(&page) {
        for origin in ["http://evil.example", "null", &neighbour] {
            let reply = session.of(request.clone()).with("Origin", origin).send();
            assert_eq!(reply.status, 403, "{origin}: {request:?}");
        }
    }
    for request in api(&page) {
        for site in ["cross-site", "same-site", "none"] {
            let reply = session
                .of(request.clone())
                .with("Sec-Fetch-Site", site)
                .send();
            assert_eq!(reply.status, 403, "{site}: {request:?}");
        }
    }
}

#[test]
fn a_request_that_hides_its_page_is_refused() {
    let page = Page::up();
    let session = page.log_in("anna");
    for request in api(&page) {
        let silent = session
            .of(request.clone())
            .without("Origin")
            .without("Sec-Fetch-Site")
            .send();
        assert_eq!(silent.status, 403, "{request:?}");
        if request.is_post() {
            let half = session.of(request.clone()).without("Origin").send();
            assert_eq!(half.status, 403, "{request:?}");
        }
    }
    assert_eq!(
        page.login_with("token").without("Origin").send().status,
        403
    );
}

#[test]
fn there_is_no_other_protocol_and_no_proxy() {
    let page = Page::up();
    let session = page.log_in("anna");
    for request in everything(&page) {
        let upgrade = session
            .of(request.clone())
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket");
        assert_eq!(upgrade.send().status, 400, "{request:?}");
        let proxied = session
            .of(request.clone())
            .target(&format!("http://127.0.0.1:{}/", page.port));
        assert_eq!(proxied.send().status, 400, "{request:?}");
    }
}

#[test]
fn every_reply_carries_the_protective_headers() {
    let page = Page::up();
    let mut requests = everything(&page);
    requests.extend(
        files(&page)
            .into_iter()
            .map(|request| request.with("Host", "evil.example")),
    );
    for request in requests {
        let shown = format!("{request:?}");
        let reply = request.send();
        let policy = reply
            .header("content-security-policy")
            .unwrap_or_else(|| panic!("no policy: {shown}"));
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(part), "{part}: {shown}");
        }
        assert!(
            !policy.contains("unsafe") && !policy.contains("http"),
            "{policy}"
        );
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{shown}");
        }
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
}

#[test]
fn the_page_names_nothing_elsewhere_and_has_nothing_inline() {
    let page = Page::up();
    for request in files(&page) {
        let text = String::from_utf8(request.send().body).unwrap();
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for forbidden in [
            "http://",
            "https://",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "<style",
            " style=",
            " onclick",
        ] {
            assert!(!text.contains(forbidden), "{forbidden}");
        }
    }
}

#[test]
fn without_its_proof_accepted_the_program_serves_nothing() {
    let page = Page::started();
    assert!(!page.welcome(&IdentityKey::from_seed(&[8; 32])));
    let reply = page.login_with("token").send();
    assert_eq!(reply.status, 503);
    assert!(reply.error().contains("gateway"), "{}", reply.error());
}

#[test]
fn logging_out_ends_the_streams_and_takes_the_cookie() {
    let page = Page::up();
    let session = page.log_in("anna");
    let mut events = session.of(page.get("/events")).open();
    assert_eq!(events.event(), json!({ "type": "link", "state": "up" }));
    let reply = page.ask(session.of(page.post("/logout", &json!({}))), |gateway| {
        let logout = gateway.receive().unwrap();
        assert!(
            matches!(logout, ChannelRequest::Logout { ref sender } if sender.as_str() == "sender-anna"),
            "{logout:?}"
        );
    });
    assert_eq!(reply.status, 202);
    assert!(reply.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert!(events.has_ended());
}

#[test]
fn stop_ends_the_program_in_order_and_so_does_a_lost_supervisor() {
    let mut page = Page::up();
    page.control().send(&Control::Stop).unwrap();
    assert!(page.wait_for_exit().success());

    let mut page = Page::up();
    page.drop_control();
    assert!(!page.wait_for_exit().success());
}
