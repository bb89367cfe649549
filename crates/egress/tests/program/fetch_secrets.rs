//! Credentials of tools' requests, and secrets where they must not be.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::control::{EgressConfig, Peer};
use protocol::egress::{FetchFault, FetchReply, HttpOrder};
use protocol::event::Event;
use protocol::ids::SecretName;
use protocol::marks::MarkKind;
use protocol::outbound::{Credential, EgressRule};

use crate::fetch::{API, Door, OTHER, by_person, get, post, rule, text};
use crate::support::{Egress, LIMIT, Server, answer, chat, hear, ledger, loopback};
use crate::vault::{Opened, Secret, vault};
use crate::world::{Certificate, H1, H2, ONE, Reply, Sent, TWO, Tls, World, in_namespace, nothing};

/// Invented, and in no format that anybody gives keys out in.
pub(crate) fn value() -> String {
    ["Zq8hT2vX", "w91LmPc4", "Rb6Yk3Nd"].concat()
}

fn credential(attach: &str) -> Option<Credential> {
    Some(Credential {
        secret: "key".parse().unwrap(),
        attach: attach.parse().unwrap(),
    })
}

pub(crate) fn with_rule(attach: &str) -> EgressRule {
    EgressRule {
        credential: credential(attach),
        ..rule(API)
    }
}

pub(crate) fn with_key(order: HttpOrder) -> HttpOrder {
    HttpOrder {
        credential: Some("key".parse().unwrap()),
        ..by_person(order)
    }
}

pub(crate) fn tls(name: &str) -> Tls<'_> {
    Tls::For(name, Certificate::Good, H1)
}

fn open(door: &Door, secrets: &[Secret]) -> Opened {
    vault(&door.egress, secrets.to_vec())
}

#[test]
fn a_credential_goes_where_the_rule_and_the_vault_agree_and_nowhere_else() {
    let name =
        "fetch_secrets::a_credential_goes_where_the_rule_and_the_vault_agree_and_nowhere_else";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        world.name(OTHER, &[&[TWO]]);
        let one = world.serve("93.184.216.34:443", tls(API), |got| {
            match got.uri.as_str() {
                "/away" => Reply::to(302, "https://other.example.net/"),
                _ => Reply::text("ok"),
            }
        });
        let two = world.serve("93.184.216.35:443", tls(OTHER), |_| Reply::text("other"));
        let other = EgressRule {
            credential: credential("bearer"),
            ..rule(OTHER)
        };
        let secret = Secret::new("key", &value(), &[API]);
        let door = Door::new(
            world,
            vec![with_rule("bearer"), other],
            vec![secret.clone()],
        );
        let opened = open(&door, &[secret]);
        assert_eq!(
            text(&door.ask(with_key(get("https://api.example.com/"))).unwrap()),
            "ok"
        );
        let got = one.recv_timeout(LIMIT).unwrap();
        assert_eq!(
            got.header("authorization"),
            Some(&*format!("Bearer {}", value()))
        );
        assert_eq!(opened.all(), ["key for api.example.com"]);
        // Only where it is asked for, and not where nobody was asked.
        door.ask(get("https://api.example.com/")).unwrap();
        assert_eq!(
            one.recv_timeout(LIMIT).unwrap().header("authorization"),
            None
        );
        let unasked = HttpOrder {
            credential: Some("key".parse().unwrap()),
            ..get("https://api.example.com/")
        };
        assert!(door.refused(unasked).contains("a person has to allow it"));
        // The rule would send it there, and the vault does not give it for that.
        let refused = door
            .ask(with_key(get("https://other.example.net/")))
            .unwrap_err();
        assert!(
            matches!(&refused, FetchFault::Credential { reason } if reason.contains(OTHER)),
            "{refused:?}"
        );
        // The vault would give it, and no rule sends it.
        let unknown = HttpOrder {
            credential: Some("another".parse().unwrap()),
            ..by_person(get("https://api.example.com/"))
        };
        assert!(door.refused(unknown).contains("another"));
        // Never along with a redirect.
        let away = door
            .ask(with_key(get("https://api.example.com/away")))
            .unwrap_err();
        assert!(matches!(away, FetchFault::Redirected { .. }), "{away:?}");
        nothing(&two);
        for (_, event) in door.events.try_iter() {
            assert!(!format!("{event:?}").contains(&value()));
        }
    });
}

