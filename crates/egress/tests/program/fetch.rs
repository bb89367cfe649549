//! What tools ask for, in a network of the test's own.

use std::time::{Duration, Instant};

use hyper::Version;
use protocol::control::{EgressConfig, Peer};
use protocol::egress::{
    Approved, EgressFault, Extent, FetchBody, FetchFault, FetchOutcome, FetchReply, FetchRequest,
    HttpOrder,
};
use protocol::event::Event;
use protocol::frame::Link;
use protocol::ids::{CallId, CallRef, Digest, TurnId};
use protocol::outbound::{
    Asks, Budgets, Cleartext, EgressRule, Inspect, Method, PathPattern, RuleReach,
};

use crate::support::{Egress, Events, LIMIT, closed_port, ledger, loopback, next, session};
use crate::vault::{Secret, vault};
use crate::world::{
    Certificate, H1, H2, INSIDE, ONE, Reply, Sent, TWO, Tls, World, in_namespace, nothing,
};

pub(crate) const API: &str = "api.example.com";
pub(crate) const OTHER: &str = "other.example.net";

/// The program with everything that it is linked with.
pub(crate) struct Door {
    pub(crate) egress: Egress,
    pub(crate) gateway: Link<FetchRequest, FetchReply>,
    pub(crate) events: Events,
}

impl Door {
    pub(crate) fn new(world: &World, rules: Vec<EgressRule>, secrets: Vec<Secret>) -> Self {
        let egress = Egress::start_with(EgressConfig {
            model: loopback(closed_port()),
            tunnels: Vec::new(),
            rules,
            extra_roots: vec![world.root.clone()],
        });
        let events = ledger(egress.link(Peer::Ledger));
        vault(&egress, secrets);
        let gateway = Link::new(egress.link(Peer::Gateway));
        Self {
            egress,
            gateway,
            events,
        }
    }

    pub(crate) fn send(&self, id: u32, order: HttpOrder) {
        let request = FetchRequest::Fetch {
            call: call(id),
            order,
        };
        self.gateway.send(&request).unwrap();
    }

    pub(crate) fn ask(&self, order: HttpOrder) -> Result<FetchOutcome, FetchFault> {
        self.send(1, order);
        match self.gateway.receive().unwrap() {
            FetchReply::Fetched { outcome, .. } => Ok(outcome),
            FetchReply::Refused { fault, .. } => Err(fault),
            other @ FetchReply::Touched { .. } => panic!("{other:?}"),
        }
    }

