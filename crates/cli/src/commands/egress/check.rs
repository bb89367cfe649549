//! `bulkhead egress check`: what the egress rules say of requests. No socket is opened.

use std::io::{self, BufReader, BufWriter};

use clap::Args;
use config::{Config, ConfigError, Home};
use outbound::RuleSet;
use protocol::control::{ModelRoute, Reach, Scheme, TunnelRule};
use protocol::ids::ChannelId;
use protocol::time::Millis;
use scan::{Kind, Scanner};
use serde_json::{Value, json};

use super::scan::scanner;

use crate::fault::Fault;
use crate::lines::{self, Line};
use crate::terminal::harmless_line;

/// How it is answered.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Print one line of JSON for each.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(check: &Check, home: &Home) -> Result<(), Fault> {
    let (rules, scanner) = (rules(home)?, scanner(home));
    let form = if check.json { as_json } else { as_words };
    let input = BufReader::new(io::stdin().lock());
    let out = BufWriter::new(io::stdout().lock());
    lines::each(input, out, |line| form(answer(&rules, &scanner, &line)))
}

fn answer(rules: &RuleSet, scanner: &Scanner, line: &Line<'_>) -> String {
    match line {
        Line::Text(text) => {
            let said = outbound::explain(rules, text, Millis::now());
            leak(scanner, text, &said).unwrap_or(said)
        }
        Line::Unreadable(why) => {
            json!({ "id": null, "decision": "deny", "reason": why, "class": "malformed" })
                .to_string()
        }
    }
}

