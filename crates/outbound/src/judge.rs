//! The judgement of a request: may it go out, freely, after a question, or not at all.

use std::fmt;
use std::net::IpAddr;

use protocol::ids::{RuleName, SecretName};
use protocol::outbound::{
    Asks, Attach, Budgets, Cleartext, Credential, EgressRule, HostPattern, Inspect, Method, Subject,
};
use protocol::time::Millis;

use crate::address::{self, Allowed, Kind, kind};
use crate::host::{Host, seen_as};
use crate::names::{self, BadName};
use crate::path;
use crate::ports;
use crate::redirect::BadRedirect;
use crate::rules::{Place, RuleSet, is_about};
use crate::url::{BadUrl, Scheme, Url};

/// The longest query of a request that goes out without a question, together with the headers that
/// whoever asks wrote, in bytes: more is a message.
pub const MAX_FREE_QUERY: usize = 512;

/// The longest path of one, in bytes.
pub const MAX_FREE_PATH: usize = 1024;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// By whom.
    pub subject: &'a Subject,
    /// How.
    pub method: Method,
    /// What.
    pub url: &'a Url,
    /// With how many bytes of headers that whoever asks wrote; see [`crate::headers::bytes`].
    pub headers: usize,
    /// With which secret.
    pub credential: Option<&'a SecretName>,
    /// The time, for rules that expire.
    pub now: Millis,
}

/// A connection that is asked for, of which no more is seen.
#[derive(Clone, Copy, Debug)]
pub struct AskedTunnel<'a> {
    /// By whom: a program in a box, or a channel's.
    pub subject: &'a Subject,
    /// To whom.
    pub host: &'a Host,
    /// Where there.
    pub port: u16,
    /// The time, for rules that expire.
    pub now: Millis,
}

/// What is to happen with a request.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go out within these terms.
    Allow(Terms),
    /// It may go out within these terms if a person says yes.
    Ask(Terms, Question),
    /// It does not go out.
    Deny(Refusal),
}

/// What whoever sends a request still has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The rule that allows it; none where a person alone can.
    pub rule: Option<RuleName>,
    /// To which addresses a connection may be made; for [`answers`].
    pub allowed: Allowed,
    /// What is attached.
    pub credential: Option<Credential>,
    /// How much may go.
    pub budgets: Budgets,
    /// Whether what a box sends in it is judged request by request.
    pub inspect: Inspect,
}

/// What a person is asked, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// How often.
    pub often: Often,
    /// Why; at least one.
    pub why: Vec<Why>,
}

/// How often a person is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Often {
    /// The answer is remembered.
    Once,
    /// Before each request.
    Always,
}

/// Why a person is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// No rule is about the host.
    #[error("no egress rule lets {subject} reach {host}")]
    NoRule {
        /// Whom.
        subject: Subject,
        /// Where.
        host: String,
    },
    /// The rule for it counts no more.
    #[error("egress rule {0:?} has expired")]
    Expired(String),
    /// The rule says so.
    #[error("egress rule {0:?} allows it with your yes")]
    Rule(String),
    /// It takes a secret along.
    #[error("it uses the secret {0:?}")]
    Credential(String),
    /// It goes unencrypted.
    #[error("it goes in the clear, for everybody on the way to read and to change")]
    Clear,
    /// It may be there to carry something out.
    #[error("{0}")]
    Data(String),
}

