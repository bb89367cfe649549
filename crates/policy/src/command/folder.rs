//! Going to a folder of the workspace and running something there.

use protocol::call::{WORKSPACE, WorkspacePath};
use protocol::script::{Place, Script, Step, Target};

/// Sees that each folder that is gone to is one of the workspace, and writes it down as the box will
/// find it. A path that stays inside when it is read from the workspace does so from every folder
/// below it, so that what follows is judged as if nothing had been gone to.
pub(super) fn settle(script: &mut Script, workspace: &str) -> Result<(), String> {
    let mut gone = false;
    for step in &mut script.steps {
        if gone && redirects_in_workspace(step) {
            return Err("it redirects to or from a file in a folder that it goes to".to_owned());
        }
        let Some(folder) = step.folder() else {
            continue;
        };
        gone = true;
        let path = WorkspacePath::parse_below(folder, workspace)
            .map_err(|_| "it goes to a folder outside the workspace".to_owned())?;
        let there = match (folder.starts_with('/'), path.as_str()) {
            (false, path) => path.to_owned(),
            (true, ".") => WORKSPACE.to_owned(),
            (true, path) => format!("{WORKSPACE}/{path}"),
        };
        if there.starts_with('-') {
            return Err("it goes to a folder with an odd name".to_owned());
        }
        for simple in &mut step.pipeline {
            if let [_, folder] = simple.argv.as_mut_slice() {
                folder.clone_from(&there);
            }
        }
    }
    Ok(())
}

fn redirects_in_workspace(step: &Step) -> bool {
    let mut redirections = step.pipeline.iter().flat_map(|simple| &simple.redirections);
    redirections.any(|redirection| match &redirection.to {
        Target::Read { file } | Target::Write { file } | Target::Append { file } => match file {
            Place::Workspace { .. } => true,
            Place::Temporary { .. } | Place::Nowhere {} => false,
        },
        Target::Join { .. } => false,
    })
}
