//! What the rules say of a call, whoever asks for it.

use protocol::call::{Action, ToolCall, Verdict, WorkspacePath};
use protocol::egress::{Approved, HttpOrder};
use protocol::ids::Digest;
use protocol::outbound::{EgressRule, Method};
use protocol::rules::Label;
use protocol::runner::Leaves;
use protocol::time::Millis;
use protocol::workspace::{GIT_FOLDER, OBEYED_BY_GIT};
use serde::Serialize;
use tools::MAX_COMMAND;

use crate::command::{self, Analysis};
use crate::parts::{self, Found};
use crate::programs::{Finding, is_inside};
use crate::requests::{self, HostRequest, Wanted};
use crate::rules::{Kind, Part, Rules, Ruling, Session};
use crate::visible;

/// The longest key that shows what it is for; a longer one is a digest.
const MAX_KEY: usize = 512;

/// What a call can do, as far as that can be known before it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Effects {
    /// The programs that are started first. What they start is bounded by the box alone.
    pub programs: Vec<String>,
    /// The paths that are read, as they are written in the call.
    pub reads: Vec<String>,
    /// The paths that are written, likewise.
    pub writes: Vec<String>,
    /// The hosts that are spoken to, with their ports: those of a request, those that a box can
    /// reach, and those of the addresses among the words of a program.
    pub hosts: Vec<String>,
    /// The request to a host that it is, if it is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<HostRequest>,
    /// Whether the call was not understood, so that the lists may lack something.
    pub opaque: bool,
}

impl Effects {
    /// Adds what another part of the same call can do.
    pub(crate) fn add(&mut self, other: &Self) {
        let add = |all: &mut Vec<String>, more: &[String]| {
            for one in more {
                if !all.contains(one) {
                    all.push(one.clone());
                }
            }
        };
        add(&mut self.programs, &other.programs);
        add(&mut self.reads, &other.reads);
        add(&mut self.writes, &other.writes);
        add(&mut self.hosts, &other.hosts);
        for request in &other.requests {
            if !self.requests.contains(request) {
                self.requests.push(request.clone());
            }
        }
        self.opaque |= other.opaque;
    }
}

/// What the rules say of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The answer.
    pub verdict: Verdict,
    /// Under which key an approval of it is remembered.
    pub key: String,
    /// The rule that decided.
    pub rule: String,
    /// Why, in words for the person who is asked. Nothing invisible is in it.
    pub reason: String,
    /// What the call can do.
    pub effects: Effects,
    /// What exactly would run.
    pub action: Action,
    /// The egress rules by which its box reaches something; none for a box without a network.
    pub network: Vec<EgressRule>,
    /// What the session has touched once it ran, and by what.
    pub touches: Vec<(Label, String)>,
}

impl Judgement {
    /// What a run of it may leave behind. What is said to read changes nothing, even if what is
    /// known about a program is wrong.
    pub fn leaves(&self) -> Leaves {
        match self.verdict {
            _ if self.effects.writes.is_empty() && !self.effects.opaque => Leaves::Nothing,
            // Nobody said yes to this very call, so nobody saw that it plants a hook.
            Verdict::Allow => Leaves::Files,
            Verdict::AskOnce | Verdict::AskAlways | Verdict::Deny => Leaves::Changes,
        }
    }
}

/// A refusal without a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(Judgement);

impl Reason {
    /// What the rules say; the verdict is [`Verdict::Deny`].
    pub fn judgement(&self) -> &Judgement {
        &self.0
    }
}

impl From<Judgement> for Reason {
    fn from(judgement: Judgement) -> Self {
        Self(Judgement {
            verdict: Verdict::Deny,
            ..judgement
        })
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.reason)
    }
}

/// What a call is, before any rule is asked.
pub(crate) struct Reading<'a> {
    pub(crate) found: Vec<Found<'a>>,
    pub(crate) key: String,
    pub(crate) action: Action,
    /// What its box may reach.
    pub(crate) network: Vec<EgressRule>,
}