    pub(crate) fn refused(&self, order: HttpOrder) -> String {
        match self.ask(order) {
            Err(
                fault @ (FetchFault::NotAllowed { .. }
                | FetchFault::Credential { .. }
                | FetchFault::OverBudget { .. }),
            ) => fault.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn call(id: u32) -> CallRef {
    CallRef {
        session: session(),
        turn: TurnId(7),
        call: CallId(id),
    }
}

pub(crate) fn get(url: &str) -> HttpOrder {
    HttpOrder {
        tool: "http_request".parse().unwrap(),
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: None,
        credential: None,
        approved: Approved::Rule,
    }
}

pub(crate) fn post(url: &str, body: &str) -> HttpOrder {
    HttpOrder {
        method: "POST".to_owned(),
        body: Some(body.to_owned()),
        ..get(url)
    }
}

pub(crate) fn by_person(order: HttpOrder) -> HttpOrder {
    HttpOrder {
        approved: Approved::Person,
        ..order
    }
}

/// All of this host, without asking.
pub(crate) fn rule(host: &str) -> EgressRule {
    EgressRule {
        name: host.replace('.', "-").parse().unwrap(),
        subject: "tool:http_request".parse().unwrap(),
        host: host.parse().unwrap(),
        ports: vec![443.try_into().unwrap()],
        methods: Method::ALL.to_vec(),
        paths: vec![PathPattern::all()],
        owner: "me".parse().unwrap(),
        expires: "2099-01-01".parse().unwrap(),
        ask: Asks::Never,
        credential: None,
        budgets: Budgets::default(),
        cleartext: Cleartext::Refused,
        reach: RuleReach::Public,
        inspect: Inspect::No,
    }
}

pub(crate) fn text(outcome: &FetchOutcome) -> &str {
    match &outcome.body {
        FetchBody::Text { text } => text,
        FetchBody::Base64 { base64 } => panic!("{base64}"),
    }
}

fn good(name: &str) -> Tls<'_> {
    Tls::For(name, Certificate::Good, H1)
}

#[test]
fn a_tool_s_request_is_made_over_both_versions_of_http_with_a_row_before_and_after() {
    let name =
        "fetch::a_tool_s_request_is_made_over_both_versions_of_http_with_a_row_before_and_after";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        world.name(OTHER, &[&[TWO]]);
        let one = world.serve("93.184.216.34:443", good(API), |got| {
            Reply::text(&format!("{} {}", got.method, got.uri))
        });
        let tls = Tls::For(OTHER, Certificate::Good, H2);
        let two = world.serve("93.184.216.35:443", tls, |got| {
            Reply::text(&String::from_utf8_lossy(&got.body))
        });
        let door = Door::new(world, vec![rule(API), rule(OTHER)], Vec::new());
        let outcome = door.ask(get("https://api.example.com/a?b=c")).unwrap();
        assert_eq!((outcome.status, text(&outcome)), (200, "GET /a?b=c"));
        assert_eq!(outcome.final_url, "https://api.example.com/a?b=c");
        assert_eq!(
            outcome.headers[0],
            ("content-type".to_owned(), "text/plain".to_owned())
        );
        let got = one.recv_timeout(LIMIT).unwrap();
        assert_eq!(got.version, Version::HTTP_11);
        assert_eq!(got.header("host"), Some(API));
        assert_eq!(got.header("user-agent"), Some("bulkhead/0.1.0"));
        assert_eq!(got.header("accept-encoding"), Some("identity"));
        for name in ["cookie", "referer", "authorization"] {
            assert_eq!(got.header(name), None);
        }
        let Event::EgressRequest {
            host,
            port,
            path,
            rule,
            secret,
            method,
            ..
        } = next(&door.events)
        else {
            panic!("no row before it");
        };
        assert_eq!(
            (host.as_str(), port, path.as_str(), method.as_str()),
            (API, 443, "/a", "GET")
        );
        assert_eq!((rule.as_deref(), secret), (Some("api-example-com"), None));
        let after = next(&door.events);
        assert!(
            matches!(
                after,
                Event::EgressResponse {
                    status: 200,
                    fault: None,
                    ..
                }
            ),
            "{after:?}"
        );

        let order = HttpOrder {
            headers: vec![("Content-Type".to_owned(), "text/plain".to_owned())],
            ..post("https://other.example.net/", "hello")
        };
        let outcome = door.ask(order).unwrap();
        assert_eq!((text(&outcome), outcome.bytes_down), ("hello", 5));
        // First line and headers too.
        assert!((60..200).contains(&outcome.bytes_up), "{outcome:?}");
        let got = two.recv_timeout(LIMIT).unwrap();
        assert_eq!(
            (got.version, got.body.as_slice()),
            (Version::HTTP_2, &b"hello"[..])
        );
        assert_eq!(got.header("content-type"), Some("text/plain"));
        let Event::EgressRequest { sha256, bytes, .. } = next(&door.events) else {
            panic!("no row before it");
        };
        assert_eq!((sha256, bytes), (Digest::of("hello"), 5));
        assert_eq!(world.asked(API), 1, "a name is resolved once");
        door.egress.stop();
    });
}

