//! A command of several parts: the strictest of them decides.

use protocol::call::{Verdict, WorkspacePath};
use protocol::script::{Place, Redirection, Script, Simple, Target};

use crate::judge::{Effects, write_rule};
use crate::lists;
use crate::programs::{self, Finding, Input, is_odd_path};

/// Judges all parts of a script, and the script as a whole by the strictest.
pub(crate) fn judge(script: &Script, workspace: &str) -> Finding {
    let mut findings: Vec<_> = script
        .steps
        .iter()
        .flat_map(|step| match step.folder() {
            Some(folder) => vec![lists::going(folder)],
            None => (0..step.pipeline.len())
                .flat_map(|at| part(&step.pipeline, at, workspace))
                .collect(),
        })
        .collect();
    if script.steps.len() > 1 && !lists::is_one_look(script, &findings) {
        findings.push(several());
    }
    let effects = findings
        .iter()
        .fold(Effects::default(), |mut all, finding| {
            all.add(&finding.effects);
            all
        });
    let strictest = findings.into_iter().reduce(|strictest, finding| {
        // Among parts that are allowed, one that writes says more than one that reads.
        let weight = |finding: &Finding| (finding.verdict, !finding.effects.writes.is_empty());
        match weight(&finding) > weight(&strictest) {
            true => finding,
            false => strictest,
        }
    });
    match strictest {
        Some(finding) => Finding { effects, ..finding },
        // A script has at least one program; one without is nothing that could be allowed.
        None => Finding {
            verdict: Verdict::Deny,
            rule: "malformed",
            reason: "it holds no program".to_owned(),
            effects,
        },
    }
}

fn part(pipeline: &[Simple], at: usize, workspace: &str) -> Vec<Finding> {
    let (before, simple) = (&pipeline[..at], &pipeline[at]);
    let input = match before {
        [] => Input::Nothing,
        _ => Input::Pipe,
    };
    let program = programs::handed(before, simple, workspace)
        .unwrap_or_else(|| programs::judge(simple, input, workspace));
    let redirections = simple.redirections.iter().filter_map(redirection);
    std::iter::once(program).chain(redirections).collect()
}

/// Where one command follows another, the second is often there for somebody else's sake.
fn several() -> Finding {
    Finding {
        verdict: Verdict::AskOnce,
        rule: "several-commands",
        reason: "it is several commands, one after another".to_owned(),
        effects: Effects::default(),
    }
}

/// What a redirection is, if it touches a file.
fn redirection(redirection: &Redirection) -> Option<Finding> {
    match &redirection.to {
        Target::Read { file } => file_of(file).map(|(path, kind)| reading(file, path, kind)),
        Target::Write { file } | Target::Append { file } => {
            file_of(file).map(|(path, kind)| writing(file, path, kind))
        }
        Target::Join { .. } => None,
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Workspace,
    Temporary,
}

fn file_of(place: &Place) -> Option<(&WorkspacePath, Kind)> {
    match place {
        Place::Workspace { path } => Some((path, Kind::Workspace)),
        Place::Temporary { path } => Some((path, Kind::Temporary)),
        Place::Nowhere {} => None,
    }
}

fn reading(file: &Place, path: &WorkspacePath, kind: Kind) -> Finding {
    let effects = Effects {
        reads: vec![file.to_string()],
        ..Effects::default()
    };
    let (verdict, rule, reason) = unusual(file, path, kind).unwrap_or_else(|| {
        let reason = "it only reads, inside the workspace".to_owned();
        (Verdict::Allow, "inspection", reason)
    });
    Finding {
        verdict,
        rule,
        reason,
        effects,
    }
}

fn writing(file: &Place, path: &WorkspacePath, kind: Kind) -> Finding {
    let effects = Effects {
        writes: vec![file.to_string()],
        ..Effects::default()
    };
    let (verdict, rule, reason) = match (write_rule(path), unusual(file, path, kind)) {
        ((Verdict::Allow, ..), Some(unusual)) => unusual,
        ((verdict, rule, reason), _) => (verdict, rule, reason.to_owned()),
    };
    Finding {
        verdict,
        rule,
        reason,
        effects,
    }
}

fn unusual(
    file: &Place,
    path: &WorkspacePath,
    kind: Kind,
) -> Option<(Verdict, &'static str, String)> {
    match kind {
        Kind::Temporary => Some((
            Verdict::AskOnce,
            "path-outside-workspace",
            format!("{:?} is outside the workspace", file.to_string()),
        )),
        Kind::Workspace if is_odd_path(path.as_str()) => Some((
            Verdict::AskOnce,
            "odd-path",
            format!(
                "{:?} is odd for a path: it looks like something for a shell",
                path.as_str()
            ),
        )),
        Kind::Workspace => None,
    }
}
