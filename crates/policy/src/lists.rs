//! Commands one after another: when they are one look at the workspace, and when they are not.

use protocol::script::{Script, Simple};

use crate::judge::Effects;
use crate::parts::Found;
use crate::programs::{self, Finding, is_odd_path};
use crate::rules::Kind;

/// Going to a folder of the workspace, which the reader of commands has seen to.
pub(crate) fn going(folder: &str) -> Finding {
    let (kind, reason) = match is_odd_path(folder) {
        false => (
            Kind::Inspection,
            "it goes to a folder of the workspace".to_owned(),
        ),
        true => (
            Kind::OddPath,
            format!("{folder:?} is odd for a path: it looks like something for a shell"),
        ),
    };
    Finding {
        kind,
        reason,
        effects: Effects {
            reads: vec![folder.to_owned()],
            ..Effects::default()
        },
    }
}

/// Whether a list only looks into the workspace, in each of its parts. An order that is smuggled
/// behind a harmless one asks about the machine or waits, to see that it runs at all; what does
/// so is fit to run alone, but not behind something else.
pub(crate) fn is_one_look(script: &Script, found: &[Found<'_>]) -> bool {
    let mut begun = false;
    found
        .iter()
        .all(|part| part.finding.kind == Kind::Inspection)
        && script.steps.iter().all(|step| {
            let first = !begun;
            begun |= step.folder().is_none();
            step.folder().is_some() || step.pipeline.iter().all(|simple| fits(simple, first))
        })
}

fn fits(simple: &Simple, first: bool) -> bool {
    let Some((name, words)) = simple.argv.split_first() else {
        return false;
    };
    match name.as_str() {
        // Behind something else it tells where that ran.
        "pwd" => first,
        "echo" | "printf" => !words.iter().any(|word| is_odd_path(word)),
        name => programs::is_fit_for_a_list(name),
    }
}