#[test]
fn without_a_record_no_tool_s_request_leaves_not_even_a_question_to_a_resolver() {
    let name = "fetch::without_a_record_no_tool_s_request_leaves_not_even_a_question_to_a_resolver";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        let heard = world.serve("93.184.216.34:443", good(API), |_| Reply::text("no"));
        let door = Door::new(world, vec![rule(API)], Vec::new());
        // A ledger that takes nothing: its link is at its end.
        drop(door.egress.link(Peer::Ledger));
        let refused = door.ask(get("https://api.example.com/"));
        let cause = EgressFault::NoRecord;
        assert_eq!(refused, Err(FetchFault::Failed { cause }));
        nothing(&heard);
        assert_eq!(world.asked(API), 0);
    });
}

#[test]
fn a_name_that_leads_inside_is_refused_however_it_answers() {
    let name = "fetch::a_name_that_leads_inside_is_refused_however_it_answers";
    in_namespace(name, |world| {
        let canaries: Vec<_> = INSIDE
            .iter()
            .chain(&["127.0.0.1"])
            .map(|address| world.serve(&format!("{address}:443"), good(API), |_| Reply::text("no")))
            .collect();
        let public = world.serve("93.184.216.34:443", good(API), |_| Reply::text("yes"));
        let door = Door::new(world, vec![rule(API)], Vec::new());
        let order = || get("https://api.example.com/");
        for list in [
            &["127.0.0.1"][..],
            &["10.11.12.13"],
            &["169.254.169.254"],
            &["100.64.0.1"],
            &["0.0.0.0"],
            &["255.255.255.255"],
            &["224.0.0.1"],
            &["::1"],
            &["::ffff:127.0.0.1"],
            &["::ffff:10.11.12.13"],
            &["64:ff9b::7f00:1"],
            &["64:ff9b:1::a0b:c0d"],
            &["2002:7f00:1::1"],
            &["fe80::1"],
            &["fc00::1"],
            &[ONE, "127.0.0.1"],
            &["10.11.12.13", ONE],
            &[ONE, "::1"],
            &[],
        ] {
            world.name(API, &[list]);
            let fault = door.ask(order()).unwrap_err();
            let unanswered = matches!(
                &fault,
                FetchFault::Failed {
                    cause: EgressFault::Unreachable { .. }
                }
            );
            let refused = matches!(fault, FetchFault::NotAllowed { .. });
            assert!(
                refused || list.is_empty() && unanswered,
                "{list:?}: {fault:?}"
            );
        }
        // Public when it is judged, inside a moment later: it is asked for once, and what was
        // judged is what is connected to.
        world.name(API, &[&[ONE], &["127.0.0.1"], &["10.11.12.13"]]);
        assert_eq!(text(&door.ask(order()).unwrap()), "yes");
        assert_eq!(world.asked(API), 1);
        assert!(door.refused(order()).contains("127.0.0.1"));
        assert!(door.refused(order()).contains("10.11.12.13"));
        public.recv_timeout(LIMIT).unwrap();
        for canary in canaries {
            assert!(canary.try_recv().is_err());
        }
    });
}

/// Where a redirect must not lead, and what is said of it.
const NOT_FOLLOWED: [(&str, &str); 12] = [
    ("https://other.example.net/elsewhere", "path"),
    ("https://unknown.example.org/", "rule"),
    ("http://api.example.com/end", "clear"),
    ("http://169.254.169.254/latest/meta-data", "clear"),
    ("https://169.254.169.254/", "address"),
    ("https://[::ffff:10.11.12.13]/", "address"),
    ("https://2130706433/", "address"),
    ("https://localhost/", ""),
    ("https://user@other.example.net/end", "user"),
    ("file:///etc/passwd", "spoken"),
    ("https://other.example.net:22/end", "port"),
    ("https://inside.example.net/", ""),
];

