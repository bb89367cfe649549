//! What leaves: the requests of tools to hosts, and boxes whose programs may reach some.

use outbound::{Asked, Often, Question, RuleSet, Terms, Url, Verdict, Why, headers, judge};
use protocol::call::{Action, ToolCall};
use protocol::egress::{Approved, HttpOrder};
use protocol::ids::{Digest, RuleName, SecretName, ToolName};
use protocol::outbound::{Asks, EgressRule, Method, ProgramName, Subject};
use protocol::time::Millis;
use serde::Serialize;

use crate::judge::{Effects, Reading, keyed};
use crate::parts::Found;
use crate::programs::{Finding, is_from_the_system};
use crate::rules::Kind;

/// One request to a host, as it would go out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostRequest {
    /// How.
    pub method: Method,
    /// Where, whole.
    pub url: String,
    /// The host of it.
    pub host: String,
    /// The port of it.
    pub port: u16,
    /// The egress rule that is about it; none if no rule is.
    pub rule: Option<RuleName>,
    /// The secret that egress attaches.
    pub credential: Option<SecretName>,
}

impl HostRequest {
    /// Whether something may be another afterwards: by the method, or since it is done in
    /// somebody's name.
    pub(crate) fn changes(&self) -> bool {
        !self.method.only_reads() || self.credential.is_some()
    }
}

/// What a tool wants to send.
pub(crate) struct Wanted<'a> {
    pub(crate) call: &'a ToolCall,
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(String, String)],
    pub(crate) body: Option<&'a str>,
    pub(crate) credential: Option<&'a SecretName>,
}