#[test]
fn each_way_to_attach_a_credential_reaches_the_server() {
    let name = "fetch_secrets::each_way_to_attach_a_credential_reaches_the_server";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        let heard = world.serve(
            "93.184.216.34:443",
            Tls::For(API, Certificate::Good, H2),
            |_| Reply::text("ok"),
        );
        let hush = value();
        let pair = format!("user:{hush}");
        let basic = format!("Basic {}", STANDARD.encode(&pair));
        let signed = format!("AKIDEXAMPLE:{hush}");
        for (attach, secret, order, sees) in [
            (
                "basic",
                &pair,
                get("https://api.example.com/"),
                basic.as_str(),
            ),
            (
                "header X-Api-Key",
                &hush,
                get("https://api.example.com/"),
                hush.as_str(),
            ),
            (
                "query key",
                &hush,
                get("https://api.example.com/?a=b"),
                "a=b&key=",
            ),
            (
                "path bot",
                &hush,
                get("https://api.example.com/bot{bot}/x"),
                "/botZq8",
            ),
            (
                "field /a/b",
                &hush,
                post("https://api.example.com/", r#"{"a":{}}"#),
                r#"{"a":{"b":"Zq8"#,
            ),
            (
                "sigv4 eu-west-1 s3",
                &signed,
                get("https://api.example.com/x"),
                "Credential=AKIDEXAMPLE/",
            ),
        ] {
            let mut rule = with_rule(attach);
            if attach.starts_with("path") {
                rule.paths = vec!["/bot{bot}/*".parse().unwrap()];
            }
            let secret = Secret::new("key", secret, &[API]);
            let door = Door::new(world, vec![rule], vec![secret]);
            assert_eq!(text(&door.ask(with_key(order)).unwrap()), "ok");
            let got = heard.recv_timeout(LIMIT).unwrap();
            let body = String::from_utf8_lossy(&got.body).into_owned();
            let all = format!("{} {:?} {body}", got.uri, got.headers);
            assert!(all.contains(sees), "{attach}: {all}");
            for (_, event) in door.events.try_iter() {
                assert!(!format!("{event:?}").contains("Zq8hT2"), "{event:?}");
            }
        }
    });
}

#[test]
fn a_refresh_token_gets_an_access_token_which_is_used_until_it_ends() {
    let name = "fetch_secrets::a_refresh_token_gets_an_access_token_which_is_used_until_it_ends";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        world.name("auth.example.net", &[&[TWO]]);
        let api = world.serve("93.184.216.34:443", tls(API), |got| {
            Reply::text(&format!("{:?}", got.headers))
        });
        let granted = ["access", "Hg7Qw2", "Lk9Vb4Xs"].concat();
        let answer = format!(
            r#"{{"access_token":"{granted}","token_type":"Bearer","expires_in":3600,"refresh_token":"rotated"}}"#
        );
        let auth = world.serve("93.184.216.35:443", tls("auth.example.net"), move |got| {
            match String::from_utf8_lossy(&got.body).contains("refuse") {
                true => Reply {
                    status: 400,
                    ..Reply::text("{}")
                },
                false => Reply::text(&answer),
            }
        });
        let hosts = &[API, "auth.example.net"];
        let client = |refresh: &str| {
            format!(r#"{{"refresh_token":"{refresh}","client_id":"me","client_secret":"s p"}}"#)
        };
        let rules = || vec![with_rule("oauth2 https://auth.example.net/token")];
        let secret = Secret::new("key", &client(&value()), hosts);
        let door = Door::new(world, rules(), vec![secret]);
        for _ in 0..2 {
            let outcome = door.ask(with_key(get("https://api.example.com/"))).unwrap();
            assert!(!text(&outcome).contains(&granted), "it came back");
            let got = api.recv_timeout(LIMIT).unwrap();
            assert_eq!(
                got.header("authorization"),
                Some(&*format!("Bearer {granted}"))
            );
        }
        let got = auth.recv_timeout(LIMIT).unwrap();
        let form = String::from_utf8(got.body.clone()).unwrap();
        assert_eq!(
            form,
            format!("grant_type=refresh_token&refresh_token={}", value())
        );
        let basic = format!("Basic {}", STANDARD.encode("me:s%20p"));
        assert_eq!(got.header("authorization"), Some(&*basic));
        nothing(&auth);
        for (_, event) in door.events.try_iter() {
            let shown = format!("{event:?}");
            assert!(
                !shown.contains(&value()) && !shown.contains(&granted),
                "{shown}"
            );
        }
        for (secret, reason) in [
            (Secret::new("key", &client("refuse"), hosts), "status 400"),
            (Secret::new("key", &client("x"), &[API]), "auth.example.net"),
            (Secret::new("key", "no JSON", hosts), "JSON"),
        ] {
            let door = Door::new(world, rules(), vec![secret]);
            let fault = door
                .ask(with_key(get("https://api.example.com/")))
                .unwrap_err();
            assert!(matches!(fault, FetchFault::Credential { .. }), "{fault:?}");
            assert!(fault.to_string().contains(reason), "{fault}");
        }
        nothing(&api);
    });
}