impl Rules {
    /// Judges a call. `workspace` is where the workspace is on the host; rules that expired by
    /// `now` do not count.
    pub fn judge(
        &self,
        call: &ToolCall,
        workspace: &str,
        session: &Session<'_>,
        now: Millis,
    ) -> Judgement {
        match call {
            ToolCall::ReadFile { path, .. }
            | ToolCall::ListFiles { path, .. }
            | ToolCall::SearchFiles { path, .. } => {
                self.strictest(call, reading(call, path), workspace, session)
            }
            ToolCall::WriteFile { path, .. } | ToolCall::EditFile { path, .. } => {
                self.strictest(call, writing(call, path), workspace, session)
            }
            ToolCall::Exec { command } => self.exec(call, command, workspace, session, now),
            ToolCall::HttpRequest {
                method,
                url,
                headers,
                body,
                credential,
            } => {
                let wanted = Wanted {
                    call,
                    method: *method,
                    url,
                    headers,
                    body: body.as_deref(),
                    credential: credential.as_ref(),
                };
                let reading = requests::asking(&wanted, self.egress(), now);
                self.strictest(call, reading, workspace, session)
            }
            ToolCall::WebFetch { url } => {
                let wanted = Wanted {
                    call,
                    method: Method::Get,
                    url,
                    headers: &[],
                    body: None,
                    credential: None,
                };
                let reading = requests::asking(&wanted, self.egress(), now);
                self.strictest(call, reading, workspace, session)
            }
        }
    }

    fn exec(
        &self,
        call: &ToolCall,
        command: &str,
        workspace: &str,
        session: &Session<'_>,
        now: Millis,
    ) -> Judgement {
        // No program can be given these, so there is nothing to ask about.
        if command.contains('\0') || command.len() > MAX_COMMAND || command.trim().is_empty() {
            let reason =
                format!("a command is not empty, has at most {MAX_COMMAND} bytes and no NUL");
            return self.strictest(
                call,
                opaque(command, Kind::Malformed, reason),
                workspace,
                session,
            );
        }
        match command::analyse(command, workspace) {
            Analysis::Opaque { why } => self.strictest(
                call,
                opaque(command, Kind::NotUnderstood, why),
                workspace,
                session,
            ),
            Analysis::Understood(script) => {
                let (shown, action) = match script.single() {
                    Some(argv) => (
                        // A list of texts always has a JSON form, and memory takes it.
                        serde_json::to_string(argv).expect("an argv has a JSON form"),
                        Action::Argv {
                            argv: argv.to_vec(),
                        },
                    ),
                    None => (
                        visible::script(&script),
                        Action::Script {
                            script: script.clone(),
                        },
                    ),
                };
                let mut found = parts::find(&script, workspace);
                let network = requests::reach(&found, self.egress(), now);
                found.extend(requests::leaving(&network));
                let reading = Reading {
                    found,
                    key: requests::with_way_out(keyed("exec", &shown), &network),
                    action,
                    network,
                };
                self.strictest(call, reading, workspace, session)
            }
        }
    }

    /// Asks the rules about each part. The strictest decides.
    fn strictest(
        &self,
        call: &ToolCall,
        reading: Reading<'_>,
        workspace: &str,
        session: &Session<'_>,
    ) -> Judgement {
        let (mut effects, mut touches) = (Effects::default(), Vec::new());
        let mut strictest: Option<(Ruling, &Finding)> = None;
        for Found {
            finding,
            words,
            path,
        } in &reading.found
        {
            effects.add(&finding.effects);
            if let Some(what) = looks_outside(finding, *words, workspace)
                && touches.is_empty()
            {
                touches.push((Label::Private, visible::text(&what)));
            }
            let ruling = self.rule(
                &Part {
                    tool: call.name(),
                    kind: finding.kind,
                    effects: &finding.effects,
                    words: *words,
                    path: *path,
                },
                session,
            );
            // Among parts that are allowed, one that writes says more than one that reads.
            let weight = |ruling: &Ruling, finding: &Finding| {
                (ruling.verdict, !finding.effects.writes.is_empty())
            };
            let is_stricter = strictest
                .as_ref()
                .is_none_or(|(most, of)| weight(&ruling, finding) > weight(most, of));
            if is_stricter {
                strictest = Some((ruling, finding));
            }
        }
        let (ruling, reason) = match strictest {
            Some((ruling, finding)) => (ruling, finding.reason.clone()),
            // A call has at least one part; one without is nothing that could be allowed.
            None => (Ruling::nothing(), "it holds no program".to_owned()),
        };
        let reason = match ruling.because {
            Some(because) => format!("{reason}, and {because}"),
            None => reason,
        };
        if let Some(stranger) = answers(&effects, &reading.network) {
            touches.push((Label::Untrusted, visible::text(&stranger)));
        }
        Judgement {
            verdict: ruling.verdict,
            key: reading.key,
            rule: ruling.rule,
            reason: visible::text(&reason),
            effects,
            action: approved(reading.action, ruling.verdict),
            network: reading.network,
            touches,
        }
    }
}

