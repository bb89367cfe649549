//! The boxes that are attacked.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use protocol::call::Action;
use protocol::control::{BoxGroups, MemoryPolicy};
use protocol::engine::EngineConfig;
use protocol::ids::Digest;
use protocol::runner::{Backend, Limits, RunOutcome};

use crate::boxes::{self, Config};
use crate::engine::Engines;
use crate::layers::Discarding;
use crate::native::mounts::TOOL;
use crate::run::{Job, Refused, Then};

/// How a box is to be had.
pub(super) struct Boxes {
    /// The program `bulkhead-sandbox`.
    helper: PathBuf,
    /// Which kind.
    backend: Backend,
    /// Where the container engine listens, if not in the usual places.
    socket: Option<PathBuf>,
}

impl Boxes {
    /// By the name of the backend, and after a colon where its engine listens, if not in the usual places.
    pub(super) fn named(helper: &str, name: &str) -> io::Result<Self> {
        let (name, socket) = match name.split_once(':') {
            Some((name, socket)) => (name, Some(socket.into())),
            None => (name, None),
        };
        let all = [
            Backend::Native,
            Backend::Docker,
            Backend::Podman,
            Backend::Gvisor,
        ];
        let backend = all.into_iter().find(|backend| backend.name() == name);
        Ok(Self {
            helper: helper.into(),
            backend: backend.ok_or_else(|| io::Error::other(format!("no backend {name:?}")))?,
            socket,
        })
    }

    /// The program `bulkhead-sandbox`.
    pub(super) fn helper(&self) -> &Path {
        &self.helper
    }

    /// The form that [`Self::named`] reads.
    pub(super) fn name(&self) -> String {
        match &self.socket {
            Some(socket) => format!("{}:{}", self.backend.name(), socket.display()),
            None => self.backend.name().to_owned(),
        }
    }

    /// Runs this program in a fresh box with these arguments.
    pub(super) fn run(
        &self,
        workspace: &Path,
        arguments: &[String],
        limits: Limits,
    ) -> Result<RunOutcome, Refused> {
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
            groups: BoxGroups::Own,
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
        match self.backend {
            Backend::Native => boxes::Boxes::start(config, Arc::new(layers))?.run(job),
            Backend::Docker | Backend::Podman | Backend::Gvisor => {
                let engines = Engines {
                    program: self.helper.with_file_name("bulkhead-engine"),
                    config: EngineConfig {
                        backend: self.backend,
                        socket: self.socket.clone(),
                        home: Digest::of("bulkhead-probe"),
                        sandbox_program: config.program,
                        tool_program: config.tool_program,
                        files: folder.0.join("engine"),
                        memory: config.memory,
                    },
                    workspace: config.workspace,
                    layers: Arc::new(layers),
                };
                engines.run_killable(job, drop)
            }
        }
    }
}

/// A folder for layers, removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let name = format!("bulkhead-probe-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                // Left by a process that had this number before.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans up temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