/// Why a request does not go out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no address, or one that has two readings.
    #[error(transparent)]
    Url(#[from] BadUrl),
    /// `ws:` from who is no channel.
    #[error("{0} is for channels")]
    Scheme(Scheme),
    /// The name is no host of the internet.
    #[error(transparent)]
    Name(#[from] BadName),
    /// An address and no name.
    #[error("{host} is {kind} and no name; only a rule with `private = true` leads to an address")]
    Literal {
        /// The address.
        host: String,
        /// Its kind.
        kind: Kind,
    },
    /// One looks like the other.
    #[error("{host:?} looks like {of:?}, for which there is a rule, and is another host")]
    Lookalike {
        /// The host.
        host: String,
        /// That of the rule.
        of: String,
    },
    /// Nothing leads there, and there is nobody to ask.
    #[error("no egress rule lets {subject} reach {host}; to allow it, write one (docs/egress.md)")]
    NoRule {
        /// Whom.
        subject: Subject,
        /// Where.
        host: String,
    },
    /// There is a rule for the host, and this is not what it allows.
    #[error("egress rule {rule:?} is about this host and does not allow {what}")]
    NotAllowed {
        /// The rule, or the first of several.
        rule: String,
        /// What it does not allow.
        what: What,
    },
    /// Something else is spoken there.
    #[error(
        "port {port} is for {spoken} and not for HTTP; only a rule that names the port leads there"
    )]
    Port {
        /// The port.
        port: u16,
        /// What is spoken there.
        spoken: &'static str,
    },
    /// No rule sends this secret there.
    #[error("no egress rule sends the secret {secret:?} to {host}")]
    Credential {
        /// The secret.
        secret: String,
        /// Where.
        host: String,
    },
    /// A place for a secret, and none for it.
    #[error(
        "{{{0}}} in the path is a place for a secret that no rule puts there, or that was not asked for"
    )]
    Placeholder(String),
    /// `?_method=DELETE`: some servers take it for the method.
    #[error("the query names another method, which some servers obey")]
    MethodOverride,
    /// It may be there to carry something out, and there is nobody to ask.
    #[error("{0}")]
    Data(String),
    /// It is not the server of the model.
    #[error("the model's link leads to {0} and nowhere else")]
    NotTheModel(String),
    /// What the name resolves to.
    #[error(transparent)]
    Answers(#[from] address::Refusal),
    /// Where the answer leads on.
    #[error(transparent)]
    Redirect(#[from] BadRedirect),
}

/// What a rule for a host does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// The port.
    #[error("this port")]
    Port,
    /// No TLS.
    #[error("to speak in the clear")]
    Clear,
    /// The method.
    #[error("this method")]
    Method,
    /// The path.
    #[error("this path")]
    Path,
}

impl Refusal {
    /// A stable word for the kind of refusal.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Url(BadUrl::Scheme(_)) | Self::Scheme(_) => "scheme",
            Self::Url(BadUrl::Host(_)) => "host-form",
            Self::Url(_) => "malformed",
            Self::Name(_) => "name",
            Self::Literal { .. } => "address",
            Self::Lookalike { .. } => "lookalike",
            Self::NoRule { .. } => "no-rule",
            Self::NotAllowed { what, .. } => match what {
                What::Port => "port",
                What::Clear => "clear",
                What::Method => "method",
                What::Path => "path",
            },
            Self::Port { .. } => "port",
            Self::Credential { .. } | Self::Placeholder(_) => "credential",
            Self::MethodOverride => "method",
            Self::Data(_) => "data",
            Self::NotTheModel(_) => "no-rule",
            Self::Answers(_) => "answers",
            Self::Redirect(_) => "redirect",
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, why) in self.why.iter().enumerate() {
            let between = if at == 0 { "" } else { ", and " };
            write!(f, "{between}{why}")?;
        }
        Ok(())
    }
}

/// Judges a request. What it says holds for this request; each redirect is another one.
pub fn judge(rules: &RuleSet, asked: &Asked<'_>) -> Verdict {
    let judged = match asked.subject {
        Subject::Model => model(rules, asked.url),
        Subject::Channel(_) => channel(rules, asked),
        Subject::Tool(_) => tool(rules, asked),
        Subject::Exec(_) => exec(rules, asked),
    };
    judged.unwrap_or_else(Verdict::Deny)
}

/// Judges a connection of which no more is seen than where it leads.
pub fn judge_tunnel(rules: &RuleSet, asked: &AskedTunnel<'_>) -> Verdict {
    tunnel(rules, asked).map_or_else(Verdict::Deny, Verdict::Allow)
}

/// The addresses to which a connection may be made, of those that a host resolved to. All of them
/// have to be of the kind that is allowed, and there has to be one.
pub fn answers(allowed: &Allowed, host: &Host, found: &[IpAddr]) -> Result<Vec<IpAddr>, Refusal> {
    Ok(address::check(allowed, &host.to_string(), found)?)
}

fn model(rules: &RuleSet, url: &Url) -> Result<Verdict, Refusal> {
    let place = rules
        .model()
        .ok_or_else(|| Refusal::NotTheModel("nothing".to_owned()))?;
    if !url.scheme().is_http() {
        return Err(Refusal::Scheme(url.scheme()));
    }
    match at_place(place, url.host(), url.port(), url.scheme().is_tls()) {
        true => Ok(Verdict::Allow(of_place(place)?)),
        false => Err(Refusal::NotTheModel(format!(
            "{}:{}",
            place.host, place.port
        ))),
    }
}

