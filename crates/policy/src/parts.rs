//! A command of several parts: what each of them is.

use protocol::call::WorkspacePath;
use protocol::script::{Place, Redirection, Script, Simple, Target};

use crate::judge::{Effects, write_kind};
use crate::lists;
use crate::programs::{self, Finding, Input, odd_path};
use crate::rules::Kind;

/// A part of a command, and which words or which file it is about.
pub(crate) struct Found<'a> {
    pub(crate) finding: Finding,
    pub(crate) words: Option<&'a [String]>,
    pub(crate) path: Option<&'a str>,
}

impl Found<'_> {
    /// Whether it is a look by git.
    fn is_git(&self) -> bool {
        let name = self.words.and_then(<[String]>::first);
        self.finding.kind == Kind::Inspection
            && name.is_some_and(|name| name.rsplit('/').next() == Some("git"))
    }

    pub(crate) fn whole(finding: Finding) -> Self {
        Self {
            finding,
            words: None,
            path: None,
        }
    }
}

/// What the parts of a script are; at least one, if it holds a program.
pub(crate) fn find<'a>(script: &'a Script, workspace: &str) -> Vec<Found<'a>> {
    let mut found: Vec<_> = script
        .steps
        .iter()
        .flat_map(|step| match step.folder() {
            Some(folder) => vec![Found::whole(lists::going(folder))],
            None => (0..step.pipeline.len())
                .flat_map(|at| part(&step.pipeline, at, workspace))
                .collect(),
        })
        .collect();
    let writes = found
        .iter()
        .any(|part| !part.finding.effects.writes.is_empty());
    for part in found.iter_mut().filter(|part| writes && part.is_git()) {
        // What git starts by its configuration would write as well.
        part.finding.kind = Kind::Ordinary;
        part.finding.reason =
            "git runs what its configuration names, and the command writes a file".to_owned();
    }
    if script.steps.len() > 1 && !lists::is_one_look(script, &found) {
        found.push(Found::whole(several()));
    }
    found
}

fn part<'a>(pipeline: &'a [Simple], at: usize, workspace: &str) -> Vec<Found<'a>> {
    let (before, simple) = (&pipeline[..at], &pipeline[at]);
    let input = match before {
        [] => Input::Nothing,
        _ => Input::Pipe,
    };
    let program = Found {
        finding: programs::handed(before, simple, workspace)
            .unwrap_or_else(|| programs::judge(simple, input, workspace)),
        words: Some(&simple.argv),
        path: None,
    };
    let redirections = simple.redirections.iter().filter_map(redirection);
    std::iter::once(program).chain(redirections).collect()
}

/// Where one command follows another, the second is often there for somebody else's sake.
fn several() -> Finding {
    Finding {
        kind: Kind::Several,
        reason: "it is several commands, one after another".to_owned(),
        effects: Effects::default(),
    }
}

/// What a redirection is, if it touches a file.
fn redirection(redirection: &Redirection) -> Option<Found<'_>> {
    match &redirection.to {
        Target::Read { file } => file_of(file).map(|(path, place)| reading(file, path, place)),
        Target::Write { file } | Target::Append { file } => {
            file_of(file).map(|(path, place)| writing(file, path, place))
        }
        Target::Join { .. } => None,
    }
}

#[derive(Clone, Copy)]
enum Where {
    Workspace,
    Temporary,
}

fn file_of(place: &Place) -> Option<(&WorkspacePath, Where)> {
    match place {
        Place::Workspace { path } => Some((path, Where::Workspace)),
        Place::Temporary { path } => Some((path, Where::Temporary)),
        Place::Nowhere {} => None,
    }
}

fn reading<'a>(file: &Place, path: &'a WorkspacePath, place: Where) -> Found<'a> {
    let effects = Effects {
        reads: vec![file.to_string()],
        ..Effects::default()
    };
    let (kind, reason) = unusual(file, path, place).unwrap_or_else(|| {
        let reason = "it only reads, inside the workspace".to_owned();
        (Kind::Inspection, reason)
    });
    about(path, place, kind, reason, effects)
}

fn writing<'a>(file: &Place, path: &'a WorkspacePath, place: Where) -> Found<'a> {
    let effects = Effects {
        writes: vec![file.to_string()],
        ..Effects::default()
    };
    let (kind, reason) = match (write_kind(path), unusual(file, path, place)) {
        ((Kind::WriteInWorkspace, _), Some(unusual)) => unusual,
        ((kind, reason), _) => (kind, reason.to_owned()),
    };
    about(path, place, kind, reason, effects)
}

fn about(
    path: &WorkspacePath,
    place: Where,
    kind: Kind,
    reason: String,
    effects: Effects,
) -> Found<'_> {
    Found {
        finding: Finding {
            kind,
            reason,
            effects,
        },
        words: None,
        path: match place {
            Where::Workspace => Some(path.as_str()),
            Where::Temporary => None,
        },
    }
}

fn unusual(file: &Place, path: &WorkspacePath, place: Where) -> Option<(Kind, String)> {
    match place {
        Where::Temporary => Some((
            Kind::PathOutside,
            format!("{:?} is outside the workspace", file.to_string()),
        )),
        Where::Workspace => odd_path(path.as_str()),
    }
}
