//! `bulkhead egress scan`: what the leak scan finds in texts.

use std::io::{self, BufReader, BufWriter};

use clap::Args;
use config::{Config, ConfigError, Home};
use protocol::outbound::EgressRule;
use scan::{Finding, Scanner, links, redact};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Fault;
use crate::lines::{self, Line};
use crate::terminal::harmless_line;
use crate::vault_link::VaultLink;

/// The longest line read, in bytes: a text of 16 MiB, each sign of it escaped.
const MAX_LINE: u64 = 100 * 1024 * 1024;

/// How texts are looked through.
#[derive(Debug, Args)]
pub(crate) struct Scan {
    /// Print one line of JSON for each; places are bytes of the text in UTF-8.
    #[arg(long)]
    json: bool,
    /// A host that links and images may lead to beside those of the egress rules; may be repeated.
    #[arg(long, value_name = "HOST")]
    allow: Vec<String>,
}

/// A line in.
#[derive(Deserialize)]
struct Question {
    #[serde(default)]
    id: Value,
    text: String,
}

/// A line out. Never what was found, but for what is not redacted.
#[derive(Serialize)]
struct Answer {
    id: Value,
    findings: Vec<Finding>,
    redacted: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(crate) fn run(arguments: &Scan, home: &Home) -> Result<(), Fault> {
    let scanner = scanner(home);
    let rules = rules(home)?;
    let form = if arguments.json { as_json } else { as_words };
    let allowed = |host: &str| {
        let named = |one: &String| one.eq_ignore_ascii_case(host);
        arguments.allow.iter().any(named) || rules.iter().any(|rule| rule.host.covers(host))
    };
    let input = BufReader::new(io::stdin().lock());
    let out = BufWriter::new(io::stdout().lock());
    lines::each_up_to(MAX_LINE, input, out, |line| {
        form(&answer(&scanner, &allowed, &line))
    })
}

/// Those of the configuration, if there is one.
fn rules(home: &Home) -> Result<Vec<EgressRule>, Fault> {
    match Config::load(home) {
        Ok(config) => Ok(config.rules.egress),
        Err(ConfigError::Missing(_)) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// With the marks of the vault, where there is one that can be opened.
pub(super) fn scanner(home: &Home) -> Scanner {
    if !home.vault().exists() {
        return Scanner::of_formats();
    }
    let marks = VaultLink::open(home).and_then(|mut link| link.ask(|vault| vault.marks()));
    match marks {
        Ok((_, marks)) => Scanner::new(marks),
        Err(fault) => {
            eprintln!("looking for known formats only, not for the vault's own secrets: {fault}");
            Scanner::of_formats()
        }
    }
}

fn answer(scanner: &Scanner, allowed: &dyn Fn(&str) -> bool, line: &Line<'_>) -> Answer {
    let line = match line {
        Line::Text(text) => text,
        Line::Unreadable(why) => return malformed(why.clone()),
    };
    let question: Question = match serde_json::from_str(line) {
        Ok(question) => question,
        // Serde's own words can hold the text.
        Err(error) => {
            let read: Value = serde_json::from_str(line).unwrap_or_default();
            let id = read.get("id").cloned().unwrap_or_default();
            let (class, column) = (error.classify(), error.column());
            let error = format!("not {{\"id\"?, \"text\"}}: {class:?} error at column {column}");
            return Answer {
                id,
                ..malformed(error)
            };
        }
    };
    let secrets = scanner.scan(&question.text);
    let findings = links::with(secrets, links::find(&question.text, allowed));
    let redacted = redact(&question.text, &findings);
    Answer {
        id: question.id,
        findings,
        redacted,
        error: None,
    }
}

fn malformed(error: String) -> Answer {
    Answer {
        id: Value::Null,
        findings: Vec::new(),
        redacted: String::new(),
        error: Some(error),
    }
}

fn as_json(answer: &Answer) -> String {
    // Strings, numbers and what was JSON before cannot fail to be JSON.
    serde_json::to_string(answer).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

fn as_words(answer: &Answer) -> String {
    if let Some(error) = &answer.error {
        return harmless_line(error).into_owned();
    }
    let kinds: Vec<_> = answer
        .findings
        .iter()
        .map(|finding| format!("{} at {}..{}", finding.kind, finding.start, finding.end))
        .collect();
    match kinds.is_empty() {
        true => "nothing found".to_owned(),
        false => kinds.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(input: &[u8]) -> Vec<Value> {
        let mut out = Vec::new();
        let scanner = Scanner::of_formats();
        lines::each_up_to(MAX_LINE, BufReader::new(input), &mut out, |line| {
            as_json(&answer(&scanner, &|_| false, &line))
        })
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn each_line_gets_one_line_and_what_is_no_question_an_error() {
        let token = format!("{}{}", "gh", "p_7cCRDs0pWzPqk3uVb9T1xYf5Zn2Ee8Lm4Hh6");
        let mut input = format!("{{\"id\": 1, \"text\": \"é {token}\"}}\n").into_bytes();
        input.extend(b"nonsense\n\n\xff\xfe\n{\"id\": 2}\n{\"id\": 3, \"text\": \"hello\"}");
        let answers = answers(&input);
        assert_eq!(answers.len(), 6);
        let found = &answers[0]["findings"][0];
        assert_eq!(found["kind"], "github_token");
        assert_eq!((&found["start"], &found["end"]), (&3.into(), &43.into()));
        assert_eq!(answers[0]["redacted"], "é [redacted: github_token]");
        assert_eq!(answers[0]["id"], 1);
        for malformed in &answers[1..5] {
            assert!(malformed["error"].is_string(), "{malformed}");
            assert_eq!(malformed["findings"], Value::Array(Vec::new()));
        }
        assert_eq!(answers[4]["id"], 2);
        assert_eq!(answers[5]["redacted"], "hello");
    }

    #[test]
    fn people_get_kinds_and_places_and_nothing_of_what_was_found() {
        let scanner = Scanner::of_formats();
        let token = format!("{}{}", "gh", "p_7cCRDs0pWzPqk3uVb9T1xYf5Zn2Ee8Lm4Hh6");
        let line = format!("{{\"text\": \"{token}\"}}");
        let words = as_words(&answer(&scanner, &|_| false, &Line::Text(&line)));
        assert_eq!(words, "github_token at 0..40");
    }
}