#[test]
fn each_redirect_is_judged_as_if_it_had_been_asked_for() {
    let name = "fetch::each_redirect_is_judged_as_if_it_had_been_asked_for";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        world.name(OTHER, &[&[TWO]]);
        world.name("inside.example.net", &[&["169.254.169.254"]]);
        let canary = world.serve("169.254.169.254:80", Tls::None, |_| Reply::text("no"));
        let _one = world.serve("93.184.216.34:443", good(API), |got| {
            match got.uri.as_str() {
                "/free" => Reply::to(302, "https://other.example.net/end"),
                "/post" => Reply::to(303, "/end"),
                "/kept" => Reply::to(307, "/end"),
                "/round" => Reply::to(302, "/round"),
                "/end" => Reply::text(&format!("{} {}", got.method, got.body.len())),
                path => {
                    let number: usize = path["/to/".len()..].parse().unwrap();
                    Reply::to(302, NOT_FOLLOWED[number].0)
                }
            }
        });
        let other = world.serve("93.184.216.35:443", good(OTHER), |_| Reply::text("other"));
        let inside = EgressRule {
            name: "inside".parse().unwrap(),
            host: "inside.example.net".parse().unwrap(),
            ..rule(OTHER)
        };
        let narrow = EgressRule {
            paths: vec!["/end".parse().unwrap()],
            ..rule(OTHER)
        };
        let door = Door::new(world, vec![rule(API), narrow, inside], Vec::new());
        let at = |path: &str| format!("https://api.example.com{path}");
        let outcome = door.ask(get(&at("/free"))).unwrap();
        assert_eq!(text(&outcome), "other");
        assert_eq!(outcome.redirects, ["https://other.example.net/end"]);
        assert_eq!(outcome.final_url, "https://other.example.net/end");
        other.recv_timeout(LIMIT).unwrap();
        assert_eq!(text(&door.ask(post(&at("/post"), "x")).unwrap()), "GET 0");
        assert_eq!(text(&door.ask(post(&at("/kept"), "x")).unwrap()), "POST 1");
        for (number, (to, named)) in NOT_FOLLOWED[..NOT_FOLLOWED.len() - 1].iter().enumerate() {
            let fault = door.ask(get(&at(&format!("/to/{number}")))).unwrap_err();
            let FetchFault::Redirected {
                status: 302,
                target,
                reason,
            } = &fault
            else {
                panic!("{to}: {fault:?}");
            };
            assert_eq!(target, to);
            assert!(reason.contains(named), "{to}: {reason}");
        }
        let last = NOT_FOLLOWED.len() - 1;
        let leads_inside = door.ask(get(&at(&format!("/to/{last}")))).unwrap_err();
        assert!(
            matches!(leads_inside, FetchFault::NotAllowed { .. }),
            "{leads_inside:?}"
        );
        let round = door.ask(get(&at("/round"))).unwrap_err();
        assert!(
            matches!(&round, FetchFault::Redirected { reason, .. } if reason.starts_with("5 ")),
            "{round:?}"
        );
        // A person said yes to one address.
        let yes = door.ask(by_person(get(&at("/free")))).unwrap_err();
        let FetchFault::Redirected { target, .. } = yes else {
            panic!("{yes:?}");
        };
        assert_eq!(target, "https://other.example.net/end");
        nothing(&other);
        nothing(&canary);
    });
}