/// What the leak scan says of a request that may go out otherwise: no rule and no yes lets a
/// secret out with what a tool sends.
fn leak(scanner: &Scanner, line: &str, said: &str) -> Option<String> {
    let said: Value = serde_json::from_str(said).ok()?;
    let request: Value = serde_json::from_str(line).ok()?;
    let subject = request["subject"].as_str().unwrap_or("tool:");
    let is_tool = ["model", "exec:", "channel:"]
        .iter()
        .all(|other| !subject.starts_with(other));
    if said["decision"] == "deny" || !is_tool {
        return None;
    }
    let found = scanner.scan(request["url"].as_str().unwrap_or_default());
    let mut kinds: Vec<Kind> = found.iter().map(|found| found.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    let reason = format!(
        "the address holds what looks like a secret ({}); take it out, and name the secret with \
         `credential` if a rule sends it there",
        kinds.join(", ")
    );
    (!kinds.is_empty()).then(|| {
        json!({ "id": said["id"], "decision": "deny", "reason": reason, "class": "leak" })
            .to_string()
    })
}

/// Those of the configuration; without one, the model at its usual place and Telegram.
fn rules(home: &Home) -> Result<RuleSet, Fault> {
    let config = match Config::load(home) {
        Ok(config) => config,
        Err(ConfigError::Missing(_)) => return Ok(shipped()),
        Err(error) => return Err(error.into()),
    };
    let telegram = config.telegram.iter().map(|telegram| TunnelRule {
        channel: telegram_channel(),
        host: telegram.api.host.clone(),
        port: telegram.api.port,
    });
    let tunnels: Vec<TunnelRule> = telegram.collect();
    let rules = RuleSet::new(config.rules.egress).map_err(|bad| Fault::Refused(bad.to_string()))?;
    Ok(rules.with_model(&config.route).with_tunnels(&tunnels))
}

fn telegram_channel() -> ChannelId {
    ChannelId::parse("telegram").expect("it has only letters")
}

fn shipped() -> RuleSet {
    let model = ModelRoute {
        name: "any".to_owned(),
        scheme: Scheme::Http,
        host: "127.0.0.1".to_owned(),
        port: 11434,
        path: "/api/chat".to_owned(),
        reach: Reach::Loopback,
        idle_seconds: 180,
    };
    let telegram = TunnelRule {
        channel: telegram_channel(),
        host: "api.telegram.org".to_owned(),
        port: 443,
    };
    RuleSet::default()
        .with_model(&model)
        .with_tunnels(&[telegram])
}

fn as_json(answer: String) -> String {
    answer
}

fn as_words(answer: String) -> String {
    let value: Value = serde_json::from_str(&answer).unwrap_or_default();
    let word = |key: &str| harmless_line(value[key].as_str().unwrap_or_default()).into_owned();
    format!("{:<10}  {}", word("decision"), word("reason"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MODEL: &str =
        "[model]\napi = \"ollama\"\nurl = \"http://localhost:8080\"\nname = \"m\"\n";

    fn home(config: Option<&str>) -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("h")).unwrap();
        home.create().unwrap();
        if let Some(text) = config {
            fs::write(home.config_file(), text).unwrap();
        }
        (dir, home)
    }

    fn decisions(home: &Home, input: &[u8]) -> Vec<(Value, String)> {
        let (rules, mut out) = (rules(home).unwrap(), Vec::new());
        lines::each(BufReader::new(input), &mut out, |line| {
            answer(&rules, &Scanner::of_formats(), &line)
        })
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines()
            .map(|line| {
                let value: Value = serde_json::from_str(line).unwrap();
                assert!(!value["reason"].as_str().unwrap().is_empty());
                let decision = value["decision"].as_str().unwrap().to_owned();
                (value["id"].clone(), decision)
            })
            .collect()
    }

    #[test]
    fn each_line_gets_one_answer_without_a_configuration() {
        let (_dir, home) = home(None);
        let mut input =
            b"{\"id\":1,\"method\":\"GET\",\"url\":\"https://example.com/\"}\nnonsense\n\n\xff\n"
                .to_vec();
        input.extend(b"{\"id\":\"x\",\"method\":\"GET\",\"url\":\"http://127.0.0.1/\"}\n");
        input.extend(b"y".repeat(2 * 1024 * 1024));
        input.extend(b"\n{\"id\":2,\"subject\":\"model\",\"method\":\"POST\",\"url\":\"http://127.0.0.1:11434/api/chat\"}\n");
        input.extend(b"{\"id\":3,\"subject\":\"channel:telegram\",\"method\":\"GET\",\"url\":\"https://api.telegram.org/\"}");
        let expected = [
            (json!(1), "ask_always"),
            (json!(null), "deny"),
            (json!(null), "deny"),
            (json!(null), "deny"),
            (json!("x"), "deny"),
            (json!(null), "deny"),
            (json!(2), "allow"),
            (json!(3), "allow"),
        ];
        let expected = expected.map(|(id, decision)| (id, decision.to_owned()));
        assert_eq!(decisions(&home, &input), expected);
    }

    #[test]
    fn the_configuration_says_where_the_model_is_and_what_rules_allow() {
        let rule = "[[egress]]\nname = \"r\"\nsubject = \"tool:http_request\"\nhost = \"example.com\"\nowner = \"me\"\nexpires = \"9999-01-01\"\n";
        let (_dir, home) = home(Some(&format!("{MODEL}{rule}")));
        let input = b"{\"method\":\"GET\",\"url\":\"https://example.com/\"}\n\
            {\"method\":\"POST\",\"url\":\"https://example.com/\"}\n\
            {\"subject\":\"model\",\"method\":\"POST\",\"url\":\"http://localhost:8080/api/chat\",\"answers\":[\"127.0.0.1\",\"::1\"]}\n\
            {\"subject\":\"model\",\"method\":\"POST\",\"url\":\"http://127.0.0.1:11434/api/chat\"}\n\
            {\"subject\":\"channel:telegram\",\"method\":\"GET\",\"url\":\"https://api.telegram.org/\"}\n";
        let said: Vec<String> = decisions(&home, input)
            .into_iter()
            .map(|(_, said)| said)
            .collect();
        assert_eq!(said, ["allow", "deny", "allow", "deny", "deny"]);
    }

    #[test]
    fn an_address_with_a_secret_in_it_is_denied_whatever_allows_it() {
        let rule = "[[egress]]\nname = \"r\"\nsubject = \"tool:http_request\"\nhost = \"example.com\"\nowner = \"me\"\nexpires = \"9999-01-01\"\n";
        let (_dir, home) = home(Some(&format!("{MODEL}{rule}")));
        let token = format!("{}{}", "gh", "p_7cCRDs0pWzPqk3uVb9T1xYf5Zn2Ee8Lm4Hh6");
        let input = format!(
            "{{\"method\":\"GET\",\"url\":\"https://example.com/?page=2\"}}\n\
             {{\"method\":\"GET\",\"url\":\"https://example.com/?q={token}\"}}\n"
        );
        let said: Vec<String> = decisions(&home, input.as_bytes())
            .into_iter()
            .map(|(_, said)| said)
            .collect();
        assert_eq!(said, ["allow", "deny"]);
    }

    #[test]
    fn people_get_the_decision_and_the_reason() {
        let words = as_words(json!({ "decision": "deny", "reason": "no\u{1b}" }).to_string());
        assert_eq!(words, "deny        noU+001B");
    }
}
