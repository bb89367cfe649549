//! Requests with the decision that each has to get: odd forms of addresses and hosts, ways around
//! a rule, and what has to go on working. Each refusal has its kind beside it, so that none is
//! refused by accident.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use bulkhead_outbound::{RuleSet, explain};
use protocol::control::{ModelRoute, Reach, Scheme, TunnelRule};
use protocol::ids::ChannelId;
use protocol::outbound::EgressRule;
use protocol::time::Millis;
use serde_json::Value;

/// 2026-11-26.
const NOW: Millis = Millis(1_795_651_200_000);

fn shipped() -> RuleSet {
    with_places(RuleSet::default())
}

fn with_rules() -> RuleSet {
    let rules: Vec<EgressRule> = serde_json::from_str(include_str!("corpus/rules.json")).unwrap();
    with_places(RuleSet::new(rules).unwrap())
}

fn with_places(rules: RuleSet) -> RuleSet {
    let model = ModelRoute {
        name: "m".to_owned(),
        scheme: Scheme::Http,
        host: "127.0.0.1".to_owned(),
        port: 11434,
        path: "/api/chat".to_owned(),
        reach: Reach::Loopback,
        idle_seconds: 180,
    };
    let telegram = TunnelRule {
        channel: ChannelId::parse("telegram").unwrap(),
        host: "api.telegram.org".to_owned(),
        port: 443,
    };
    rules.with_model(&model).with_tunnels(&[telegram])
}

/// All rows that get something else than what stands beside them.
fn wrong(rules: &RuleSet, corpus: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for line in corpus.lines() {
        let mut row: Value = serde_json::from_str(line).unwrap();
        let row_map = row.as_object_mut().unwrap();
        let expect = row_map.remove("expect").unwrap();
        let class = row_map.remove("class").unwrap_or_default();
        let answer = explain(rules, &row.to_string(), NOW);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["id"], row["id"]);
        assert!(!answer["reason"].as_str().unwrap().is_empty(), "{answer}");
        if answer["decision"] != expect || answer["class"] != class {
            wrong.push(format!("{line}\n    {answer}"));
        }
    }
    wrong
}

fn check(rules: &RuleSet, corpus: &str, least: usize) {
    assert!(corpus.lines().count() >= least);
    let wrong = wrong(rules, corpus);
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn odd_addresses_and_hosts_are_refused_each_for_its_own_reason() {
    let corpus = include_str!("corpus/addresses.jsonl");
    check(&shipped(), corpus, 300);
    check(&with_rules(), &without_exec(corpus), 300);
}

/// The rules have some for the programs of these rows, and none of their other refusals change.
fn without_exec(corpus: &str) -> String {
    let kept = corpus.lines().filter(|line| !line.contains("exec:git"));
    kept.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_allowed_host_is_not_an_allowed_destination() {
    check(
        &with_rules(),
        include_str!("corpus/exfiltration.jsonl"),
        180,
    );
}

#[test]
fn what_rules_allow_goes_on() {
    check(&with_rules(), include_str!("corpus/allowed.jsonl"), 30);
}

#[test]
fn usual_requests_are_asked_about_and_the_model_and_its_channel_are_reached() {
    check(&shipped(), include_str!("corpus/usual.jsonl"), 50);
}

#[test]
fn without_rules_nothing_of_what_they_allow_is_allowed() {
    for line in include_str!("corpus/allowed.jsonl").lines() {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row.as_object_mut().unwrap().remove("expect");
        let answer = explain(&shipped(), &row.to_string(), NOW);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_ne!(answer["decision"], "allow", "{line}");
    }
}

#[test]
fn the_day_a_rule_expires_it_allows_nothing() {
    let june = Millis(1_811_808_000_000);
    for line in include_str!("corpus/allowed.jsonl").lines() {
        let mut row: Value = serde_json::from_str(line).unwrap();
        row.as_object_mut().unwrap().remove("expect");
        let answer = explain(&with_rules(), &row.to_string(), june);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_ne!(answer["decision"], "allow", "{line}");
    }
}

#[test]
fn a_line_that_is_no_request_is_denied_with_the_reason() {
    for line in [
        "",
        "nonsense",
        "[]",
        "{}",
        "{\"method\":\"GET\"}",
        "{\"url\":\"https://example.com/\"}",
        "{\"method\":1,\"url\":\"https://example.com/\"}",
        "{\"method\":\"GET\",\"url\":\"https://example.com/\",\"allow\":true}",
        "{\"method\":\"GET\",\"url\":\"https://example.com/\",\"answers\":\"8.8.8.8\"}",
        "{\"method\":\"GET\",\"url\":\"https://example.com/\",\"url\":\"https://b.com/\"}",
        "{\"id\":7,\"method\":\"GET\",\"url\":null}",
    ] {
        let answer = explain(&shipped(), line, NOW);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["decision"], "deny", "{line}");
        assert_eq!(answer["class"], "malformed", "{line}");
    }
}

#[test]
fn a_budget_has_no_zero() {
    let rules = include_str!("corpus/rules.json");
    let without = rules.replacen("\"per_minute\": 60", "\"per_minute\": 0", 1);
    assert_ne!(rules, without);
    assert!(serde_json::from_str::<Vec<EgressRule>>(&without).is_err());
}