#[test]
fn what_no_rule_allows_takes_a_person_and_what_is_refused_takes_more() {
    let name = "fetch::what_no_rule_allows_takes_a_person_and_what_is_refused_takes_more";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        let heard = world.serve("93.184.216.34:443", good(API), |_| Reply::text("ok"));
        let asks = EgressRule {
            host: OTHER.parse().unwrap(),
            ..rule(OTHER)
        };
        let door = Door::new(world, vec![asks], Vec::new());
        let order = || get("https://api.example.com/");
        assert!(door.refused(order()).contains("a person has to allow it"));
        assert!(matches!(next(&door.events), Event::EgressRefused { .. }));
        nothing(&heard);
        assert_eq!(text(&door.ask(by_person(order())).unwrap()), "ok");
        heard.recv_timeout(LIMIT).unwrap();
        // Not even with a yes.
        for url in [
            "http://127.0.0.1/",
            "https://10.11.12.13/",
            "http://localhost:8080/",
            "https://api.example.com:22/",
            "https://user:pw@api.example.com/",
            "https://xn--80ak6aa92e.com/",
            "gopher://api.example.com/",
            "https://api.example.com/\r\nX: y",
            "ws://api.example.com/",
        ] {
            door.refused(by_person(get(url)));
        }
        let with_secret = HttpOrder {
            credential: Some("key".parse().unwrap()),
            ..by_person(order())
        };
        assert!(door.refused(with_secret).contains("secret"));
        for (method, headers, body) in [
            ("get", vec![], None),
            ("TRACE", vec![], None),
            ("CONNECT", vec![], None),
            ("GET", vec![("Host", "other.example.net")], None),
            ("GET", vec![("Authorization", "Bearer x")], None),
            ("GET", vec![("Transfer-Encoding", "chunked")], None),
            ("GET", vec![("X-A", "b\r\nHost: c")], None),
            ("GET", vec![], Some("a body".to_owned())),
        ] {
            let headers = headers
                .into_iter()
                .map(|(n, v)| (n.to_owned(), v.to_owned()));
            door.refused(HttpOrder {
                method: method.to_owned(),
                headers: headers.collect(),
                body,
                ..by_person(order())
            });
        }
        nothing(&heard);
    });
}

#[test]
fn a_server_has_to_prove_who_it_is_to_a_tool_s_request() {
    let name = "fetch::a_server_has_to_prove_who_it_is_to_a_tool_s_request";
    in_namespace(name, |world| {
        let served = [
            ("93.184.216.34:443", Tls::For(API, Certificate::Expired, H2)),
            (
                "93.184.216.34:444",
                Tls::For(API, Certificate::OfNobody, H2),
            ),
            ("93.184.216.34:445", Tls::For(OTHER, Certificate::Good, H2)),
            ("93.184.216.34:446", Tls::None),
        ];
        world.name(API, &[&[ONE]]);
        let ports = EgressRule {
            ports: [443, 444, 445, 446]
                .map(|port: u16| port.try_into().unwrap())
                .to_vec(),
            ..rule(API)
        };
        let heard: Vec<_> = served
            .map(|(address, tls)| world.serve(address, tls, |_| Reply::text("no")))
            .into_iter()
            .collect();
        let door = Door::new(world, vec![ports], Vec::new());
        for port in 443..=446 {
            let fault = door
                .ask(get(&format!("https://api.example.com:{port}/")))
                .unwrap_err();
            let FetchFault::Failed {
                cause: EgressFault::Protocol { detail },
            } = &fault
            else {
                panic!("{port}: {fault:?}");
            };
            assert!(detail.starts_with("TLS: "), "{detail}");
        }
        for heard in heard {
            assert!(heard.try_recv().is_err());
        }
    });
}

#[test]
fn nothing_that_a_server_sends_is_endless() {
    let name = "fetch::nothing_that_a_server_sends_is_endless";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        for (port, protocols) in [(443, H1), (444, H2)] {
            let tls = Tls::For(API, Certificate::Good, protocols);
            world.serve(&format!("93.184.216.34:{port}"), tls, |got| Reply {
                status: 200,
                headers: match got.uri.contains("packed") {
                    true => vec![("content-encoding", "gzip".to_owned())],
                    false => Vec::new(),
                },
                body: Sent::Endless,
            });
        }
        let many = (0..200)
            .map(|n| format!("x-{n}: y\r\n"))
            .collect::<String>();
        let head = "HTTP/1.1 200 OK\r\n";
        let long = "x".repeat(300_000);
        let odd: [Vec<u8>; 6] = [
            format!("{head}{many}\r\n").into_bytes(),
            format!("{head}x: {long}\r\n\r\n").into_bytes(),
            b"nothing of HTTP\r\n\r\n".to_vec(),
            format!("{head}content-length: 9\r\n\r\nshort").into_bytes(),
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
                .to_vec(),
            Vec::new(),
        ];
        for (port, bytes) in (500..).zip(odd) {
            world.babble(&format!("93.184.216.34:{port}"), API, bytes);
        }
        let ports = EgressRule {
            ports: (443..=510)
                .map(|port: u16| port.try_into().unwrap())
                .take(64)
                .collect(),
            ..rule(API)
        };
        let door = Door::new(world, vec![ports], Vec::new());
        for port in [443, 444] {
            let url = format!("https://api.example.com:{port}");
            let outcome = door.ask(get(&format!("{url}/"))).unwrap();
            assert_eq!(outcome.extent, Extent::Truncated);
            assert_eq!(text(&outcome).len(), 1792 * 1024);
            let packed = door.ask(get(&format!("{url}/packed"))).unwrap_err();
            assert!(packed.to_string().contains("compressed"), "{packed}");
        }
        for port in 500..506 {
            let fault = door
                .ask(get(&format!("https://api.example.com:{port}/")))
                .unwrap_err();
            assert!(
                matches!(fault, FetchFault::Failed { .. }),
                "{port}: {fault:?}"
            );
        }
    });
}

