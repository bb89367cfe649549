//! `bulkhead policy`: what the rules say, without a server.

use std::io::{self, BufReader, BufWriter};

use clap::{Args, Subcommand};
use config::{Config, ConfigError, Home};
use policy::Rules;
use protocol::call::Verdict;
use protocol::rules::OwnerRules;
use protocol::time::Millis;
use serde_json::{Value, json};

use super::audit::habits;
use crate::fault::Fault;
use crate::habits::Otherwise;
use crate::lines::{self, Line};
use crate::output;
use crate::terminal::harmless_line;

/// What can be said with `policy`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Read calls from standard input, one JSON object a line, and say what the rules say of each.
    Explain {
        /// Print one line of JSON for each.
        #[arg(long)]
        json: bool,
    },
    /// Whether bulkhead.toml is sound. Exit code 1 if it is not.
    Check {
        /// Print one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Decide the calls of the record again, and show which would be decided otherwise. What a session had read
    /// and who may do what without being asked is left out. Exit code 1 if a call would be treated less strictly.
    Test {
        /// How far back: days, such as 30d.
        #[arg(long, value_name = "DAYS", value_parser = days)]
        against: u32,
        /// Print one line of JSON for each.
        #[arg(long)]
        json: bool,
    },
}

fn days(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('d').unwrap_or(text).parse();
    number
        .ok()
        .filter(|days| (1..=3650).contains(days))
        .ok_or_else(|| "days from 1d to 3650d".to_owned())
}

pub(crate) fn run(arguments: &Arguments, home: &Home) -> Result<(), Fault> {
    match arguments.action {
        Action::Explain { json } => {
            let form = if json { as_json } else { as_words };
            let (rules, out) = (rules(home)?, BufWriter::new(io::stdout().lock()));
            let input = BufReader::new(io::stdin().lock());
            lines::each(input, out, |line| form(explain(&rules, &line)))
        }
        Action::Test { against, json } => {
            let config = Config::load(home)?;
            let rules = Rules::load(&config.rules)?;
            let workspace = config
                .workspace
                .to_str()
                .ok_or_else(|| Fault::Refused("the workspace's path is not UTF-8".to_owned()))?;
            test(&habits(home, against)?.otherwise(&rules, workspace), json)
        }
        Action::Check { json } => check(home, json),
    }
}

fn check(home: &Home, json: bool) -> Result<(), Fault> {
    let file = home.config_file();
    let read = Config::load(home).map_err(Fault::from);
    match read.and_then(|config| Ok(Rules::load(&config.rules)?)) {
        Ok(rules) => {
            let sha256 = rules.digest();
            let expired: Vec<String> = rules
                .egress()
                .expired(Millis::now())
                .map(|rule| rule.name.to_string())
                .collect();
            let facts = json!({ "ok": true, "file": file, "rules": sha256, "problems": [], "expired": expired });
            let mut words =
                format!("{file:?} and its rules are sound; the rules have SHA-256 {sha256}");
            if !expired.is_empty() {
                words += &format!(
                    "\nexpired egress rules, which count for nothing: {}",
                    expired.join(", ")
                );
            }
            output::done(json, &words, &facts)
        }
        Err(error) if json => {
            let problems = [error.to_string()];
            output::json(&json!({ "ok": false, "file": file, "problems": problems }))?;
            Err(Fault::Said)
        }
        Err(error) => Err(error),
    }
}

fn test((all, otherwise): &(usize, Vec<Otherwise>), json: bool) -> Result<(), Fault> {
    for one in otherwise {
        if json {
            output::json(one)?;
        } else {
            output::line(format!(
                "row {}: {} {}: {} ({}) was {:?} ({})",
                one.row,
                harmless_line(&one.tool),
                harmless_line(&one.args),
                one.is.as_str().unwrap_or_default(),
                one.is_by.as_str().unwrap_or_default(),
                one.was,
                one.was_by,
            ))?;
        }
    }
    if !json {
        output::line(format!(
            "{} of {all} calls would be decided otherwise",
            otherwise.len()
        ))?;
    }
    match otherwise.iter().filter(|one| one.is_looser()).count() {
        0 => Ok(()),
        looser => Err(Fault::Refused(format!(
            "{looser} calls would be treated less strictly than they were"
        ))),
    }
}

/// Those of the configuration; without one, those that are shipped.
fn rules(home: &Home) -> Result<Rules, Fault> {
    let owner = match Config::load(home) {
        Ok(config) => config.rules,
        Err(ConfigError::Missing(_)) => OwnerRules::default(),
        Err(error) => return Err(error.into()),
    };
    Ok(Rules::load(&owner)?)
}

/// What is no line of text is denied like everything that is not understood.
fn explain(rules: &Rules, line: &Line<'_>) -> String {
    match line {
        Line::Text(text) => policy::explain(rules, text, Millis::now()),
        Line::Unreadable(why) => denied(why),
    }
}

fn denied(reason: &str) -> String {
    let effects = policy::Effects::default();
    json!({
        "id": null,
        "decision": Verdict::Deny,
        "key": "",
        "rule": "malformed",
        "reason": reason,
        "effects": effects,
    })
    .to_string()
}

fn as_json(answer: String) -> String {
    answer
}

fn as_words(answer: String) -> String {
    let value: Value = serde_json::from_str(&answer).unwrap_or_default();
    let word = |key: &str| harmless_line(value[key].as_str().unwrap_or_default()).into_owned();
    format!(
        "{:<10}  {}  ({})",
        word("decision"),
        word("reason"),
        word("rule")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(input: &[u8]) -> Vec<Value> {
        let mut out = Vec::new();
        lines::each(BufReader::new(input), &mut out, |line| {
            explain(Rules::shipped(), &line)
        })
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn each_line_gets_one_answer_and_what_is_no_call_is_denied() {
        let mut input = br#"{"id": 1, "tool": "list_files", "args": {"path": "."}}"#.to_vec();
        input.extend(b"\nnonsense\n\n\xff\xfe\n");
        input.extend(b"x".repeat(3 * 1024 * 1024));
        input.extend(b"\n{\"id\": 2, \"tool\": \"nothing\", \"args\": {}}");
        let answers = explained(&input);
        let decisions: Vec<_> = answers
            .iter()
            .map(|a| a["decision"].as_str().unwrap())
            .collect();
        assert_eq!(decisions, ["allow", "deny", "deny", "deny", "deny", "deny"]);
        assert_eq!(
            (&answers[0]["id"], &answers[5]["id"]),
            (&1.into(), &2.into())
        );
        for answer in &answers {
            for key in ["id", "key", "rule", "reason", "effects"] {
                assert!(answer.get(key).is_some(), "{key} in {answer}");
            }
        }
    }

    #[test]
    fn people_get_the_decision_the_reason_and_the_rule() {
        let words = as_words(denied("not a call\u{1b}"));
        assert_eq!(words, "deny        not a callU+001B  (malformed)");
    }
}