#[test]
fn what_was_attached_comes_back_in_no_form() {
    let name = "fetch_secrets::what_was_attached_comes_back_in_no_form";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        world.serve("93.184.216.34:443", tls(API), |got| {
            let seen = got.header("authorization").unwrap()["Bearer ".len()..].to_owned();
            let mut reply = Reply::text(&format!("you are {seen}"));
            match got.uri.as_str() {
                "/base64" => reply.body = Sent::Whole(STANDARD.encode(&seen).into_bytes()),
                "/reversed" => {
                    let reversed: String = seen.chars().rev().collect();
                    reply.body = Sent::Whole(reversed.into_bytes());
                }
                "/header" => reply.headers.push(("etag", format!("\"{seen}\""))),
                "/binary" => {
                    let mut bytes = vec![0, 159, 146, 150];
                    bytes.extend(seen.bytes());
                    reply.body = Sent::Whole(bytes);
                }
                "/away" => return Reply::to(302, &format!("https://other.example.net/?k={seen}")),
                _ => {}
            }
            reply
        });
        let secret = Secret::new("key", &value(), &[API]);
        let door = Door::new(world, vec![with_rule("bearer")], vec![secret]);
        let at = |path: &str| with_key(get(&format!("https://api.example.com{path}")));
        for path in ["/", "/base64", "/reversed", "/header"] {
            let outcome = door.ask(at(path)).unwrap();
            let shown = format!("{outcome:?}");
            assert!(shown.contains("redacted"), "{path}: {shown}");
            let reversed: String = value().chars().rev().collect();
            for form in [value(), STANDARD.encode(value()), reversed] {
                assert!(!shown.contains(&form), "{path}: {shown}");
            }
        }
        let binary = door.ask(at("/binary")).unwrap_err();
        assert!(matches!(binary, FetchFault::Leak { .. }), "{binary:?}");
        let away = door.ask(at("/away")).unwrap_err();
        assert!(matches!(away, FetchFault::Redirected { .. }), "{away:?}");
        assert!(!format!("{away:?}").contains(&value()), "{away:?}");
    });
}

fn held() -> Vec<Secret> {
    let decoy = Secret {
        kind: MarkKind::Honeytoken,
        ..Secret::new("decoy", &["Mn5Bv8Cx", "q2Wd7Ef4", "Tg6Yh1Uj"].concat(), &[])
    };
    vec![Secret::new("key", &value(), &[API]), decoy]
}

#[test]
fn a_secret_in_a_tool_s_request_stops_it_wherever_it_stands() {
    let name = "fetch_secrets::a_secret_in_a_tool_s_request_stops_it_wherever_it_stands";
    in_namespace(name, |world: &World| {
        world.name(API, &[&[ONE]]);
        let heard = world.serve("93.184.216.34:443", tls(API), |_| Reply::text("ok"));
        let door = Door::new(world, vec![rule(API)], held());
        let hush = value();
        let encoded = STANDARD.encode(&hush);
        let hexed: String = hush.bytes().map(|byte| format!("{byte:02x}")).collect();
        let url = "https://api.example.com/";
        let with_header = HttpOrder {
            headers: vec![("X-Note".to_owned(), encoded.clone())],
            ..get(url)
        };
        for order in [
            get(&format!("{url}?q={hush}")),
            get(&format!("{url}{hush}")),
            with_header,
            post(url, &format!("hello {hush}")),
            post(url, &hexed),
            by_person(post(url, &encoded)),
        ] {
            let fault = door.ask(order).unwrap_err();
            let FetchFault::Leak { kinds, honeytokens } = &fault else {
                panic!("{fault:?}");
            };
            assert_eq!(
                (kinds.as_slice(), honeytokens.len()),
                (&["vault_secret".to_owned()][..], 0)
            );
            let key: Option<SecretName> = Some("key".parse().unwrap());
            let stopped = door.events.recv_timeout(LIMIT).unwrap().1;
            assert!(
                matches!(&stopped, Event::LeakStopped { name, .. } if *name == key),
                "{stopped:?}"
            );
            let refused = door.events.recv_timeout(LIMIT).unwrap().1;
            assert!(
                matches!(refused, Event::EgressRefused { .. }),
                "{refused:?}"
            );
            assert!(!format!("{stopped:?}{refused:?}").contains(&hush));
        }
        // A decoy is told of by itself, so that the session can be frozen.
        door.send(2, get(&format!("{url}?q={}", held()[1].value)));
        let told = door.gateway.receive().unwrap();
        let FetchReply::Touched { honeytokens, .. } = told else {
            panic!("{told:?}");
        };
        assert_eq!(honeytokens, ["decoy".parse().unwrap()]);
        let FetchReply::Refused { fault, .. } = door.gateway.receive().unwrap() else {
            panic!("it went out");
        };
        assert!(matches!(fault, FetchFault::Leak { honeytokens, .. } if honeytokens.len() == 1));
        nothing(&heard);
        assert_eq!(text(&door.ask(post(url, "nothing to hide")).unwrap()), "ok");
    });
}

