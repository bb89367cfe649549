//! A line of `policy explain`: what a model asks for, of any tool.

use serde_json::Value;

use crate::shown::assert_shows;
use crate::{Target, kind, rules};

pub(crate) const TARGET: Target = Target {
    name: "calls",
    check,
    seeds,
    words: &[
        b"\"",
        b"{",
        b"}",
        b"..",
        b"/",
        b".git",
        b"/workspace",
        b"\\u0000",
        b"\\u202e",
        b"\"tool\":\"exec\"",
        b"\"tool\":\"write_file\"",
        b"\"labels\":[\"untrusted\"],",
        b"\"workspace\":\"/home/o/w\",",
        b"\"id\":1,",
        b"99999999999",
        b"-1",
        b"null",
        b"[",
    ],
};

/// The calls of the corpus.
fn seeds() -> Vec<Vec<u8>> {
    corpus().map(|call| call.to_string().into_bytes()).collect()
}

/// The corpus of `policy`.
pub(crate) fn corpus() -> impl Iterator<Item = Value> {
    include_str!("../../policy/tests/corpus.jsonl")
        .lines()
        .map(|line| {
            let case: Value = serde_json::from_str(line).expect("the corpus is JSON");
            case["call"].clone()
        })
}

fn check(input: &[u8]) -> String {
    let line = String::from_utf8_lossy(input);
    let answer = rules::explained(&line);
    assert_eq!(answer, rules::explained(&line), "the same every time");
    assert!(!answer.contains('\n'), "one line: {answer:?}");
    let told: Value = serde_json::from_str(&answer).expect("an answer is JSON");
    let [decision, rule, reason] = ["decision", "rule", "reason"].map(|key| {
        let text = told[key].as_str();
        text.unwrap_or_else(|| panic!("{key} is a text in {answer}"))
    });
    assert_shows(reason);
    assert!(!reason.is_empty(), "{answer} says why");

    let call = serde_json::from_str::<Value>(&line).unwrap_or_default();
    let catalogue = tools::catalogue();
    let tool = catalogue
        .iter()
        .find(|tool| call["tool"] == tool.name.as_str());
    if tool.is_none() {
        assert_eq!(decision, "deny", "no tool of the catalogue: {answer}");
    }
    assert_eq!(told["id"], call["id"], "the id comes back");
    let untrusted = call["labels"].to_string().contains("untrusted");
    let writes = told["effects"]["writes"].as_array().expect("a list");
    if decision == "allow" {
        assert!(!untrusted || writes.is_empty(), "{answer}");
        assert_eq!(told["effects"]["opaque"], false, "{answer}");
        for path in writes {
            let path = path.as_str().expect("a path");
            let is_plain = |part: &str| part != ".." && !part.eq_ignore_ascii_case(".git");
            assert!(
                !path.starts_with('/') && path.split('/').all(is_plain),
                "{answer}"
            );
        }
    }
    let tool = tool.map_or("", |tool| tool.name.as_str());
    let problem = match rule {
        "malformed" => kind(reason),
        _ => String::new(),
    };
    format!("{decision} {rule} {tool} {} {problem}", writes.len())
}