fn at_place(place: &Place, host: &Host, port: u16, tls: bool) -> bool {
    let name = match host {
        Host::Name(name) => name.clone(),
        Host::Address(address) => address.to_string(),
    };
    let scheme = tls == (place.clear == Cleartext::Refused);
    name == place.host && port == place.port && scheme
}

fn of_place(place: &Place) -> Result<Terms, Refusal> {
    Ok(Terms {
        rule: None,
        allowed: Allowed::by_rule(&place.host)?,
        credential: None,
        budgets: Budgets::default(),
        inspect: Inspect::No,
    })
}

fn channel(rules: &RuleSet, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
    let Asked {
        subject, url, now, ..
    } = *asked;
    let (host, port) = (url.host(), url.port());
    if let Some(secret) = asked.credential {
        return Err(no_credential(secret, url));
    }
    if !url.scheme().is_tls()
        && crate::address::kind_of(host) != Some(Kind::Loopback)
        && !is_localhost(host)
    {
        return Err(Refusal::NoRule {
            subject: subject.clone(),
            host: format!("{host} in the clear"),
        });
    }
    tunnel(
        rules,
        &AskedTunnel {
            subject,
            host,
            port,
            now,
        },
    )
    .map(Verdict::Allow)
}

fn is_localhost(host: &Host) -> bool {
    host.name() == Some("localhost")
}

fn tunnel(rules: &RuleSet, asked: &AskedTunnel<'_>) -> Result<Terms, Refusal> {
    let AskedTunnel {
        subject,
        host,
        port,
        now,
    } = *asked;
    if let Subject::Channel(channel) = subject {
        let at = |place: &&Place| at_place(place, host, port, place.clear == Cleartext::Refused);
        if let Some(place) = rules.tunnels(channel).find(at) {
            return of_place(place);
        }
    }
    let about = about(rules, subject, host, now)?;
    let Some(first) = about.first() else {
        return Err(no_rule(subject, host));
    };
    let fitting: Vec<&EgressRule> = (about.iter().copied())
        .filter(|rule| has_port(rule, port))
        .collect();
    let Some(rule) = fitting.first() else {
        return Err(not_allowed(first, What::Port));
    };
    if let Some(data) = host.name().and_then(|name| beyond(rule, name)) {
        return Err(Refusal::Data(data));
    }
    let mut terms = of_rule(rule, None);
    if fitting.iter().any(|rule| rule.inspect == Inspect::Yes) {
        terms.inspect = Inspect::Yes;
    }
    Ok(terms)
}

/// A request that is seen because egress looks into what a box sends. Somebody said yes to the
/// box with these rules before it ran.
fn exec(rules: &RuleSet, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
    let rule = by_rule(rules, asked)?.ok_or_else(|| no_rule(asked.subject, asked.url.host()))?;
    match data(asked, Some(rule)) {
        Some(data)
            if asked
                .url
                .host()
                .name()
                .and_then(|name| beyond(rule, name))
                .is_some() =>
        {
            Err(Refusal::Data(data))
        }
        Some(_) | None => Ok(Verdict::Allow(of_rule(rule, None))),
    }
}

fn tool(rules: &RuleSet, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
    let Some(rule) = by_rule(rules, asked)? else {
        return without_rule(rules, asked);
    };
    let terms = of_rule(rule, asked.credential);
    let mut question = Question {
        often: Often::Once,
        why: Vec::new(),
    };
    let name = || Why::Rule(rule.name.to_string());
    match (rule.ask, asked.method.only_reads()) {
        (Asks::Never, _) | (Asks::ByMethod, true) => {}
        (Asks::Once, _) | (Asks::ByMethod, false) => question.why.push(name()),
        (Asks::Always, _) => {
            question.often = Often::Always;
            question.why.push(name());
        }
    }
    if let Some(secret) = asked.credential {
        question.why.push(Why::Credential(secret.to_string()));
    }
    if let Some(data) = data(asked, Some(rule)) {
        question.often = Often::Always;
        question.why.push(Why::Data(data));
    }
    Ok(match question.why.is_empty() {
        true => Verdict::Allow(terms),
        false => Verdict::Ask(terms, question),
    })
}

