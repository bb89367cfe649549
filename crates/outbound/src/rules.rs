//! The rules in force, and what would make one a trap.

use protocol::control::{ModelRoute, Scheme as RouteScheme, TunnelRule};
use protocol::ids::{ChannelId, RuleName};
use protocol::outbound::{
    Asks, Attach, Cleartext, EgressRule, HostPattern, Inspect, MAX_EGRESS_RULES, MAX_LISTED,
    RuleReach, Subject,
};
use protocol::time::Millis;

use crate::address::{Kind, kind};
use crate::host::Host;
use crate::names::{self, BadName};
use crate::strangers::has_names_of_strangers;

/// All that may be reached: by rules of the owner, the model, and the hosts of channels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSet {
    rules: Vec<EgressRule>,
    model: Option<Place>,
    tunnels: Vec<(ChannelId, Place)>,
}

/// A server that the configuration names beside the rules.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) clear: Cleartext,
}

/// Why a rule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("egress rule {name:?}: {key}: {problem}")]
pub struct BadRule {
    /// Which.
    pub name: String,
    /// Which key of it.
    pub key: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl RuleSet {
    /// These rules, if each makes sense and no two have one name.
    pub fn new(rules: Vec<EgressRule>) -> Result<Self, BadRule> {
        for (at, rule) in rules.iter().enumerate() {
            check(rule)?;
            if rules[..at].iter().any(|other| other.name == rule.name) {
                return Err(bad(
                    rule,
                    "name",
                    "another rule has this name; give each its own",
                ));
            }
        }
        match rules.get(MAX_EGRESS_RULES) {
            Some(rule) => Err(bad(
                rule,
                "name",
                &format!("there are more than {MAX_EGRESS_RULES} rules"),
            )),
            None => Ok(Self {
                rules,
                ..Self::default()
            }),
        }
    }

    /// With the server of the model, for [`Subject::Model`].
    pub fn with_model(mut self, route: &ModelRoute) -> Self {
        let clear = match route.scheme {
            RouteScheme::Http => Cleartext::Allowed,
            RouteScheme::Https => Cleartext::Refused,
        };
        self.model = Some(Place {
            host: route.host.clone(),
            port: route.port,
            clear,
        });
        self
    }

    /// With the hosts of channels.
    pub fn with_tunnels(mut self, tunnels: &[TunnelRule]) -> Self {
        let place = |rule: &TunnelRule| {
            let clear = match crate::address::is_loopback_host(&rule.host) {
                true => Cleartext::Allowed,
                false => Cleartext::Refused,
            };
            let place = Place {
                host: rule.host.clone(),
                port: rule.port,
                clear,
            };
            (rule.channel.clone(), place)
        };
        self.tunnels.extend(tunnels.iter().map(place));
        self
    }

    /// All rules, also those that count no more.
    pub fn rules(&self) -> &[EgressRule] {
        &self.rules
    }

    /// The rule of this name.
    pub fn rule(&self, name: &RuleName) -> Option<&EgressRule> {
        self.rules.iter().find(|rule| rule.name == *name)
    }

    /// The rules that count no more.
    pub fn expired(&self, now: Millis) -> impl Iterator<Item = &EgressRule> {
        self.rules.iter().filter(move |rule| !rule.is_in_force(now))
    }

    /// The rules of this subject that count.
    pub fn of<'a>(
        &'a self,
        subject: &'a Subject,
        now: Millis,
    ) -> impl Iterator<Item = &'a EgressRule> {
        self.rules
            .iter()
            .filter(move |rule| rule.subject == *subject && rule.is_in_force(now))
    }

    pub(crate) fn model(&self) -> Option<&Place> {
        self.model.as_ref()
    }

    pub(crate) fn tunnels<'a>(&'a self, channel: &'a ChannelId) -> impl Iterator<Item = &'a Place> {
        let of = move |(whose, place): &'a (ChannelId, Place)| (whose == channel).then_some(place);
        self.tunnels.iter().filter_map(of)
    }
}

/// Whether a rule is about this host.
pub(crate) fn is_about(pattern: &HostPattern, host: &Host) -> bool {
    match (pattern, host) {
        (HostPattern::Name(name), Host::Name(host)) => name.as_str() == host,
        (HostPattern::Below(name), Host::Name(host)) => {
            let below = host.strip_suffix(name.as_str());
            below.is_some_and(|before| before.len() > 1 && before.ends_with('.'))
        }
        (HostPattern::Address(address), Host::Address(host)) => address == host,
        (HostPattern::Name(_) | HostPattern::Below(_), Host::Address(_))
        | (HostPattern::Address(_), Host::Name(_)) => false,
    }
}

/// Whether a rule makes sense: it allows what it says and nothing that its owner would not see.
pub fn check(rule: &EgressRule) -> Result<(), BadRule> {
    check_lists(rule)?;
    check_host(rule)?;
    check_credential(rule)?;
    match &rule.subject {
        Subject::Model => Err(bad(rule, "subject", "where the model is stands in [model]")),
        Subject::Tool(_) => match rule.inspect {
            Inspect::Yes => Err(bad(
                rule,
                "inspect",
                "egress makes the requests of tools itself; this is for exec: alone",
            )),
            Inspect::No => Ok(()),
        },
        Subject::Exec(_) => check_exec(rule),
        Subject::Channel(_) => check_channel(rule),
    }
}

