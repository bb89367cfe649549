//! What the box needs of this machine, and whether a box can really be had.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::call::Action;
use protocol::control::{BoxGroups, MemoryPolicy};
use protocol::runner::{Limits, RunEnd};
use sandbox::boxes::{Boxes, Config};
use sandbox::layers::Discarding;
use sandbox::run::{Job, Then};

use super::{Check, Status};
use crate::folder::Temporary;
use crate::programs;

/// The layers one by one, then a trial of all of them together.
pub(super) fn all() -> Vec<Check> {
    let trial = trial();
    let mut all: Vec<Check> = sandbox::check()
        .into_iter()
        .map(|layer| {
            let (status, detail) = match (layer.status, trial.status) {
                (sandbox::Status::Ok, _) => (Status::Ok, layer.detail),
                (sandbox::Status::Warn, _) => (Status::Warn, layer.detail),
                // A setting may be meant for others than the program that makes boxes.
                (sandbox::Status::Fail, Status::Ok) => (
                    Status::Ok,
                    format!("{}; a box could be made all the same", layer.detail),
                ),
                (sandbox::Status::Fail, Status::Warn | Status::Fail) => {
                    (Status::Fail, layer.detail)
                }
            };
            Check::new(layer.name, status, detail, layer.fix)
        })
        .collect();
    all.push(trial);
    all
}

/// Runs `true` in a box over an empty folder.
fn trial() -> Check {
    let parts = || -> Result<(PathBuf, PathBuf), String> {
        let path = |name| programs::path(name).map_err(|fault| fault.to_string());
        Ok((path("bulkhead-sandbox")?, path("bulkhead-tool")?))
    };
    let (helper, tool_program) = match parts() {
        Ok(parts) => parts,
        Err(reason) => return Check::fail("box", reason, "see `programs`"),
    };
    let empty = match Temporary::create() {
        Ok(folder) => folder,
        Err(error) => return Check::fail("box", no_folder(&error), "make room, or set TMPDIR"),
    };
    // The layers are beside the workspace, since a layer cannot be within what it lies over.
    let (workspace, history) = (empty.path().join("workspace"), empty.path().join("layers"));
    let made = std::fs::create_dir(&workspace).and_then(|()| std::fs::create_dir(&history));
    let layers = match made.and_then(|()| Discarding::within(&history)) {
        Ok(layers) => Arc::new(layers),
        Err(error) => return Check::fail("box", no_folder(&error), "make room, or set TMPDIR"),
    };
    let config = Config {
        program: helper,
        tool_program,
        workspace,
        memory: MemoryPolicy::BestEffort,
        groups: BoxGroups::Own,
    };
    let job = Job {
        action: Action::Argv {
            argv: vec!["true".to_owned()],
        },
        limits: Limits::default(),
        then: Then::Discard,
    };
    match Boxes::start(config, layers).and_then(|boxes| boxes.run(job)) {
        Ok(outcome) if outcome.end == (RunEnd::Exited { code: 0 }) => Check::ok(
            "box",
            format!("a command ran in a fresh box in {} ms", outcome.duration_ms),
        ),
        Ok(outcome) => Check::fail(
            "box",
            format!(
                "`true` did not end well in a box: {:?} {}",
                outcome.end,
                outcome.stderr.trim()
            ),
            "look at the checks above",
        ),
        Err(refused) => Check::fail("box", refused.reason, refused.fix),
    }
}

fn no_folder(error: &io::Error) -> String {
    format!("no temporary folder can be made: {error}")
}