#[test]
fn a_slow_server_holds_up_nobody_and_a_cancelled_request_is_over_at_once() {
    let name = "fetch::a_slow_server_holds_up_nobody_and_a_cancelled_request_is_over_at_once";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        for (port, protocols) in [(443, H1), (444, H2)] {
            let tls = Tls::For(API, Certificate::Good, protocols);
            world.serve(&format!("93.184.216.34:{port}"), tls, |got| Reply {
                body: match got.uri.ends_with("/slow") {
                    true => Sent::Never,
                    false => Sent::Whole(b"quick".to_vec()),
                },
                ..Reply::text("")
            });
        }
        let both = EgressRule {
            ports: [443, 444]
                .map(|port: u16| port.try_into().unwrap())
                .to_vec(),
            budgets: Budgets {
                per_minute: 1000.try_into().unwrap(),
                ..Budgets::default()
            },
            ..rule(API)
        };
        let door = Door::new(world, vec![both], Vec::new());
        let started = Instant::now();
        for id in 0..14 {
            let port = 443 + id % 2;
            door.send(id, get(&format!("https://api.example.com:{port}/slow")));
        }
        door.send(20, get("https://api.example.com/"));
        let reply = door.gateway.receive().unwrap();
        let FetchReply::Fetched { call: of, outcome } = reply else {
            panic!("{reply:?}");
        };
        assert_eq!((of, text(&outcome)), (call(20), "quick"));
        for id in 0..14 {
            door.gateway
                .send(&FetchRequest::Cancel { call: call(id) })
                .unwrap();
            let reply = door.gateway.receive().unwrap();
            let fault = FetchFault::Cancelled;
            assert_eq!(
                reply,
                FetchReply::Refused {
                    call: call(id),
                    fault
                }
            );
        }
        // One that is over has no second reply.
        door.gateway
            .send(&FetchRequest::Cancel { call: call(20) })
            .unwrap();
        assert_eq!(
            text(&door.ask(get("https://api.example.com/")).unwrap()),
            "quick"
        );
        assert!(started.elapsed() < Duration::from_secs(10));
        let ended = door.events.try_iter().filter(|(_, event)| {
            matches!(event, Event::EgressResponse { fault: Some(fault), .. } if fault == "cancelled")
        });
        assert_eq!(ended.count(), 14);
    });
}

#[test]
fn more_than_is_made_at_once_is_refused_and_not_kept() {
    let name = "fetch::more_than_is_made_at_once_is_refused_and_not_kept";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        world.serve("93.184.216.34:443", good(API), |_| Reply {
            body: Sent::Never,
            ..Reply::text("")
        });
        let door = Door::new(world, vec![rule(API)], Vec::new());
        for id in 0..70 {
            door.send(id, get("https://api.example.com/"));
        }
        for id in 64..70 {
            let reply = door.gateway.receive().unwrap();
            let fault = FetchFault::Busy;
            assert_eq!(
                reply,
                FetchReply::Refused {
                    call: call(id),
                    fault
                }
            );
        }
    });
}

