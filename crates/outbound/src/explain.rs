//! `egress check --json`: a request in, a decision out, nothing sent.

use std::collections::BTreeMap;
use std::net::IpAddr;

use protocol::ids::{SecretName, ToolName};
use protocol::outbound::{Method, Subject};
use protocol::time::Millis;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::headers;
use crate::judge::{Asked, Refusal, Terms, Verdict, answers, judge};
use crate::redirect::{MAX_REDIRECTS, redirect};
use crate::rules::RuleSet;
use crate::url::Url;

/// A line of input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    id: Value,
    subject: Option<String>,
    method: String,
    url: String,
    answers: Option<Vec<String>>,
    #[serde(default)]
    redirects: Vec<Hop>,
    credential: Option<SecretName>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hop {
    url: String,
    answers: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Explained<'a> {
    id: Value,
    decision: &'a str,
    reason: &'a str,
    /// The kind of a refusal; none for other decisions.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

/// What is said of a request, least strict first.
enum Said {
    Allow(Terms),
    Ask(String),
    Deny { reason: String, class: &'static str },
}

/// Explains one line of input with one line of output, without its line feed. What is no request
/// is denied, with the reason. What is asked about at all is said to be `ask_always`: what was
/// remembered is not known here.
pub fn explain(rules: &RuleSet, line: &str, now: Millis) -> String {
    let line: Line = match serde_json::from_str(line) {
        Ok(line) => line,
        Err(error) => {
            return write(
                id_of(line),
                &malformed(&format!("this line is not a request: {error}")),
            );
        }
    };
    let id = line.id.clone();
    write(id, &said(rules, &line, now))
}

fn said(rules: &RuleSet, line: &Line, now: Millis) -> Said {
    let subject = match &line.subject {
        None => shipped_tool(),
        Some(text) => match text.parse() {
            Ok(subject) => subject,
            // A subject that nobody knows has no rules, and is asked about like a tool.
            Err(_) => unknown_tool(),
        },
    };
    let method: Method = match line.method.parse() {
        Ok(method) => method,
        Err(error) => return malformed(&error.to_string()),
    };
    if line.redirects.len() > MAX_REDIRECTS {
        return malformed(&format!(
            "more than {MAX_REDIRECTS} redirects are not followed"
        ));
    }
    for name in line.headers.keys() {
        if let Err(bad) = headers::check(name, line.credential.as_ref()) {
            let (reason, class) = (bad.to_string(), "header");
            return Said::Deny { reason, class };
        }
    }
    let headers: Vec<_> = line.headers.clone().into_iter().collect();
    let mut from: Option<Url> = None;
    let mut worst: Option<Said> = None;
    let first = std::iter::once((&line.url, &line.answers));
    let hops = line.redirects.iter().map(|hop| (&hop.url, &hop.answers));
    for (at, (text, found)) in first.chain(hops).enumerate() {
        let url = match next(from.as_ref(), text) {
            Ok(url) => url,
            Err(refusal) => return refused(&refusal, at),
        };
        let asked = Asked {
            subject: &subject,
            method,
            url: &url,
            headers: headers::bytes(&headers),
            // Another server gets none.
            credential: line.credential.as_ref().filter(|_| at == 0),
            now,
        };
        let said = one(rules, &asked, found.as_deref(), at);
        if let Said::Deny { .. } = said {
            return said;
        }
        worst = Some(match (worst, said) {
            (Some(Said::Ask(why)), _) => Said::Ask(why),
            (_, said) => said,
        });
        from = Some(url);
    }
    // There is always the first one.
    worst.unwrap_or_else(|| malformed("there is no request"))
}

fn next(from: Option<&Url>, text: &str) -> Result<Url, Refusal> {
    match from {
        None => Ok(Url::parse(text)?),
        Some(from) => Ok(redirect(from, text)?.url),
    }
}

fn one(rules: &RuleSet, asked: &Asked<'_>, found: Option<&[String]>, at: usize) -> Said {
    let (terms, said) = match judge(rules, asked) {
        Verdict::Allow(terms) => (terms.clone(), Said::Allow(terms)),
        Verdict::Ask(terms, question) => (terms, Said::Ask(placed(&question.to_string(), at))),
        Verdict::Deny(refusal) => return refused(&refusal, at),
    };
    let Some(found) = found else {
        return said;
    };
    let read: Result<Vec<IpAddr>, String> = found
        .iter()
        .map(|text| text.parse().map_err(|_| text.clone()))
        .collect();
    match read {
        Err(text) => malformed(&format!("{text:?} among the answers is no address")),
        Ok(found) => match answers(&terms.allowed, asked.url.host(), &found) {
            Ok(_) => said,
            Err(refusal) => refused(&refusal, at),
        },
    }
}

fn shipped_tool() -> Subject {
    Subject::Tool(ToolName::parse("http_request").expect("it is a name"))
}

fn unknown_tool() -> Subject {
    Subject::Tool(ToolName::parse("unknown").expect("it is a name"))
}

fn malformed(reason: &str) -> Said {
    Said::Deny {
        reason: reason.to_owned(),
        class: "malformed",
    }
}

fn refused(refusal: &Refusal, at: usize) -> Said {
    Said::Deny {
        reason: placed(&refusal.to_string(), at),
        class: refusal.class(),
    }
}

fn placed(reason: &str, at: usize) -> String {
    match at {
        0 => reason.to_owned(),
        at => format!("redirect {at}: {reason}"),
    }
}

fn write(id: Value, said: &Said) -> String {
    let (decision, reason, class, rule) = match said {
        Said::Allow(terms) => {
            let rule = terms.rule.as_ref().map(ToString::to_string);
            let reason = match &rule {
                Some(rule) => format!("egress rule {rule:?} allows it"),
                None => "the configuration names this server".to_owned(),
            };
            ("allow", reason, None, rule)
        }
        Said::Ask(why) => ("ask_always", why.clone(), None, None),
        Said::Deny { reason, class } => ("deny", reason.clone(), Some(*class), None),
    };
    let explained = Explained {
        id,
        decision,
        reason: &reason,
        class,
        rule,
    };
    // Texts, numbers and lists of them always have a JSON form, and memory takes it.
    serde_json::to_string(&explained).expect("an explanation has a JSON form")
}

/// The id of a line that is JSON but no request.
fn id_of(line: &str) -> Value {
    #[derive(Deserialize)]
    struct OnlyId {
        #[serde(default)]
        id: Value,
    }
    serde_json::from_str(line).map_or(Value::Null, |OnlyId { id }| id)
}
