//! What the rules say of a call, whoever asks for it.

use protocol::call::{Action, ToolCall, Verdict, WorkspacePath};
use protocol::ids::Digest;
use protocol::runner::Leaves;
use serde::{Deserialize, Serialize};
use tools::MAX_COMMAND;

use crate::command::{self, Analysis};
use crate::{parts, visible};

/// The longest key that shows what it is for; a longer one is a digest.
const MAX_KEY: usize = 512;

/// What a session has touched. Set by the gateway, never by the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Secrets, files outside the workspace, other channels' memory.
    Private,
    /// Web, mail, MCP results, messages of others than the owner.
    Untrusted,
}

/// What a call can do, as far as that can be known before it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Effects {
    /// The programs that are started first. What they start is bounded by the box alone.
    pub programs: Vec<String>,
    /// The paths that are read, as they are written in the call.
    pub reads: Vec<String>,
    /// The paths that are written, likewise.
    pub writes: Vec<String>,
    /// The hosts that are spoken to. The box has no network.
    pub hosts: Vec<String>,
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
    pub rule: &'static str,
    /// Why, in words for the person who is asked. Nothing invisible is in it.
    pub reason: String,
    /// What the call can do.
    pub effects: Effects,
    /// What exactly would run.
    pub action: Action,
}

impl Judgement {
    /// What a run of it may leave behind. What is said to read changes nothing, even if what is
    /// known about a program is wrong.
    pub fn leaves(&self) -> Leaves {
        match self.effects.writes.is_empty() && !self.effects.opaque {
            true => Leaves::Nothing,
            false => Leaves::Changes,
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

/// Judges a call. `workspace` is where the workspace is on the host.
pub fn judge(call: &ToolCall, workspace: &str, labels: &[Label]) -> Judgement {
    let judgement = match call {
        ToolCall::ReadFile { path, .. }
        | ToolCall::ListFiles { path, .. }
        | ToolCall::SearchFiles { path, .. } => reading(call, path),
        ToolCall::WriteFile { path, .. } | ToolCall::EditFile { path, .. } => writing(call, path),
        ToolCall::Exec { command } => exec(command, workspace),
    };
    match labels.contains(&Label::Untrusted) {
        true => one_tier_up(judgement),
        false => judgement,
    }
}

fn reading(call: &ToolCall, path: &WorkspacePath) -> Judgement {
    Judgement {
        verdict: Verdict::Allow,
        key: call.name().into(),
        rule: "read-in-workspace",
        reason: "it reads inside the workspace".into(),
        effects: Effects {
            reads: vec![path.to_string()],
            ..Effects::default()
        },
        action: Action::Tool { call: call.clone() },
    }
}

/// What the rules say of a write to a file of the workspace, and why.
pub(crate) fn write_rule(path: &WorkspacePath) -> (Verdict, &'static str, &'static str) {
    // git on the host obeys what is in there: hooks, filters, monitors.
    match path
        .as_str()
        .split('/')
        .any(|part| part.eq_ignore_ascii_case(".git"))
    {
        true => (
            Verdict::AskAlways,
            "write-in-git-folder",
            "git runs programs that are named in its folder, also outside the box",
        ),
        false => (
            Verdict::Allow,
            "write-in-workspace",
            "it writes inside the workspace",
        ),
    }
}

fn writing(call: &ToolCall, path: &WorkspacePath) -> Judgement {
    let (verdict, rule, reason) = write_rule(path);
    Judgement {
        verdict,
        key: keyed(call.name(), path.as_str()),
        rule,
        reason: reason.into(),
        effects: Effects {
            writes: vec![path.to_string()],
            ..Effects::default()
        },
        action: Action::Tool { call: call.clone() },
    }
}

fn exec(command: &str, workspace: &str) -> Judgement {
    let opaque = |verdict, rule, reason: String| Judgement {
        verdict,
        key: format!("exec:sh:sha256:{}", Digest::of(command)),
        rule,
        reason,
        effects: Effects {
            programs: vec!["/bin/sh".into()],
            opaque: true,
            ..Effects::default()
        },
        action: Action::Shell {
            script: command.to_owned(),
        },
    };
    // No program can be given these, so there is nothing to ask about.
    if command.contains('\0') || command.len() > MAX_COMMAND || command.trim().is_empty() {
        let reason = format!("a command is not empty, has at most {MAX_COMMAND} bytes and no NUL");
        return opaque(Verdict::Deny, "malformed", reason);
    }
    let script = match command::analyse(command, workspace) {
        Analysis::Opaque { why } => return opaque(Verdict::AskAlways, "not-understood", why),
        Analysis::Understood(script) => script,
    };
    let finding = parts::judge(&script, workspace);
    let (shown, action) = match script.single() {
        Some(argv) => (
            // A list of texts always has a JSON form, and memory takes it.
            serde_json::to_string(argv).expect("an argv has a JSON form"),
            Action::Argv {
                argv: argv.to_vec(),
            },
        ),
        None => (visible::script(&script), Action::Script { script }),
    };
    Judgement {
        verdict: finding.verdict,
        key: keyed("exec", &shown),
        rule: finding.rule,
        reason: visible::text(&finding.reason),
        effects: finding.effects,
        action,
    }
}

/// In a session that read what others wrote, side effects need more than elsewhere.
fn one_tier_up(judgement: Judgement) -> Judgement {
    let changes = !judgement.effects.writes.is_empty() || judgement.effects.opaque;
    let verdict = match judgement.verdict {
        Verdict::Allow if changes => Verdict::AskOnce,
        Verdict::AskOnce => Verdict::AskAlways,
        Verdict::Allow | Verdict::AskAlways | Verdict::Deny => return judgement,
    };
    let reason = format!(
        "{}, and the session has read what others wrote",
        judgement.reason
    );
    Judgement {
        verdict,
        rule: "untrusted-session",
        reason,
        ..judgement
    }
}

/// A key that says what it is for; where that would be too long, its digest.
fn keyed(kind: &str, what: &str) -> String {
    let shown = visible::text(what);
    match shown.len() > MAX_KEY {
        true => format!("{kind}:sha256:{}", Digest::of(what)),
        false => format!("{kind}:{shown}"),
    }
}
