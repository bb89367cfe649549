//! The boxes that are attacked.

use std::io;
use std::path::{Path, PathBuf};

use protocol::call::Action;
use protocol::runner::{Backend, Limits, RunOutcome};

use crate::native::mounts::TOOL;
use crate::run::{Refused, RunSpec, run_once};

/// How a box is to be had.
pub(super) struct Boxes {
    /// The program `bulkhead-sandbox`.
    pub(super) helper: PathBuf,
    /// Which kind.
    pub(super) backend: Backend,
}

impl Boxes {
    /// Runs this program in a fresh box with these arguments.
    pub(super) fn run(
        &self,
        workspace: &Path,
        arguments: &[String],
        limits: Limits,
    ) -> Result<RunOutcome, Refused> {
        match self.backend {
            Backend::Native => {}
            Backend::Docker | Backend::Podman | Backend::Gvisor => {
                return Err(Refused {
                    reason: format!("there is no {} box here", self.backend.name()),
                    fix: "attack the native one: `bulkhead sandbox probe`".to_owned(),
                });
            }
        }
        let own = std::env::current_exe().map_err(|error| Refused {
            reason: format!("cannot find this program: {error}"),
            fix: "install it into a folder that can be read".to_owned(),
        })?;
        let argv = std::iter::once(TOOL.to_owned())
            .chain(arguments.iter().cloned())
            .collect();
        let spec = RunSpec {
            action: Action::Argv { argv },
            limits,
            workspace: workspace.to_owned(),
            tool_program: own,
        };
        run_once(spec, &self.helper)
    }
}

/// The backend of this name.
pub(super) fn backend_named(name: &str) -> io::Result<Backend> {
    [
        Backend::Native,
        Backend::Docker,
        Backend::Podman,
        Backend::Gvisor,
    ]
    .into_iter()
    .find(|backend| backend.name() == name)
    .ok_or_else(|| io::Error::other(format!("no backend {name:?}")))
}