/// The rule of this subject that allows a request, the one that asks least if there are several;
/// none if no rule is about the host.
fn by_rule<'a>(rules: &'a RuleSet, asked: &Asked<'a>) -> Result<Option<&'a EgressRule>, Refusal> {
    let Asked {
        subject,
        method,
        url,
        credential,
        now,
        headers: _,
    } = *asked;
    if !url.scheme().is_http() {
        return Err(Refusal::Scheme(url.scheme()));
    }
    let about = about(rules, subject, url.host(), now)?;
    let Some(first) = about.first().copied() else {
        return Ok(None);
    };
    let left = |rules: Vec<&'a EgressRule>, what: What, fits: &dyn Fn(&EgressRule) -> bool| {
        let left: Vec<&EgressRule> = rules.into_iter().filter(|rule| fits(rule)).collect();
        match left.is_empty() {
            true => Err(not_allowed(first, what)),
            false => Ok(left),
        }
    };
    let fitting = left(about, What::Port, &|rule| has_port(rule, url.port()))?;
    let fitting = left(fitting, What::Clear, &|rule| {
        url.scheme().is_tls() || rule.cleartext == Cleartext::Allowed
    })?;
    let fitting = left(fitting, What::Path, &|rule| {
        rule.paths
            .iter()
            .any(|pattern| path::fits(pattern, url.path()))
    })?;
    let fitting = left(fitting, What::Method, &|rule| {
        rule.methods.contains(&method)
    })?;
    if names_a_method(url) {
        return Err(Refusal::MethodOverride);
    }
    let sends = |rule: &&EgressRule| match credential {
        None => true,
        Some(named) => rule
            .credential
            .as_ref()
            .is_some_and(|held| held.secret == *named),
    };
    let least = fitting
        .into_iter()
        .filter(sends)
        .min_by_key(|rule| match rule.ask {
            Asks::Never => 0,
            Asks::ByMethod => 1,
            Asks::Once => 2,
            Asks::Always => 3,
        });
    let Some(rule) = least else {
        // Without a secret that was named each rule would do.
        return Err(credential.map_or_else(
            || not_allowed(first, What::Path),
            |named| no_credential(named, url),
        ));
    };
    check_placeholders(rule, asked)?;
    Ok(Some(rule))
}

/// The rules of this subject about a host, once the host is one that a rule can be about.
fn about<'a>(
    rules: &'a RuleSet,
    subject: &'a Subject,
    host: &Host,
    now: Millis,
) -> Result<Vec<&'a EgressRule>, Refusal> {
    let about: Vec<&EgressRule> = (rules.of(subject, now))
        .filter(|rule| is_about(&rule.host, host))
        .collect();
    match host {
        Host::Address(address) if about.is_empty() => Err(Refusal::Literal {
            host: host.to_string(),
            kind: kind(*address),
        }),
        Host::Address(_) => Ok(about),
        Host::Name(name) => {
            names::check(name)?;
            if about.is_empty() {
                check_lookalike(rules, name)?;
            }
            Ok(about)
        }
    }
}

/// Refuses a name that a person would take for that of a rule.
fn check_lookalike(rules: &RuleSet, name: &str) -> Result<(), Refusal> {
    let seen = seen_as(name);
    let alike = |pattern: &HostPattern| match pattern {
        HostPattern::Name(of) => {
            (of.as_str() != name && seen_as(of.as_str()) == seen).then(|| of.to_string())
        }
        HostPattern::Below(of) => {
            let end = seen_as(of.as_str());
            let below = seen
                .strip_suffix(&end)
                .is_some_and(|before| before.ends_with('.'));
            let really = name
                .strip_suffix(of.as_str())
                .is_some_and(|before| before.ends_with('.'));
            (below && !really).then(|| of.to_string())
        }
        HostPattern::Address(_) => None,
    };
    match rules.rules().iter().find_map(|rule| alike(&rule.host)) {
        Some(of) => Err(Refusal::Lookalike {
            host: name.to_owned(),
            of,
        }),
        None => Ok(()),
    }
}