fn check_lists(rule: &EgressRule) -> Result<(), BadRule> {
    for (key, count) in [
        ("ports", rule.ports.len()),
        ("methods", rule.methods.len()),
        ("paths", rule.paths.len()),
    ] {
        if !(1..=MAX_LISTED).contains(&count) {
            return Err(bad(
                rule,
                key,
                &format!("it lists 1 to {MAX_LISTED}, and to allow all, leave it out"),
            ));
        }
    }
    let clear = rule.ports.iter().any(|port| port.get() == 80);
    match rule.cleartext {
        Cleartext::Refused if clear => Err(bad(
            rule,
            "ports",
            "port 80 is for what goes out in the clear; if you mean it, say cleartext = true",
        )),
        Cleartext::Refused | Cleartext::Allowed => Ok(()),
    }
}

fn check_host(rule: &EgressRule) -> Result<(), BadRule> {
    match (&rule.host, rule.reach) {
        (HostPattern::Address(address), reach) => match (kind(*address), reach) {
            (Kind::Loopback | Kind::Private, RuleReach::Private) => Ok(()),
            (Kind::Loopback | Kind::Private, RuleReach::Public) => Err(bad(
                rule,
                "host",
                "this address is of this machine or of a local network; if you mean it, say private = true",
            )),
            (kind, _) => Err(bad(
                rule,
                "host",
                &format!("{kind} stands in no rule; write the name of the host"),
            )),
        },
        (HostPattern::Name(_) | HostPattern::Below(_), RuleReach::Private) => Err(bad(
            rule,
            "private",
            "it goes with an address as host and not with a name, which may lead elsewhere tomorrow",
        )),
        (HostPattern::Name(name), RuleReach::Public) => {
            let host = Host::parse(name.as_str())
                .map_err(|error| bad(rule, "host", &error.to_string()))?;
            names::check(&host.to_string()).map_err(|error| bad(rule, "host", &error.to_string()))
        }
        (HostPattern::Below(name), RuleReach::Public) => {
            let host = Host::parse(name.as_str())
                .map_err(|error| bad(rule, "host", &error.to_string()))?;
            names::check(&host.to_string())
                .map_err(|error: BadName| bad(rule, "host", &error.to_string()))?;
            match has_names_of_strangers(name.as_str()) {
                true => Err(bad(
                    rule,
                    "host",
                    "everybody can have a name below this one; name the host that you mean",
                )),
                false => Ok(()),
            }
        }
    }
}

fn check_credential(rule: &EgressRule) -> Result<(), BadRule> {
    let Some(credential) = &rule.credential else {
        return Ok(());
    };
    if rule.cleartext == Cleartext::Allowed {
        return Err(bad(
            rule,
            "credential",
            "a secret does not go out in the clear; make it two rules",
        ));
    }
    if matches!(rule.host, HostPattern::Below(_)) {
        return Err(bad(
            rule,
            "credential",
            "a secret goes to one host; name it without the star",
        ));
    }
    if !matches!(rule.subject, Subject::Tool(_)) {
        return Err(bad(
            rule,
            "credential",
            "egress attaches secrets to the requests of tools, tool:NAME",
        ));
    }
    if let Attach::Path(name) = &credential.attach {
        let place = format!("{{{name}}}");
        if !rule.paths.iter().all(|path| path.as_str().contains(&place)) {
            return Err(bad(
                rule,
                "credential",
                &format!("each of its paths says {place}, where the secret goes"),
            ));
        }
    }
    Ok(())
}

fn check_exec(rule: &EgressRule) -> Result<(), BadRule> {
    if rule.inspect == Inspect::No && !says_all(rule) {
        return Err(bad(
            rule,
            "inspect",
            "which methods and paths a program asks for is seen only where egress looks into its requests: say inspect = true, or allow all methods and paths",
        ));
    }
    Ok(())
}

/// Whether a rule allows all of its host.
pub fn says_all(rule: &EgressRule) -> bool {
    let methods = protocol::outbound::Method::ALL;
    methods.iter().all(|method| rule.methods.contains(method))
        && rule.paths.iter().any(|path| path.is_all())
}

fn check_channel(rule: &EgressRule) -> Result<(), BadRule> {
    if rule.inspect == Inspect::Yes {
        return Err(bad(
            rule,
            "inspect",
            "egress looks into the requests of boxes alone, exec:PROGRAM",
        ));
    }
    if !says_all(rule) {
        return Err(bad(
            rule,
            "paths",
            "egress does not see what a channel asks for; leave methods and paths out",
        ));
    }
    match rule.ask {
        Asks::ByMethod | Asks::Never => Ok(()),
        Asks::Once | Asks::Always => Err(bad(
            rule,
            "ask",
            "a channel's program asks for nothing that somebody could be asked about",
        )),
    }
}

fn bad(rule: &EgressRule, key: &'static str, problem: &str) -> BadRule {
    BadRule {
        name: rule.name.to_string(),
        key,
        problem: problem.to_owned(),
    }
}
