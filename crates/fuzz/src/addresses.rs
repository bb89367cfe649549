//! An address of the web, as a model writes it, before the egress rules of the corpus.

use std::net::IpAddr;
use std::sync::LazyLock;

use outbound::{Asked, Host, RuleSet, Url, Verdict, judge};
use protocol::outbound::{EgressRule, HostPattern, Method, Subject};
use protocol::time::Millis;
use serde_json::Value;

use crate::{Target, kind};

pub(crate) const TARGET: Target = Target {
    name: "addresses",
    check,
    seeds,
    words: &[
        b"https://",
        b"http://",
        b"@",
        b"\\",
        b"%2e",
        b"%2f",
        b"%5c",
        b"%25",
        b"%00",
        b"..",
        b"./",
        b"//",
        b";",
        b"#",
        b"?",
        b"{bot}",
        b"[::1]",
        b"127.0.0.1",
        b"localhost",
        b".",
        b":443",
        b":80",
        b"xn--",
        b"0x7f",
        b"\xc2\xad",
        b"\xe3\x80\x82",
        b"\xd0\xb0",
        b"api.github.com",
        b"/repos/me/notes/",
        b"example.com",
    ],
};

const CORPORA: [&str; 4] = [
    include_str!("../../outbound/tests/corpus/addresses.jsonl"),
    include_str!("../../outbound/tests/corpus/allowed.jsonl"),
    include_str!("../../outbound/tests/corpus/exfiltration.jsonl"),
    include_str!("../../outbound/tests/corpus/usual.jsonl"),
];

/// 2026-11-26.
const NOW: Millis = Millis(1_795_651_200_000);

static RULES: LazyLock<RuleSet> = LazyLock::new(|| {
    let text = include_str!("../../outbound/tests/corpus/rules.json");
    let rules: Vec<EgressRule> = serde_json::from_str(text).expect("the rules are JSON");
    RuleSet::new(rules).expect("the rules make sense")
});

/// The addresses of the corpus.
fn seeds() -> Vec<Vec<u8>> {
    let lines = CORPORA.iter().flat_map(|corpus| corpus.lines());
    lines
        .map(|line| {
            let row: Value = serde_json::from_str(line).expect("the corpus is JSON");
            row["url"].as_str().expect("an address").as_bytes().to_vec()
        })
        .collect()
}

fn check(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let url = match Url::parse(&text) {
        Ok(url) => url,
        Err(bad) => return kind(&bad.to_string()),
    };
    assert_has_one_reading(&url);
    let subject: Subject = "tool:http_request".parse().expect("a subject");
    let asked = Asked {
        subject: &subject,
        method: Method::Get,
        url: &url,
        headers: 0,
        credential: None,
        now: NOW,
    };
    match judge(&RULES, &asked) {
        Verdict::Allow(terms) => {
            let rule = terms.rule.and_then(|name| RULES.rule(&name).cloned());
            let rule = rule.expect("a tool is let out by a rule");
            assert_is_there(&url, &rule);
            format!("allow {}", rule.name)
        }
        Verdict::Ask(_, question) => {
            assert!(matches!(url.host(), Host::Name(_)), "{url} is asked about");
            format!("ask {}", question.why.len())
        }
        Verdict::Deny(refusal) => format!("deny {}", refusal.class()),
    }
}

/// What is sent is plain and reads back as itself.
fn assert_has_one_reading(url: &Url) {
    let shown = url.to_string();
    assert_eq!(Url::parse(&shown).as_ref(), Ok(url), "{shown}");
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '\\' | '"' | '<' | '>' | '#');
    assert!(shown.chars().all(plain), "{shown}");
    let (_, rest) = shown.split_once("://").expect("a scheme");
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    assert!(!authority.contains(['@', '%']), "{shown}");
    assert!(url.path().starts_with('/'), "{shown}");
    let dots = |segment: &str| matches!(segment, "." | "..");
    assert!(!url.path().split('/').any(dots), "{shown}");
    if let Some(name) = url.host().name() {
        assert!(name.parse::<IpAddr>().is_err(), "{shown}");
        assert!(!name.ends_with('.') && name.len() <= 253, "{shown}");
    }
}

/// By other means than those of the judgement: the host is the rule's, and however often a
/// server decodes the path, it stays below what the rule names.
fn assert_is_there(url: &Url, rule: &EgressRule) {
    let there = match (&rule.host, url.host()) {
        (HostPattern::Name(name), Host::Name(host)) => host == name.as_str(),
        (HostPattern::Below(name), Host::Name(host)) => host.ends_with(&format!(".{name}")),
        (HostPattern::Address(address), Host::Address(host)) => address == host,
        _ => false,
    };
    assert!(there, "{url} by {}", rule.name);
    let decoded = decoded(&decoded(&decoded(url.path())));
    let dots = |segment: &str| matches!(segment, "." | "..");
    assert!(
        !decoded.split(['/', '\\']).any(dots),
        "{url} by {}",
        rule.name
    );
    let below = rule.paths.iter().any(|pattern| {
        let before = pattern.as_str().split('*').next().unwrap_or_default();
        decoded.starts_with(&self::decoded(before))
    });
    assert!(below, "{url} by {}", rule.name);
}

fn decoded(path: &str) -> String {
    let mut out = Vec::new();
    let bytes = path.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let digits = path.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
