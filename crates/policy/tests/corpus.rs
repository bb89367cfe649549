//! The corpus: calls, hostile and not, each with the answer it has to get and why.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use std::collections::BTreeSet;

use bulkhead_policy::{Rules, explain};
use protocol::time::Millis;
use serde_json::{Value, json};

const NOW: Millis = Millis(1_795_651_200_000);

fn corpus() -> Vec<Value> {
    include_str!("corpus.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn explained(call: &Value) -> Value {
    serde_json::from_str(&explain(Rules::shipped(), &call.to_string(), NOW)).unwrap()
}

fn rank(decision: &Value) -> usize {
    ["allow", "ask_once", "ask_always", "deny"]
        .iter()
        .position(|word| decision == word)
        .unwrap()
}

#[test]
fn every_call_of_the_corpus_gets_its_answer_by_its_rule() {
    let mut wrong = Vec::new();
    for case in corpus() {
        let answer = explained(&case["call"]);
        if answer["decision"] != case["expect"] || answer["rule"] != case["rule"] {
            wrong.push(format!("{case}\n    got {answer}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of them:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_corpus_has_a_line_for_every_tool_verdict_rule_and_class_of_programs() {
    let cases = corpus();
    assert!(cases.len() >= 400, "{}", cases.len());
    let seen: BTreeSet<_> = cases
        .iter()
        .map(|case| {
            (
                case["call"]["tool"].as_str().unwrap(),
                case["expect"].as_str().unwrap(),
            )
        })
        .collect();
    for tool in tools::catalogue() {
        let name = tool.name.as_str();
        let verdicts: &[&str] = match name {
            "exec" => &["allow", "ask_once", "ask_always", "deny"],
            "write_file" => &["allow", "ask_once", "ask_always", "deny"],
            "edit_file" => &["allow", "ask_always", "deny"],
            // Without egress rules nothing leaves freely.
            "http_request" | "web_fetch" => &["ask_always", "deny"],
            _ => &["allow", "deny"],
        };
        for verdict in verdicts {
            assert!(seen.contains(&(name, verdict)), "{name} {verdict}");
        }
    }
    let reasons: BTreeSet<_> = cases
        .iter()
        .map(|case| case["rule"].as_str().unwrap())
        .collect();
    for rule in [
        "host-not-allowed",
        "host-refused",
        "read-in-workspace",
        "write-in-workspace",
        "write-in-git-folder",
        "untrusted-session",
        "malformed",
        "unknown-tool",
        "inspection",
        "unknown-option",
        "path-outside-workspace",
        "odd-path",
        "ordinary",
        "high-risk",
        "interpreter-code",
        "several-commands",
        "odd-pipe",
        "pattern",
        "odd-program-name",
        "not-understood",
    ] {
        assert!(reasons.contains(rule), "{rule}");
    }
    // Each reason that the table gives for asking every time.
    let answers: Vec<_> = cases
        .iter()
        .map(|case| explained(&case["call"])["reason"].to_string())
        .collect();
    for because in include_str!("../src/programs/programs.txt")
        .lines()
        .filter_map(|line| line.strip_prefix("because "))
    {
        assert!(
            answers.iter().any(|reason| reason.contains(because)),
            "no line for a program that {because}"
        );
    }
}

#[test]
fn every_kind_of_effect_has_a_line() {
    for kind in ["programs", "reads", "writes", "hosts"] {
        let has = |case: &Value| explained(&case["call"])["effects"][kind] != json!([]);
        assert!(corpus().iter().any(has), "{kind}");
    }
}

#[test]
fn every_line_of_the_corpus_says_why() {
    for case in corpus() {
        assert!(!case["reason"].as_str().unwrap().is_empty(), "{case}");
    }
}

#[test]
fn the_same_call_gets_the_same_answer() {
    for case in corpus() {
        let line = case["call"].to_string();
        assert_eq!(
            explain(Rules::shipped(), &line, NOW),
            explain(Rules::shipped(), &line, NOW)
        );
    }
}

/// Whether what stands behind it would complete it instead of being added to it.
fn is_half(command: &str) -> bool {
    command.trim_end().ends_with(['\\', '|', '&', '<', '>'])
}

#[test]
fn more_text_never_lowers_a_verdict() {
    for case in corpus() {
        let Some(command) = case["call"]["args"]["command"].as_str() else {
            continue;
        };
        if case["call"]["tool"] != "exec" || is_half(command) {
            continue;
        }
        let before = explained(&case["call"]);
        for more in [
            "; x",
            " | x",
            " && x",
            " x",
            " -x",
            " --x",
            " /etc/passwd",
            " > x",
            "\nx",
        ] {
            // A command without words gets some, `cd` a folder, and an interpreter that reads code from its
            // input gets a script instead.
            let has_none = before["rule"] == "malformed" && command.trim().is_empty()
                || before["reason"].to_string().contains("without a program")
                || command.trim() == "cd";
            if has_none || before["rule"] == "interpreter-code" && more.starts_with(' ') {
                continue;
            }
            let mut call = case["call"].clone();
            call["args"]["command"] = json!(format!("{command}{more}"));
            let after = explained(&call);
            assert!(
                rank(&after["decision"]) >= rank(&before["decision"]),
                "{call}: {before} became {after}"
            );
        }
    }
}

#[test]
fn what_follows_an_operator_never_lowers_what_stands_before_it_nor_the_reverse() {
    for case in corpus() {
        let Some(command) = case["call"]["args"]["command"].as_str() else {
            continue;
        };
        if case["call"]["tool"] != "exec" || case["rule"] == "malformed" || is_half(command) {
            continue;
        }
        for both in [
            format!("ls; {command}"),
            format!("{command} && ls"),
            format!("ls | {command}"),
        ] {
            let mut call = case["call"].clone();
            call["args"]["command"] = json!(both);
            let answer = explained(&call);
            assert!(
                rank(&answer["decision"]) >= rank(&case["expect"]),
                "{both:?}: {answer}"
            );
        }
    }
}

/// Whether it is a file of the workspace, outside the folders of git.
fn is_plain_file(path: &Value) -> bool {
    let path = path.as_str().unwrap();
    !path.starts_with('/') && !path.split('/').any(|part| part == ".git" || part == "..")
}

#[test]
fn only_what_is_understood_runs_without_a_shell_and_names_what_it_can_do() {
    for case in corpus() {
        let answer = explained(&case["call"]);
        let effects = &answer["effects"];
        assert_eq!(
            effects["opaque"],
            answer["rule"] == "not-understood",
            "{answer}"
        );
        if answer["decision"] == "allow" && case["call"]["tool"] == "exec" {
            let writes = effects["writes"].as_array().unwrap();
            assert_eq!(
                writes.is_empty(),
                answer["rule"] == "inspection",
                "{answer}"
            );
            assert!(writes.iter().all(is_plain_file), "{answer}");
            assert_eq!(effects["hosts"], json!([]), "{answer}");
        }
    }
}
