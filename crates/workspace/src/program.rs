//! `bulkhead-workspace --workspace DIR --history DIR`: the only writer of the workspace.
//!
//! Security: runs as the user. Reads and moves whatever boxes leave in their layers, which is
//! all hostile: names, structure and content; it opens only regular files and folders of it, one name at a
//! time, never through a link, and holds what it reads in bounds. Reads frames of the sandbox and
//! the gateway, which are typed and bounded. Holds no secret. Has no network and no files but
//! the two folders, and starts nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use protocol::control::{Control, ProgramEnd, Report, WorkspaceConfig};
use protocol::frame::LinkError;
use protocol::rules::RulesNews;
use sandbox::{Program, confine, files_of};

use crate::home::make_folder;
use crate::serve::Shared;
use crate::steps::Uninterrupted;
use crate::store::Store;

const USAGE: &str = "usage: bulkhead-workspace --workspace DIR --history DIR\nIt is started by bulkhead-supervisor, with its control link as standard input.";

/// The program. Exit codes: 0 stopped, 1 could not run, 2 wrong usage.
pub fn run() -> ExitCode {
    let Some(folders) = parse(std::env::args_os().skip(1).collect()) else {
        protocol::log!("{USAGE}");
        return ExitCode::from(2);
    };
    let control = match ProgramEnd::<WorkspaceConfig>::from_stdin() {
        Ok(control) => control,
        Err(error) => return give_up(&format!("standard input is not a control link: {error}")),
    };
    match serve(&control, &folders) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // If the supervisor is gone there is nobody to tell.
            let _ = control.send(&Report::Failed {
                reason: reason.clone(),
            });
            give_up(&reason)
        }
    }
}

fn give_up(reason: &str) -> ExitCode {
    protocol::log!("bulkhead-workspace: {reason}");
    ExitCode::FAILURE
}

#[derive(Debug, PartialEq, Eq)]
struct Folders {
    workspace: PathBuf,
    history: PathBuf,
}

fn parse(args: Vec<OsString>) -> Option<Folders> {
    match <[_; 4]>::try_from(args) {
        Ok([first, workspace, second, history])
            if first == "--workspace"
                && second == "--history"
                && !workspace.is_empty()
                && !history.is_empty() =>
        {
            Some(Folders {
                workspace: workspace.into(),
                history: history.into(),
            })
        }
        Ok(_) | Err(_) => None,
    }
}

fn serve(control: &ProgramEnd<WorkspaceConfig>, folders: &Folders) -> Result<(), String> {
    let named = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    make_folder(&folders.history).map_err(|error| named(&folders.history, error))?;
    let real = |path: &Path| std::fs::canonicalize(path).map_err(|error| named(path, error));
    let (workspace, history) = (real(&folders.workspace)?, real(&folders.history)?);
    let files = files_of(Program::Workspace, std::env::args_os().skip(1));
    let files = files.map_err(|error| error.to_string())?;
    confine(Program::Workspace, &files).map_err(|error| error.to_string())?;
    let config = match control.start() {
        Ok(config) => config,
        Err(LinkError::Closed) => return Ok(()),
        Err(error) => return Err(format!("the supervisor did not say start: {error}")),
    };
    let mut store = Store::open(&workspace, &history, config.keep, Box::new(Uninterrupted))
        .map_err(|stop| stop.to_string())?;
    store.set_read_only(&config.read_only);
    let shared = Shared::new(store);
    let ended = match control.send(&Report::Ready) {
        Ok(()) => take_links(control, &shared),
        Err(error) => Err(error),
    };
    shared.stop();
    match ended {
        // Stopped, or the supervisor is gone: what was under way is whole either way.
        Ok(()) | Err(LinkError::Closed) => Ok(()),
        Err(error) => Err(format!("the control link broke: {error}")),
    }
}

fn take_links(control: &ProgramEnd<WorkspaceConfig>, shared: &Shared) -> Result<(), LinkError> {
    let unexpected = |got| LinkError::OutOfOrder {
        expected: "link",
        got,
    };
    loop {
        match control.receive()? {
            (Control::Link { peer }, Some(fd)) => {
                if let Err(error) = shared.serve(peer, fd.into()) {
                    protocol::log!("bulkhead-workspace: {error}");
                }
            }
            (Control::Link { .. }, None) => return Err(unexpected("a link without its socket")),
            (Control::Rules { news }, _) => match news {
                RulesNews::Changed { rules } => shared.set_read_only(&rules.read_only),
                RulesNews::Broken { .. } | RulesNews::AsBefore => {}
            },
            (Control::Stop, _) => return Ok(()),
            (
                other @ (Control::Start { .. }
                | Control::Listener
                | Control::NoAgent { .. }
                | Control::Frozen { .. }
                | Control::Resume { .. }),
                _,
            ) => {
                return Err(unexpected(other.name()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_folders_are_the_only_arguments() {
        let parse = |args: &[&str]| super::parse(args.iter().map(Into::into).collect());
        let both = parse(&["--workspace", "/w", "--history", "/h"]).unwrap();
        assert_eq!(both.workspace, PathBuf::from("/w"));
        assert_eq!(both.history, PathBuf::from("/h"));
        for bad in [
            &[][..],
            &["--workspace", "/w"],
            &["--workspace", "", "--history", "/h"],
            &["--workspace", "/w", "--history", ""],
            &["--history", "/h", "--workspace", "/w"],
            &["--workspace", "/w", "--history", "/h", "x"],
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
