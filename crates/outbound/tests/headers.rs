//! What the headers of a request change of the decision about it.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use bulkhead_outbound::{MAX_FREE_QUERY, RuleSet, explain};
use protocol::outbound::EgressRule;
use protocol::time::Millis;
use serde_json::{Value, json};

/// 2026-11-26.
const NOW: Millis = Millis(1_795_651_200_000);

fn explained(line: &Value) -> Value {
    let rules: Vec<EgressRule> = serde_json::from_str(include_str!("corpus/rules.json")).unwrap();
    let answer = explain(&RuleSet::new(rules).unwrap(), &line.to_string(), NOW);
    serde_json::from_str(&answer).unwrap()
}

fn with(query: usize, headers: Value) -> Value {
    let query = "q".repeat(query);
    let url = format!("https://api.github.com/repos/me/notes?{query}");
    explained(&json!({"method": "GET", "url": url, "headers": headers}))
}

#[test]
fn headers_and_query_together_go_out_without_a_question_up_to_one_limit() {
    // With the two signs between name and value.
    let long = |bytes: usize| json!({ "x-note": "n".repeat(bytes - 8) });
    for (query, headers, decision) in [
        (MAX_FREE_QUERY, json!({}), "allow"),
        (MAX_FREE_QUERY, long(9), "ask_always"),
        (100, long(MAX_FREE_QUERY - 100), "allow"),
        (100, long(MAX_FREE_QUERY - 99), "ask_always"),
        (1, long(4000), "ask_always"),
    ] {
        let answer = with(query, headers);
        assert_eq!(answer["decision"], decision, "{query}: {answer}");
    }
    let names: Value = (0..32)
        .map(|n| (format!("x-{}-{n}", "n".repeat(40)), json!("")))
        .collect();
    assert_eq!(with(1, names)["decision"], "ask_always", "names carry too");
}

#[test]
fn a_header_that_is_not_the_asker_s_is_refused() {
    for name in ["X-Amz-Copy-Source", "Authorization", "Host", "a b"] {
        let answer = with(1, json!({ name: "x" }));
        assert_eq!(
            (&answer["decision"], &answer["class"]),
            (&json!("deny"), &json!("header")),
            "{answer}"
        );
    }
}