/// Nothing is said about the host: a person may allow this very request, as it is.
fn without_rule(rules: &RuleSet, asked: &Asked<'_>) -> Result<Verdict, Refusal> {
    let Asked {
        subject, url, now, ..
    } = *asked;
    if let Some(spoken) = ports::spoken(url.port()) {
        return Err(Refusal::Port {
            port: url.port(),
            spoken,
        });
    }
    if let Some(secret) = asked.credential {
        return Err(no_credential(secret, url));
    }
    if let Some(place) = url.placeholders().next() {
        return Err(Refusal::Placeholder(place.to_owned()));
    }
    let expired = rules
        .expired(now)
        .find(|rule| rule.subject == *subject && is_about(&rule.host, url.host()));
    let mut why = vec![match expired {
        Some(rule) => Why::Expired(rule.name.to_string()),
        None => Why::NoRule {
            subject: subject.clone(),
            host: url.authority(),
        },
    }];
    if !url.scheme().is_tls() {
        why.push(Why::Clear);
    }
    why.extend(data(asked, None).map(Why::Data));
    let terms = Terms {
        rule: None,
        allowed: Allowed::Public,
        credential: None,
        budgets: Budgets::default(),
        inspect: Inspect::No,
    };
    let often = Often::Always;
    Ok(Verdict::Ask(terms, Question { often, why }))
}

/// Why a request may be there to carry something out by its address or its headers, if so.
fn data(asked: &Asked<'_>, rule: Option<&EgressRule>) -> Option<String> {
    let url = asked.url;
    let by_name = match (rule, url.host()) {
        (Some(rule), Host::Name(name)) => beyond(rule, name),
        (None, Host::Name(name)) => names::carries_data(name),
        (_, Host::Address(_)) => None,
    };
    let (query, headers) = (url.query().map_or(0, str::len), asked.headers);
    let path = url.path().len();
    by_name
        .or_else(|| {
            (query + headers > MAX_FREE_QUERY).then(|| {
                format!(
                    "its query and headers are long enough to carry data out ({query} and \
                     {headers} bytes)"
                )
            })
        })
        .or_else(|| {
            (path > MAX_FREE_PATH)
                .then(|| format!("its path is long enough to carry data out ({path} bytes)"))
        })
}

/// What a name holds beyond what its rule says.
fn beyond(rule: &EgressRule, name: &str) -> Option<String> {
    match &rule.host {
        HostPattern::Below(_) => names::carries_data(name),
        HostPattern::Name(_) | HostPattern::Address(_) => None,
    }
}

/// Whether the query has a parameter that some frameworks take for the method.
fn names_a_method(url: &Url) -> bool {
    let query = url.query().unwrap_or_default().to_ascii_lowercase();
    query
        .split(['&', ';'])
        .filter_map(|pair| pair.split('=').next())
        .any(|name| {
            matches!(
                name,
                "_method"
                    | "x-http-method-override"
                    | "x-http-method"
                    | "x-method-override"
                    | "$method"
            )
        })
}

fn check_placeholders(rule: &EgressRule, asked: &Asked<'_>) -> Result<(), Refusal> {
    let filled = match (&rule.credential, asked.credential) {
        (
            Some(Credential {
                attach: Attach::Path(name),
                ..
            }),
            Some(_),
        ) => Some(name.as_str()),
        _ => None,
    };
    let mut places = asked.url.placeholders();
    match places.find(|place| Some(*place) != filled) {
        Some(place) => Err(Refusal::Placeholder(place.to_owned())),
        None => Ok(()),
    }
}

fn has_port(rule: &EgressRule, port: u16) -> bool {
    rule.ports.iter().any(|of| of.get() == port)
}

fn of_rule(rule: &EgressRule, named: Option<&SecretName>) -> Terms {
    Terms {
        rule: Some(rule.name.clone()),
        allowed: match rule.host {
            HostPattern::Address(address) => Allowed::Exactly(address),
            HostPattern::Name(_) | HostPattern::Below(_) => Allowed::Public,
        },
        credential: named.and(rule.credential.clone()),
        budgets: rule.budgets,
        inspect: rule.inspect,
    }
}

fn no_rule(subject: &Subject, host: &Host) -> Refusal {
    Refusal::NoRule {
        subject: subject.clone(),
        host: host.to_string(),
    }
}

fn not_allowed(rule: &EgressRule, what: What) -> Refusal {
    Refusal::NotAllowed {
        rule: rule.name.to_string(),
        what,
    }
}

fn no_credential(secret: &SecretName, url: &Url) -> Refusal {
    Refusal::Credential {
        secret: secret.to_string(),
        host: url.authority(),
    }
}