#[test]
fn a_secret_in_pieces_is_stopped_at_the_request_that_completes_it() {
    let name = "fetch_secrets::a_secret_in_pieces_is_stopped_at_the_request_that_completes_it";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        world.serve("93.184.216.34:443", tls(API), |_| Reply::text("ok"));
        let hush = value();
        let (first, second) = hush.split_at(11);
        let url = "https://api.example.com/";
        let json = |piece: &str| post(url, &format!(r#"{{"note":"{piece}"}}"#));
        let query = |piece: &str| get(&format!("{url}?a=&q={piece}"));
        let path = |piece: &str| get(&format!("{url}notes/{piece}"));
        let body = |piece: &str| post(url, piece);
        let ways: [&dyn Fn(&str) -> HttpOrder; 4] = [&json, &query, &path, &body];
        for way in ways {
            let door = Door::new(world, vec![rule(API)], held());
            assert_eq!(text(&door.ask(way(first)).unwrap()), "ok");
            let fault = door.ask(way(second)).unwrap_err();
            assert!(matches!(fault, FetchFault::Leak { .. }), "{fault:?}");
            assert_eq!(text(&door.ask(way("else")).unwrap()), "ok");
        }
    });
}

#[test]
fn what_the_vault_holds_has_to_be_known_before_a_tool_s_request_leaves() {
    let name = "fetch_secrets::what_the_vault_holds_has_to_be_known_before_a_tool_s_request_leaves";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        let heard = world.serve("93.184.216.34:443", tls(API), |_| Reply::text("ok"));
        let egress = Egress::start_with(EgressConfig {
            model: loopback(9),
            tunnels: Vec::new(),
            rules: vec![rule(API)],
            extra_roots: vec![world.root.clone()],
        });
        let events = ledger(egress.link(Peer::Ledger));
        let gateway = protocol::frame::Link::new(egress.link(Peer::Gateway));
        let door = Door {
            egress,
            gateway,
            events,
        };
        assert!(
            door.refused(get("https://api.example.com/"))
                .contains("vault")
        );
        nothing(&heard);
        open(&door, &held());
        assert_eq!(
            text(&door.ask(get("https://api.example.com/")).unwrap()),
            "ok"
        );
    });
}

#[test]
fn a_secret_on_its_way_into_the_model_is_cut_out_and_written_down() {
    let (heard, requests) = std::sync::mpsc::channel();
    let server = Server::start(move |mut stream| {
        use std::io::Write as _;
        heard.send(hear(&stream)).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .unwrap();
    });
    let (egress, agent, events) = Egress::with_model(server.port);
    vault(&egress, held());
    let gateway = protocol::frame::Link::<protocol::egress::FetchRequest, FetchReply>::new(
        egress.link(Peer::Gateway),
    );
    let decoy = &held()[1].value;
    let body = format!(
        r#"{{"messages":[{{"role":"tool","content":"the key is {}\nand {decoy}"}},{{"content":"{}"}}]}}"#,
        value(),
        STANDARD.encode(value())
    );
    // Until it has the marks.
    let sent = loop {
        agent.send(&chat(1, &body)).unwrap();
        assert_eq!(answer(&agent), (200, "ok".to_owned()));
        let request = requests.recv_timeout(LIMIT).unwrap();
        let sent = String::from_utf8(request.body).unwrap();
        if sent != body {
            break sent;
        }
    };
    for hush in [&value(), &STANDARD.encode(value()), decoy] {
        assert!(!sent.contains(hush), "{sent}");
    }
    let read: serde_json::Value = serde_json::from_str(&sent).unwrap();
    let content = read["messages"][0]["content"].as_str().unwrap();
    assert!(content.contains("[redacted: vault_secret]"), "{content}");
    let stopped: Vec<_> = events
        .try_iter()
        .filter_map(|(_, event)| match event {
            Event::LeakStopped { what, name, .. } => Some((what, name.unwrap().to_string())),
            _ => None,
        })
        .collect();
    let pair = |what: &str, name: &str| (what.to_owned(), name.to_owned());
    assert_eq!(
        stopped,
        [pair("honeytoken", "decoy"), pair("vault_secret", "key")]
    );
    let FetchReply::Touched { honeytokens, .. } = gateway.receive().unwrap() else {
        panic!("the gateway was told something else");
    };
    assert_eq!(honeytokens, ["decoy".parse().unwrap()]);
}
