//! `[[egress]]` of bulkhead.toml: who may reach what.

use std::num::{NonZeroU16, NonZeroU32};

use outbound::{BadRule, RuleSet, serves_strangers};
use protocol::ids::RuleName;
use protocol::outbound::{
    Asks, Budgets, ByteCount, Cleartext, Credential, EgressRule, HostPattern, Inspect, Method,
    PathPattern, RuleOwner, RuleReach, Subject,
};
use protocol::time::Day;
use serde::Deserialize;
use toml::Spanned;

use crate::ConfigError;

/// One rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleFile {
    name: RuleName,
    subject: Subject,
    host: HostPattern,
    ports: Option<Vec<NonZeroU16>>,
    methods: Option<Vec<Method>>,
    paths: Option<Vec<PathPattern>>,
    owner: RuleOwner,
    expires: Day,
    ask: Option<Ask>,
    credential: Option<Credential>,
    per_minute: Option<NonZeroU32>,
    bytes_per_day: Option<ByteCount>,
    upload: Option<ByteCount>,
    download: Option<ByteCount>,
    #[serde(default)]
    cleartext: bool,
    #[serde(default)]
    private: bool,
    inspect: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    Never,
    Once,
    Always,
}

/// The rules, complete and without contradictions. `text` is the file, for the lines of errors.
pub(crate) fn egress_rules(
    files: Vec<Spanned<RuleFile>>,
    text: &str,
) -> Result<Vec<EgressRule>, ConfigError> {
    let mut places = Vec::with_capacity(files.len());
    let mut rules = Vec::with_capacity(files.len());
    for file in files {
        places.push(file.span().start);
        rules.push(rule(file.into_inner()));
    }
    match RuleSet::new(rules.clone()) {
        Ok(_) => Ok(rules),
        Err(bad) => Err(placed(bad, &rules, &places, text)),
    }
}

/// The line of the last rule of this name: where two have one, the second is the one too many.
fn placed(bad: BadRule, rules: &[EgressRule], places: &[usize], text: &str) -> ConfigError {
    let last = rules
        .iter()
        .rposition(|rule| rule.name.as_str() == bad.name);
    let before = last
        .and_then(|at| places.get(at))
        .and_then(|place| text.get(..*place))
        .unwrap_or_default();
    ConfigError::Egress {
        line: before.matches('\n').count() + 1,
        rule: bad,
    }
}

fn rule(file: RuleFile) -> EgressRule {
    let narrowed = file.methods.is_some() || file.paths.is_some();
    let inspect = inspect(&file, narrowed);
    let usual = Budgets::default();
    EgressRule {
        ports: file.ports.unwrap_or_else(|| vec![https()]),
        methods: file
            .methods
            .unwrap_or_else(|| methods(&file.subject, inspect)),
        paths: file.paths.unwrap_or_else(|| vec![PathPattern::all()]),
        name: file.name,
        subject: file.subject,
        host: file.host,
        owner: file.owner,
        expires: file.expires,
        ask: match file.ask {
            None => Asks::ByMethod,
            Some(Ask::Never) => Asks::Never,
            Some(Ask::Once) => Asks::Once,
            Some(Ask::Always) => Asks::Always,
        },
        credential: file.credential,
        budgets: Budgets {
            per_minute: file.per_minute.unwrap_or(usual.per_minute),
            per_day: file.bytes_per_day.unwrap_or(usual.per_day),
            upload: file.upload.unwrap_or(usual.upload),
            download: file.download.unwrap_or(usual.download),
        },
        cleartext: match file.cleartext {
            true => Cleartext::Allowed,
            false => Cleartext::Refused,
        },
        reach: match file.private {
            true => RuleReach::Private,
            false => RuleReach::Public,
        },
        inspect,
    }
}

fn https() -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(442)
}

/// What nobody said about a box is looked into where the host alone says little, or where methods
/// and paths are to be held.
fn inspect(file: &RuleFile, narrowed: bool) -> Inspect {
    let usual = match file.subject {
        Subject::Exec(_) => narrowed || serves_strangers(&file.host),
        Subject::Tool(_) | Subject::Channel(_) | Subject::Model => false,
    };
    match file.inspect.unwrap_or(usual) {
        true => Inspect::Yes,
        false => Inspect::No,
    }
}

