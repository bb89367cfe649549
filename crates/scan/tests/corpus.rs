//! Rows of secrets in every format and encoding, and rows of what only looks like one.
//!
//! In the rows of secrets a `{}` stands in the middle of each, so that nobody takes the file for a
//! leak; it is taken out before the row is looked through. None of them was ever valid. What a row is there
//! for stands beside it as `why`, where its text does not say it.

use scan::{Kind, Scanner, redact};
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    /// What has to be found; nothing in a harmless row.
    #[serde(default)]
    kind: String,
    /// How it was encoded, if it was.
    #[serde(default)]
    how: String,
    text: String,
}

fn rows(file: &str) -> Vec<Row> {
    file.lines()
        .map(|line| serde_json::from_str(line).expect("a row is JSON"))
        .collect()
}

#[test]
fn every_secret_of_the_corpus_is_found_and_redacted() {
    all_are_found(include_str!("corpus/secrets.jsonl"), 500);
}

/// Each has a name or stands at a place that says what it is; `why` says which.
#[test]
fn every_secret_that_is_announced_is_found() {
    all_are_found(include_str!("corpus/announced.jsonl"), 250);
}

fn all_are_found(corpus: &str, least: usize) {
    let scanner = Scanner::of_formats();
    let rows = rows(corpus);
    assert!(rows.len() > least, "{}", rows.len());
    let mut missed = Vec::new();
    for row in &rows {
        let (before, after) = row.text.split_once("{}").expect("a row has a joint");
        let text = format!("{before}{after}");
        let findings = scanner.scan(&text);
        let over_joint = |kind: Kind, start: usize, end: usize| {
            let joint = !row.how.is_empty() || (start <= before.len() && before.len() <= end);
            kind.as_str() == row.kind && joint
        };
        let found = findings.iter().any(|f| over_joint(f.kind, f.start, f.end));
        let redacted = redact(&text, &findings);
        if !found || !redacted.contains(&format!("[redacted: {}]", row.kind)) {
            missed.push(format!(
                "{} {} {:?} in {text:?}",
                row.kind, row.how, findings
            ));
        }
    }
    assert!(
        missed.is_empty(),
        "{} missed:\n{}",
        missed.len(),
        missed.join("\n")
    );
}

#[test]
fn nothing_is_found_in_what_only_looks_like_a_secret() {
    let scanner = Scanner::of_formats();
    let rows = rows(include_str!("corpus/harmless.jsonl"));
    assert!(rows.len() > 400, "{}", rows.len());
    let mut alarms = Vec::new();
    for row in &rows {
        let findings = scanner.scan(&row.text);
        if !findings.is_empty() {
            alarms.push(format!("{findings:?} in {:?}", row.text));
        }
    }
    assert!(
        alarms.is_empty(),
        "{} false alarms:\n{}",
        alarms.len(),
        alarms.join("\n")
    );
}
