//! The boxes that are attacked.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use protocol::call::Action;
use protocol::control::MemoryPolicy;
use protocol::runner::{Backend, Limits, RunOutcome};

use crate::boxes::{self, Config};
use crate::layers::Discarding;
use crate::native::mounts::TOOL;
use crate::run::{Job, Refused, Then};

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
        let config = Config {
            program: self.helper.clone(),
            tool_program: own,
            workspace: workspace.to_owned(),
            memory: MemoryPolicy::BestEffort,
        };
        let job = Job {
            action: Action::Argv { argv },
            limits,
            then: Then::Discard,
        };
        let folder = Folder::make().map_err(|error| Refused {
            reason: format!("no folder for layers can be made: {error}"),
            fix: "make room, or set TMPDIR".to_owned(),
        })?;
        let layers = Discarding::within(&folder.0).map_err(|error| Refused {
            reason: format!("no layer can be made: {error}"),
            fix: "make room, or set TMPDIR".to_owned(),
        })?;
        boxes::Boxes::start(config, Arc::new(layers))?.run(job)
    }
}

/// A folder for layers, removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("bulkhead-probe-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans up temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
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
