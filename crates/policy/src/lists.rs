//! Commands one after another: when they are one look at the workspace, and when they are not.

use protocol::script::{Script, Simple};

use crate::judge::Effects;
use crate::parts::Found;
use crate::programs::{self, Finding, is_odd_path, odd_path};
use crate::rules::Kind;

/// Going to a folder of the workspace, which the reader of commands has seen to.
pub(crate) fn going(folder: &str) -> Finding {
    let (kind, reason) = odd_path(folder).unwrap_or_else(|| {
        let reason = "it goes to a folder of the workspace".to_owned();
        (Kind::Inspection, reason)
    });
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
            let fits_here = |simple| fits(simple) || first && is_pwd(simple);
            step.folder().is_some() || step.pipeline.iter().all(fits_here)
        })
}

/// Behind something else it tells where that ran.
fn is_pwd(simple: &Simple) -> bool {
    simple.argv.first().is_some_and(|name| name == "pwd")
}

fn fits(simple: &Simple) -> bool {
    let Some((name, words)) = simple.argv.split_first() else {
        return false;
    };
    match name.as_str() {
        "pwd" => false,
        "echo" | "printf" => !words.iter().any(|word| is_odd_path(word)),
        name => programs::is_fit_for_a_list(name),
    }
}
