//! What a tool's request could carry out beside its body, and what of a credential could come back
//! where an answer is cut.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::egress::{Extent, FetchFault, FetchOutcome, HttpOrder};
use protocol::outbound::{Budgets, EgressRule};

use crate::fetch::{API, Door, OTHER, by_person, get, rule, text};
use crate::fetch_secrets::{tls, value, with_key, with_rule};
use crate::support::LIMIT;
use crate::vault::Secret;
use crate::world::{ONE, Reply, Sent, TWO, World, in_namespace, nothing};

const URL: &str = "https://api.example.com/";

fn headers(order: HttpOrder, headers: &[(&str, &str)]) -> HttpOrder {
    let each = headers.iter();
    HttpOrder {
        headers: each
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..order
    }
}

fn put(url: &str) -> HttpOrder {
    HttpOrder {
        method: "PUT".to_owned(),
        body: Some("harmless".to_owned()),
        ..get(url)
    }
}

#[test]
fn headers_carry_no_more_out_without_a_question_than_a_query_does() {
    let name = "carried::headers_carry_no_more_out_without_a_question_than_a_query_does";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        let heard = world.serve("93.184.216.34:443", tls(API), |got| match &*got.uri {
            "/away" => Reply::to(302, &format!("{URL}?q={}", "y".repeat(200))),
            _ => Reply::text("ok"),
        });
        let door = Door::new(world, vec![rule(API)], Vec::new());
        let mut many = get(URL);
        many.headers = (0..32)
            .map(|n| (format!("x-note-{n}"), "x".repeat(4000)))
            .collect();
        let long = headers(get(URL), &[("x-note", &"x".repeat(600))]);
        let both = headers(
            get(&format!("{URL}?q={}", "y".repeat(300))),
            &[("x-note", &"x".repeat(300))],
        );
        for order in [many, long.clone(), both] {
            let refused = door.refused(order);
            assert!(refused.contains("carry data out"), "{refused}");
        }
        nothing(&heard);
        let little = [("accept", "text/plain"), ("x-note", "nothing much")];
        let few = door.ask(headers(get(URL), &little)).unwrap();
        let got = heard.recv_timeout(LIMIT).unwrap();
        assert_eq!(got.header("x-note"), Some("nothing much"));
        // Where an answer leads, the headers go too.
        let away = headers(get(&format!("{URL}away")), &[("x-note", &"x".repeat(400))]);
        let away = door.ask(away).unwrap_err();
        assert!(
            matches!(&away, FetchFault::Redirected { reason, .. } if reason.contains("carry")),
            "{away:?}"
        );
        // Somebody saw them, and they are counted.
        let more = door.ask(by_person(long)).unwrap();
        assert!(more.bytes_up > few.bytes_up + 500, "{more:?} {few:?}");
        let query = door
            .ask(get(&format!("{URL}?{}", "y".repeat(400))))
            .unwrap();
        assert!(query.bytes_up > 400, "{query:?}");
    });
}

#[test]
fn what_somebody_said_yes_to_is_not_made_another_request_by_a_header() {
    let name = "carried::what_somebody_said_yes_to_is_not_made_another_request_by_a_header";
    in_namespace(name, |world| {
        world.name(API, &[&[ONE]]);
        let heard = world.serve("93.184.216.34:443", tls(API), |_| Reply::text("ok"));
        let mine = EgressRule {
            paths: vec!["/mine/*".parse().unwrap()],
            ..with_rule("sigv4 eu-west-1 s3")
        };
        let signed = format!("AKIDEXAMPLE:{}", value());
        let door = Door::new(world, vec![mine], vec![Secret::new("key", &signed, &[API])]);
        let at = || with_key(put(&format!("{URL}mine/a")));
        for name in [
            "x-amz-copy-source",
            "X-Amz-Acl",
            "x-amz-target",
            "x-goog-copy-source",
            "x-ms-copy-source",
            "Destination",
            "X-HTTP-Method-Override",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-Forwarded-Prefix",
        ] {
            let refused = door.refused(headers(at(), &[(name, "/private/secret")]));
            assert!(refused.contains("another request"), "{name}: {refused}");
        }
        nothing(&heard);
        let kept = headers(at(), &[("x-amz-meta-note", "mine")]);
        assert_eq!(text(&door.ask(kept).unwrap()), "ok");
        let got = heard.recv_timeout(LIMIT).unwrap();
        let signed = got.header("authorization").unwrap();
        assert!(signed.contains(";x-amz-meta-note,"), "{signed}");
    });
}

/// A server that tells what it was sent, where its answer is cut, and how much of it is asked for.
fn telling(world: &World) -> Door {
    world.name(API, &[&[ONE]]);
    world.serve("93.184.216.34:443", tls(API), |got| {
        let seen = got
            .header("authorization")
            .map_or("", |it| &it["Bearer ".len()..]);
        let filler = |bytes: usize| "- ".repeat(bytes / 2);
        let whole = |text: String| Sent::Whole(text.into_bytes());
        let mut reply = Reply::text("");
        match &*got.uri {
            "/cut" => reply.body = whole(filler(1024 - 20) + seen + &filler(100)),
            "/cut64" => reply.body = whole(filler(1024 - 20) + &STANDARD.encode(seen)),
            "/binary" => {
                let mut bytes = vec![0xff; 1024 - 20];
                bytes.extend(seen.bytes());
                reply.body = Sent::Whole(bytes);
            }
            "/piece" if !seen.is_empty() => {
                reply.status = 206;
                reply.body = whole(seen[12..].to_owned() + &filler(600) + &seen[..20]);
            }
            "/piece" => {
                reply.status = 206;
                reply.body = whole("all of it".to_owned());
            }
            _ => {
                let way = "https://other.example.net/";
                let filler = "a".repeat(2048 - way.len() - 12);
                return Reply::to(302, &format!("{way}{filler}{seen}"));
            }
        }
        reply
    });
    let small = EgressRule {
        budgets: Budgets {
            download: "1 KiB".parse().unwrap(),
            ..Budgets::default()
        },
        ..with_rule("bearer")
    };
    Door::new(
        world,
        vec![small],
        vec![Secret::new("key", &value(), &[API])],
    )
}