#[test]
fn a_rule_s_budget_is_held_and_one_request_s_bounds_too() {
    let name = "fetch::a_rule_s_budget_is_held_and_one_request_s_bounds_too";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        world.name(OTHER, &[&[TWO]]);
        let body = "x".repeat(300);
        world.serve("93.184.216.34:443", good(API), move |_| Reply::text(&body));
        world.serve("93.184.216.35:443", good(OTHER), |_| Reply::text("ok"));
        let small = |per_minute: u32, per_day: &str| Budgets {
            per_minute: per_minute.try_into().unwrap(),
            per_day: per_day.parse().unwrap(),
            upload: "1 KiB".parse().unwrap(),
            download: "1 KiB".parse().unwrap(),
        };
        let few = EgressRule {
            budgets: small(2, "1 MiB"),
            ..rule(OTHER)
        };
        let little = EgressRule {
            budgets: small(1000, "1 KiB"),
            ..rule(API)
        };
        let door = Door::new(world, vec![few, little], Vec::new());
        let other = || get("https://other.example.net/");
        let large = post("https://other.example.net/", &"x".repeat(1025));
        assert!(door.refused(large).contains("1024"));
        for _ in 0..2 {
            door.ask(other()).unwrap();
        }
        let over = door.ask(other()).unwrap_err();
        assert!(
            matches!(&over, FetchFault::OverBudget { limit, .. } if limit == "2 requests a minute"),
            "{over:?}"
        );
        let api = || get("https://api.example.com/");
        let mut left = 1024;
        while left > 0 {
            let outcome = door.ask(api()).unwrap();
            let up = usize::try_from(outcome.bytes_up).unwrap();
            assert!(
                (50..200).contains(&up),
                "what goes up is counted whole: {up}"
            );
            let down = text(&outcome).len();
            assert_eq!(down, 300.min(left - up));
            left -= up + down;
        }
        let over = door.ask(api()).unwrap_err();
        assert!(
            matches!(&over, FetchFault::OverBudget { rule, .. } if rule == "api-example-com"),
            "{over:?}"
        );
    });
}

#[test]
fn an_allowed_host_is_not_an_allowed_destination() {
    let name = "fetch::an_allowed_host_is_not_an_allowed_destination";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        let heard = world.serve("93.184.216.34:443", good(API), |_| Reply::text("ok"));
        let mine = EgressRule {
            methods: vec![Method::Get, Method::Post],
            paths: vec!["/repos/me/notes/*".parse().unwrap()],
            ..rule(API)
        };
        let door = Door::new(world, vec![mine], Vec::new());
        let at = |path: &str| get(&format!("https://api.example.com{path}"));
        assert_eq!(text(&door.ask(at("/repos/me/notes/1")).unwrap()), "ok");
        assert_eq!(heard.recv_timeout(LIMIT).unwrap().uri, "/repos/me/notes/1");
        for path in [
            "/repos/them/notes/1",
            "/repos/me/notes",
            "/repos/me/notes-of-them/1",
            "/repos/me/notes/../../them/notes/1",
            "/repos/me/notes/%2e%2e/%2e%2e/them/notes/1",
            "/repos/me/notes%2f..%2f..%2fthem/1",
            "/repos/ME/notes/1",
            "//repos/me/notes/1",
            "/repos/them/notes/1?/repos/me/notes/1",
            "/repos/them/notes/1#/repos/me/notes/1",
            "/",
        ] {
            door.refused(at(path));
            door.refused(by_person(at(path)));
        }
        for method in ["DELETE", "PUT", "PATCH"] {
            door.refused(by_person(HttpOrder {
                method: method.to_owned(),
                ..at("/repos/me/notes/1")
            }));
        }
        door.refused(by_person(at("/repos/me/notes/1?_method=DELETE")));
        nothing(&heard);
    });
}