/// What is sent on whose word: where the rules ask nobody, egress holds each redirect to them as
/// well; what a person allowed is the one address that they saw.
fn approved(action: Action, verdict: Verdict) -> Action {
    match (action, verdict) {
        (Action::Fetch { order }, Verdict::Allow) => Action::Fetch {
            order: HttpOrder {
                approved: Approved::Rule,
                ..order
            },
        },
        (action, _) => action,
    }
}

/// Who else writes in the session once it ran: whoever answers.
fn answers(effects: &Effects, network: &[EgressRule]) -> Option<String> {
    let request = effects.requests.first();
    let asked = request.map(|request| format!("{} answered", request.host));
    asked.or_else(|| {
        let rule = network.first()?;
        Some(format!("a program could read what {} answers", rule.host))
    })
}

/// What a part may read outside of the workspace, as far as that can be known from its words.
fn looks_outside(finding: &Finding, words: Option<&[String]>, workspace: &str) -> Option<String> {
    if finding.effects.opaque {
        return Some("a script ran that could have read anything in the box".to_owned());
    }
    let is_outside = |path: &&String| {
        (path.starts_with('/') || path.split('/').any(|part| part == ".."))
            && !is_inside(path, workspace)
    };
    // What an inspection reads is known; its other words are patterns and scripts.
    let arguments = match finding.kind {
        Kind::Inspection => None,
        _ => words.and_then(|words| words.get(1..)),
    }
    .unwrap_or_default();
    let mut looked_at = finding.effects.reads.iter().chain(arguments);
    looked_at
        .find(is_outside)
        .map(|path| format!("{path:?} is outside the workspace"))
}

fn one<'a>(kind: Kind, reason: &str, effects: Effects, path: Option<&'a str>) -> Vec<Found<'a>> {
    vec![Found {
        finding: Finding {
            kind,
            reason: reason.to_owned(),
            effects,
        },
        words: None,
        path,
    }]
}

fn reading<'a>(call: &ToolCall, path: &'a WorkspacePath) -> Reading<'a> {
    let effects = Effects {
        reads: vec![path.to_string()],
        ..Effects::default()
    };
    let reason = "it reads inside the workspace";
    Reading {
        found: one(Kind::ReadInWorkspace, reason, effects, Some(path.as_str())),
        key: call.name().into(),
        action: Action::Tool { call: call.clone() },
        network: Vec::new(),
    }
}

/// What a write to a file of the workspace is, and why.
pub(crate) fn write_kind(path: &WorkspacePath) -> (Kind, &'static str) {
    // git on the host obeys what is in there: hooks, filters, monitors.
    let obeyed = |part: &str| {
        let is = |name: &&str| part.eq_ignore_ascii_case(name);
        is(&GIT_FOLDER) || OBEYED_BY_GIT.iter().any(is)
    };
    match path.as_str().split('/').any(obeyed) {
        true => (
            Kind::WriteInGitFolder,
            "git runs programs that are named in its folder, also outside the box",
        ),
        false => (Kind::WriteInWorkspace, "it writes inside the workspace"),
    }
}

fn writing<'a>(call: &ToolCall, path: &'a WorkspacePath) -> Reading<'a> {
    let (kind, reason) = write_kind(path);
    let effects = Effects {
        writes: vec![path.to_string()],
        ..Effects::default()
    };
    Reading {
        found: one(kind, reason, effects, Some(path.as_str())),
        key: keyed(call.name(), path.as_str()),
        action: Action::Tool { call: call.clone() },
        network: Vec::new(),
    }
}

fn opaque(command: &str, kind: Kind, reason: String) -> Reading<'static> {
    let effects = Effects {
        programs: vec!["/bin/sh".into()],
        opaque: true,
        ..Effects::default()
    };
    Reading {
        found: one(kind, &reason, effects, None),
        key: format!("exec:sh:sha256:{}", Digest::of(command)),
        action: Action::Shell {
            script: command.to_owned(),
        },
        // Nobody knows which programs it would let out.
        network: Vec::new(),
    }
}

/// A key that says what it is for; where that would be too long, its digest.
pub(crate) fn keyed(kind: &str, what: &str) -> String {
    let shown = visible::text(what);
    match shown.len() > MAX_KEY {
        true => format!("{kind}:sha256:{}", Digest::of(what)),
        false => format!("{kind}:{shown}"),
    }
}
