//! What the box needs of this machine, and whether a box can really be had.

use std::io;
use std::path::PathBuf;

use protocol::call::Action;
use protocol::runner::{Limits, RunEnd};
use protocol::workspace::LayerFolders;
use sandbox::run::{RunSpec, run_once};

use super::{Check, Status};
use crate::folder::Temporary;
use crate::programs;

/// The layers one by one, then a trial of all of them together.
pub(super) fn all() -> Vec<Check> {
    let layers = sandbox::check().into_iter().map(|layer| {
        let status = match layer.status {
            sandbox::Status::Ok => Status::Ok,
            sandbox::Status::Warn => Status::Warn,
            sandbox::Status::Fail => Status::Fail,
        };
        Check::new(layer.name, status, layer.detail, layer.fix)
    });
    layers.chain([trial()]).collect()
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
    let spec = RunSpec {
        action: Action::Argv {
            argv: vec!["true".to_owned()],
        },
        limits: Limits::default(),
        workspace: empty.path().to_owned(),
        layer: LayerFolders::Copy {
            folder: empty.path().to_owned(),
        },
        tool_program,
    };
    match run_once(spec, &helper) {
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
