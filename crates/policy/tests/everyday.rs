//! What people and agents look at all day in a workspace, and how little of it is asked about.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use std::collections::BTreeSet;

use bulkhead_policy::{Rules, explain};
use protocol::time::Millis;
use serde::Deserialize;
use serde_json::{Value, json};

const NOW: Millis = Millis(1_795_651_200_000);

/// The most of a hundred that may be asked about.
const MOST_ASKED: usize = 5;

/// One line: a command that only reads, the answer it gets, and why if it is asked about.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Everyday {
    command: String,
    expect: String,
    reason: Option<String>,
}

fn everyday() -> Vec<Everyday> {
    include_str!("everyday.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn decision(command: &str) -> String {
    let call = json!({"tool": "exec", "args": {"command": command}});
    let answer: Value =
        serde_json::from_str(&explain(Rules::shipped(), &call.to_string(), NOW)).unwrap();
    answer["decision"].as_str().unwrap().to_owned()
}

#[test]
fn each_everyday_command_gets_its_answer() {
    let all = everyday();
    let different: BTreeSet<_> = all.iter().map(|one| one.command.as_str()).collect();
    assert!(different.len() >= 120 && different.len() == all.len());
    let wrong: Vec<_> = all
        .iter()
        .map(|one| (one, decision(&one.command)))
        .filter(|(one, got)| one.expect != *got || (one.reason.is_none() != (got == "allow")))
        .map(|(one, got)| format!("{}: {got}", one.command))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn of_a_hundred_everyday_commands_that_only_read_at_most_five_are_asked_about() {
    let all = everyday();
    let asked = all
        .iter()
        .filter(|one| decision(&one.command) != "allow")
        .count();
    assert!(
        asked * 100 <= MOST_ASKED * all.len(),
        "{asked} of {} are asked about",
        all.len()
    );
}