/// What a request of a tool is.
pub(crate) fn asking(wanted: &Wanted<'_>, egress: &RuleSet, now: Millis) -> Reading<'static> {
    let Wanted {
        call,
        method,
        credential,
        ..
    } = *wanted;
    let tool = ToolName::parse(call.name()).expect("the names of the tools are names");
    let key = keyed(call.name(), &format!("{method} {}", wanted.url));
    let url = match Url::parse(wanted.url) {
        Ok(url) => url,
        Err(bad) => return refused(wanted, &tool, key, bad.to_string()),
    };
    let asked = Asked {
        subject: &Subject::Tool(tool.clone()),
        method,
        url: &url,
        headers: headers::bytes(wanted.headers),
        credential,
        now,
    };
    let (terms, question) = match judge(egress, &asked) {
        Verdict::Deny(refusal) => return refused(wanted, &tool, key, refusal.to_string()),
        Verdict::Allow(terms) => (terms, None),
        Verdict::Ask(terms, question) => (terms, Some(question)),
    };
    let most = terms.budgets.upload;
    if wanted
        .body
        .is_some_and(|body| body.len() as u64 > most.bytes())
    {
        let reason =
            format!("its body has more than {most}, which is the most that may go out at once");
        return refused(wanted, &tool, key, reason);
    }
    let rule = terms.rule.as_ref().and_then(|name| egress.rule(name));
    Reading {
        found: parts(wanted, &url, &terms, question.as_ref()),
        key: rule.map_or(key, |rule| key_of(wanted, rule)),
        action: order(wanted, &tool, url.to_string()),
        network: Vec::new(),
    }
}

fn order(wanted: &Wanted<'_>, tool: &ToolName, url: String) -> Action {
    Action::Fetch {
        order: HttpOrder {
            tool: tool.clone(),
            method: wanted.method.to_string(),
            url,
            headers: wanted.headers.to_vec(),
            body: wanted.body.map(str::to_owned),
            credential: wanted.credential.cloned(),
            // Whoever judges says so where a rule is enough.
            approved: Approved::Person,
        },
    }
}

fn refused(wanted: &Wanted<'_>, tool: &ToolName, key: String, reason: String) -> Reading<'static> {
    Reading {
        found: vec![Found::whole(Finding {
            kind: Kind::HostRefused,
            reason,
            effects: Effects::default(),
        })],
        key,
        action: order(wanted, tool, wanted.url.to_owned()),
        network: Vec::new(),
    }
}

/// Where it goes, and what goes with it.
fn parts(
    wanted: &Wanted<'_>,
    url: &Url,
    terms: &Terms,
    question: Option<&Question>,
) -> Vec<Found<'static>> {
    let effects = Effects {
        hosts: vec![format!("{}:{}", url.host(), url.port())],
        requests: vec![HostRequest {
            method: wanted.method,
            url: url.to_string(),
            host: url.host().to_string(),
            port: url.port(),
            rule: terms.rule.clone(),
            credential: wanted.credential.cloned(),
        }],
        ..Effects::default()
    };
    let part = |kind, reason: String| {
        Found::whole(Finding {
            kind,
            reason,
            effects: effects.clone(),
        })
    };
    let about_secret = |why: &&Why| matches!(why, Why::Credential(_));
    let of_rule =
        question.is_some_and(|question| !question.why.iter().all(|why| about_secret(&why)));
    let reason = match (question, &terms.rule) {
        (Some(question), _) => question.to_string(),
        (None, Some(rule)) => format!("egress rule {:?} allows it", rule.as_str()),
        (None, None) => "it is allowed".to_owned(),
    };
    let kind = match (&terms.rule, question) {
        (None, _) => Kind::HostNotAllowed,
        (Some(_), Some(question)) if question.often == Often::Always => Kind::HostAskedAlways,
        (Some(_), Some(_)) if of_rule => Kind::HostAskedOnce,
        (Some(_), _) => Kind::HostByRule,
    };
    let mut parts = vec![part(kind, reason.clone())];
    if wanted.credential.is_some() {
        parts.push(part(Kind::Credential, reason));
    }
    parts
}

/// Under which key a yes is remembered: for this rule as it is now, whatever else it allows, and
/// for the headers that could say more of what is done than method and address do.
fn key_of(wanted: &Wanted<'_>, rule: &EgressRule) -> String {
    let (tool, method) = (wanted.call.name(), wanted.method);
    let mut with = String::new();
    if let Some(secret) = wanted.credential {
        with.push_str(&format!(" with the secret {secret}"));
    }
    let telling = telling(wanted.headers);
    if !telling.is_empty() {
        let names: Vec<&str> = telling.iter().map(|(name, _)| name.as_str()).collect();
        let (names, digest) = (names.join(", "), digest(&telling));
        with.push_str(&format!(" with the headers {names} ({digest})"));
    }
    format!(
        "{tool}:{method} by egress rule {}{with} ({})",
        rule.name,
        digest(&[rule])
    )
}

/// The headers to which a yes is as it is to the method.
pub(crate) fn telling(headers: &[(String, String)]) -> Vec<&(String, String)> {
    let each = headers.iter();
    each.filter(|(name, _)| !headers::is_plain(name)).collect()
}

/// Rules or headers as one short word.
fn digest(all: &[impl Serialize]) -> String {
    // Texts, numbers and lists of them always have a JSON form, and memory takes it.
    let text = serde_json::to_vec(all).expect("rules and headers have a JSON form");
    Digest::of(text).to_string()[..16].to_owned()
}

/// What the programs of a command may reach: the egress rules of all of them, if each that does
/// more than to look has some. A program without one would be let out by those of another.
pub(crate) fn reach(found: &[Found<'_>], egress: &RuleSet, now: Millis) -> Vec<EgressRule> {
    let mut reached: Vec<EgressRule> = Vec::new();
    let programs = found
        .iter()
        .filter(|part| part.finding.kind != Kind::Inspection)
        .filter_map(|part| part.words?.first());
    for path in programs {
        let name = path.rsplit('/').next().unwrap_or(path);
        let subject = ProgramName::parse(name)
            .filter(|_| is_from_the_system(path, name))
            .map(Subject::Exec);
        let rules: Vec<&EgressRule> = subject
            .iter()
            .flat_map(|subject| egress.of(subject, now))
            .collect();
        if rules.is_empty() {
            return Vec::new();
        }
        for rule in rules {
            if !reached.iter().any(|other| other.name == rule.name) {
                reached.push(rule.clone());
            }
        }
    }
    reached
}

/// The part of a command that says where its box may reach.
pub(crate) fn leaving(rules: &[EgressRule]) -> Option<Found<'static>> {
    if rules.is_empty() {
        return None;
    }
    let kind = match rules.iter().any(|rule| rule.ask == Asks::Always) {
        true => Kind::HostAskedAlways,
        false => Kind::BoxWithNetwork,
    };
    let hosts: Vec<String> = rules
        .iter()
        .flat_map(|rule| {
            rule.ports
                .iter()
                .map(|port| format!("{}:{port}", rule.host))
        })
        .collect();
    Some(Found::whole(Finding {
        kind,
        reason: format!("it runs with a way out to {}", way_out(rules)),
        effects: Effects {
            hosts,
            ..Effects::default()
        },
    }))
}

/// Where a box may reach, for people.
pub(crate) fn way_out(rules: &[EgressRule]) -> String {
    let each = rules
        .iter()
        .map(|rule| format!("{} (egress rule {:?})", rule.host, rule.name.as_str()));
    each.collect::<Vec<_>>().join(", ")
}

/// A key that holds for a command with this way out alone.
pub(crate) fn with_way_out(key: String, rules: &[EgressRule]) -> String {
    match rules {
        [] => key,
        rules => {
            let all: Vec<&EgressRule> = rules.iter().collect();
            format!("{key} with egress rules {}", digest(&all))
        }
    }
}