#[test]
fn no_piece_of_what_was_attached_comes_back_where_an_answer_is_cut() {
    let name = "carried::no_piece_of_what_was_attached_comes_back_where_an_answer_is_cut";
    in_namespace(name, |world| {
        let door = telling(world);
        let at = |path: &str| get(&format!("{URL}{path}"));
        let pieces = |text: &str| -> Vec<String> {
            let each = text.as_bytes().windows(4);
            each.map(|it| String::from_utf8_lossy(it).into_owned())
                .collect()
        };
        let hush = [value(), STANDARD.encode(value())];
        let held = |outcome: &FetchOutcome| {
            let shown = match &outcome.body {
                protocol::egress::FetchBody::Text { text } => text.clone(),
                protocol::egress::FetchBody::Base64 { base64 } => {
                    String::from_utf8_lossy(&STANDARD.decode(base64).unwrap()).into_owned()
                }
            };
            let pieces: Vec<String> = hush.iter().flat_map(|it| pieces(it)).collect();
            assert!(shown.len() > 200, "{shown}");
            pieces.into_iter().find(|piece| shown.contains(piece))
        };
        for path in ["cut", "cut64", "binary", "piece"] {
            let outcome = door.ask(with_key(at(path))).unwrap();
            assert_eq!(outcome.extent, Extent::Truncated, "{path}");
            assert_eq!(held(&outcome), None, "{path}: {outcome:?}");
        }
        let away = door.ask(with_key(at("away"))).unwrap_err();
        let FetchFault::Redirected { target, reason, .. } = &away else {
            panic!("{away:?}");
        };
        assert!(reason.contains("holds a secret"), "{away:?}");
        assert!(!target.contains(&value()[..4]), "{away:?}");
        // Nobody asks for a piece together with a secret; without one it is whole.
        for name in ["Range", "If-Range"] {
            let order = headers(with_key(at("piece")), &[(name, "bytes=0-9")]);
            assert!(door.refused(order).contains("whole"), "{name}");
        }
        let piece = headers(at("piece"), &[("Range", "bytes=0-9")]);
        let piece = door.ask(piece).unwrap();
        assert_eq!((text(&piece), piece.extent), ("all of it", Extent::Whole));
    });
}

#[test]
fn what_was_got_with_a_secret_is_looked_for_as_the_secret_is() {
    let name = "carried::what_was_got_with_a_secret_is_looked_for_as_the_secret_is";
    in_namespace(name, |world| {
        // Invented.
        let access = ["Hg7Qw2", "Lk9Vb4Xs", "Np3Rt8"].concat();
        let refresh = ["Jd5Fs1", "Zm6Cx0Ya", "Ue2Wo7"].concat();
        world.name(API, &[&[ONE]]);
        world.name("auth.example.net", &[&[TWO]]);
        world.name(OTHER, &[&[TWO]]);
        let told = refresh.clone();
        world.serve("93.184.216.34:443", tls(API), move |_| Reply::text(&told));
        let both = format!("{access} and {refresh}");
        world.serve("93.184.216.35:444", tls(OTHER), move |_| Reply::text(&both));
        let granted = format!(
            r#"{{"access_token":"{access}","token_type":"Bearer","expires_in":3600,"refresh_token":"{refresh}"}}"#
        );
        world.serve("93.184.216.35:443", tls("auth.example.net"), move |_| {
            Reply::text(&granted)
        });
        let client = format!(r#"{{"refresh_token":"{}","client_id":"me"}}"#, value());
        let secret = Secret::new("key", &client, &[API, "auth.example.net"]);
        let beside = EgressRule {
            ports: vec![444.try_into().unwrap()],
            ..rule(OTHER)
        };
        let rules = vec![with_rule("oauth2 https://auth.example.net/token"), beside];
        let door = Door::new(world, rules, vec![secret]);
        let other = |query: &str| get(&format!("https://other.example.net:444/?q={query}"));
        let before = door.ask(other("hello")).unwrap();
        assert!(text(&before).contains(&access), "nobody got it yet");
        let first = door.ask(with_key(get(URL))).unwrap();
        assert!(!text(&first).contains(&refresh), "{first:?}");
        for token in [&access, &refresh] {
            let fault = door.ask(other(token)).unwrap_err();
            let found =
                matches!(&fault, FetchFault::Leak { kinds, .. } if kinds == &["vault_secret"]);
            assert!(found, "{fault:?}");
        }
        let later = door.ask(other("hello")).unwrap();
        let shown = text(&later);
        assert!(
            !shown.contains(&access) && !shown.contains(&refresh),
            "{shown}"
        );
    });
}