/// Where nobody sees the method, all are meant.
fn methods(subject: &Subject, inspect: Inspect) -> Vec<Method> {
    match (subject, inspect) {
        (Subject::Tool(_) | Subject::Model, _) | (Subject::Exec(_), Inspect::Yes) => {
            vec![Method::Get, Method::Head]
        }
        (Subject::Exec(_), Inspect::No) | (Subject::Channel(_), _) => Method::ALL.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{Config, Home};

    use super::*;

    const LEAST: &str = "name = \"r\"\nsubject = \"tool:http_request\"\nhost = \"api.example.com\"\nowner = \"me\"\nexpires = \"2027-06-01\"\n";

    /// The least rule, about this host.
    fn about(host: &str) -> String {
        format!("[[egress]]\n{}", LEAST.replace("api.example.com", host))
    }

    fn read(rules: &str) -> Result<Vec<EgressRule>, String> {
        let text = format!(
            "[model]\napi = \"ollama\"\nurl = \"http://127.0.0.1:1\"\nname = \"m\"\n{rules}"
        );
        Config::parse(
            &text,
            &Home::at(Path::new("/h")).unwrap(),
            Path::new("/h/b"),
        )
        .map(|config| config.rules.egress)
        .map_err(|error| error.to_string())
    }

    fn one(more: &str) -> Result<EgressRule, String> {
        read(&format!("[[egress]]\n{LEAST}{more}")).map(|rules| rules[0].clone())
    }

    #[test]
    fn what_is_left_out_is_the_least() {
        let rule = one("").unwrap();
        assert_eq!(rule.ports, [NonZeroU16::new(443).unwrap()]);
        assert_eq!(rule.methods, [Method::Get, Method::Head]);
        assert_eq!(rule.paths, [PathPattern::all()]);
        assert_eq!(rule.ask, Asks::ByMethod);
        assert_eq!(rule.credential, None);
        assert_eq!(rule.budgets, Budgets::default());
        assert_eq!(rule.budgets.per_minute.get(), 60);
        assert_eq!(rule.budgets.per_day.to_string(), "1 GiB");
        assert_eq!(
            (rule.cleartext, rule.reach),
            (Cleartext::Refused, RuleReach::Public)
        );
        assert_eq!(rule.inspect, Inspect::No);
    }

    #[test]
    fn all_of_it_can_be_said() {
        let rule = one(
            "ports = [443, 8443]\nmethods = [\"GET\", \"POST\"]\npaths = [\"/repos/me/notes/*\"]\nask = \"once\"\n\
             credential = { secret = \"github\", as = \"header X-Key\" }\nper_minute = 5\nbytes_per_day = \"100 MiB\"\n\
             upload = \"1 KiB\"\ndownload = \"2 MiB\"\n",
        )
        .unwrap();
        assert_eq!(rule.ports.len(), 2);
        assert_eq!(rule.paths[0].as_str(), "/repos/me/notes/*");
        assert_eq!(rule.ask, Asks::Once);
        assert_eq!(rule.credential.unwrap().attach.to_string(), "header X-Key");
        assert_eq!(rule.budgets.upload.bytes(), 1024);
        assert_eq!(rule.budgets.download.to_string(), "2 MiB");
    }

    #[test]
    fn a_box_is_looked_into_where_the_host_alone_says_little() {
        let of = |host: &str, more: &str| {
            read(&format!(
                "[[egress]]\nname = \"r\"\nsubject = \"exec:git\"\nhost = \"{host}\"\nowner = \"me\"\nexpires = \"2027-06-01\"\n{more}"
            ))
            .map(|rules| (rules[0].inspect, rules[0].methods.len()))
        };
        assert_eq!(of("github.com", ""), Ok((Inspect::Yes, 2)));
        assert_eq!(of("git.example.com", ""), Ok((Inspect::No, 7)));
        assert_eq!(
            of("git.example.com", "paths = [\"/me/*\"]\n"),
            Ok((Inspect::Yes, 2))
        );
        assert_eq!(of("github.com", "inspect = false\n"), Ok((Inspect::No, 7)));
        let said = of("github.com", "inspect = false\npaths = [\"/me/*\"]\n").unwrap_err();
        assert!(said.contains("inspect = true"), "{said}");
    }

    #[test]
    fn errors_name_the_line_and_the_key() {
        for (text, says) in [
            (
                format!("[[egress]]\n{LEAST}colour = 1\n"),
                ["line 11", "unknown field `colour`"],
            ),
            (
                format!("[[egress]]\n{LEAST}ask = \"sometimes\"\n"),
                ["line 11", "unknown variant"],
            ),
            (
                format!("[[egress]]\n{LEAST}methods = [\"get\"]\n"),
                ["line 11", "unknown variant `get`"],
            ),
            (
                format!("[[egress]]\n{LEAST}paths = [\"/a/../b\"]\n"),
                ["line 11", "no segment"],
            ),
            (
                format!("[[egress]]\n{LEAST}ports = [0]\n"),
                ["line 11", "nonzero"],
            ),
            (
                format!("[[egress]]\n{LEAST}upload = \"1 MB\"\n"),
                ["line 11", "not an amount"],
            ),
            (
                LEAST.replace("name = \"r\"\n", "[[egress]]\n"),
                ["line 5", "missing field `name`"],
            ),
            (
                format!(
                    "[[egress]]\n{}",
                    LEAST.replace("tool:http_request", "http_request")
                ),
                ["line 7", "not a subject"],
            ),
            (about("2130706433"), ["line 8", "not a host for a rule"]),
            (
                format!("[[egress]]\n{}", LEAST.replace("2027-06-01", "2027-02-30")),
                ["line 10", "not a day"],
            ),
            (
                format!("[[egress]]\n{LEAST}\n[[egress]]\n{LEAST}"),
                ["line 12", "another rule has this name"],
            ),
            (about("8.8.8.8"), ["line 5", "host: a public address"]),
            (about("127.0.0.1"), ["line 5", "private = true"]),
            (
                about("169.254.169.254") + "private = true\n",
                ["line 5", "a link-local address"],
            ),
            (
                format!("[[egress]]\n{LEAST}private = true\n"),
                ["line 5", "goes with an address"],
            ),
            (about("10.0.0.1.nip.io"), ["line 5", "nip.io"]),
            (about("a.localhost"), ["line 5", "this machine"]),
            (
                about("*.github.io"),
                ["line 5", "everybody can have a name"],
            ),
            (about("xn--pypal-4ve.com"), ["line 5", "mixes scripts"]),
            (
                format!("[[egress]]\n{LEAST}ports = [80]\n"),
                ["line 5", "cleartext = true"],
            ),
            (
                format!("[[egress]]\n{LEAST}ports = []\n"),
                ["line 5", "ports: it lists 1 to 64"],
            ),
            (
                format!(
                    "[[egress]]\n{LEAST}cleartext = true\ncredential = {{ secret = \"x\", as = \"bearer\" }}\n"
                ),
                ["line 5", "not go out in the clear"],
            ),
            (
                format!(
                    "[[egress]]\n{}credential = {{ secret = \"x\", as = \"bearer\" }}\n",
                    LEAST.replace("api.", "*.")
                ),
                ["line 5", "one host"],
            ),
            (
                format!(
                    "[[egress]]\n{LEAST}credential = {{ secret = \"x\", as = \"path bot\" }}\n"
                ),
                ["line 5", "says {bot}"],
            ),
            (
                format!("[[egress]]\n{LEAST}credential = {{ secret = \"x\", as = \"cookie\" }}\n"),
                ["line 11", "no way to attach"],
            ),
            (
                format!(
                    "[[egress]]\n{}",
                    LEAST.replace("tool:http_request", "model")
                ),
                ["line 5", "[model]"],
            ),
            (
                format!(
                    "[[egress]]\n{}ask = \"once\"\n",
                    LEAST.replace("tool:http_request", "channel:matrix")
                ),
                ["line 5", "asks for nothing"],
            ),
            (
                format!(
                    "[[egress]]\n{}paths = [\"/x\"]\n",
                    LEAST.replace("tool:http_request", "channel:matrix")
                ),
                ["line 5", "does not see"],
            ),
        ] {
            let said = read(&text).unwrap_err();
            for says in says {
                assert!(said.contains(says), "{text}\n{said}");
            }
        }
    }

    #[test]
    fn a_rule_of_the_past_is_read_and_does_not_count() {
        let rules = read(&format!("[[egress]]\n{}", LEAST.replace("2027", "1999"))).unwrap();
        assert!(!rules[0].is_in_force(protocol::time::Millis(1_795_651_200_000)));
    }

    #[test]
    fn the_egress_rules_in_the_documentation_are_taken() {
        let page = include_str!("../../../docs/egress.md");
        let example = page.split("```toml\n").nth(1).unwrap();
        let rules = read(example.split("```").next().unwrap()).unwrap();
        let names: Vec<_> = rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["notes", "bot", "clone", "printer"]);
        assert_eq!(rules[2].inspect, Inspect::Yes);
        assert_eq!(rules[3].reach, RuleReach::Private);
    }
}
