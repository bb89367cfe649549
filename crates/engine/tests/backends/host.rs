//! The side outside of the box: starts `bulkhead-engine` as the program that runs tools does.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use protocol::call::Action;
use protocol::control::MemoryPolicy;
use protocol::engine::{EngineConfig, EngineReply, EngineRequest};
use protocol::frame::Link;
use protocol::ids::Digest;
use protocol::runner::{Backend, Limits, RunEnd, RunOutcome};
use protocol::workspace::{LayerFolders, LayerKind};
use serde::Deserialize;

/// What a container gets, and who asks for it.
pub(crate) const PROGRAMS: [&str; 4] = [
    "bulkhead-engine",
    "bulkhead-sandbox",
    "bulkhead-probe",
    "bulkhead-tool",
];

/// One of the programs: beside this one where this one is a copy, otherwise where it was built.
pub(crate) fn program(name: &str) -> PathBuf {
    let beside = std::env::current_exe().unwrap().with_file_name(name);
    if beside.exists() {
        return beside;
    }
    let built = Path::new(env!("CARGO_BIN_EXE_bulkhead-engine")).with_file_name(name);
    assert!(
        built.exists(),
        "{} is missing; run: cargo build --release --bins",
        built.display()
    );
    built
}

/// A backend, a workspace, and how to run something over it.
pub(crate) struct Host {
    pub(crate) backend: Backend,
    pub(crate) socket: PathBuf,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) home: Digest,
    /// The program that holds the tools.
    pub(crate) tool: PathBuf,
    pub(crate) memory: MemoryPolicy,
    layers: Cell<u32>,
}

impl Drop for Host {
    fn drop(&mut self) {
        // Overlayfs leaves a folder that nobody may enter, not even to remove it.
        for number in 0..=self.layers.get() {
            let work = self.folder.path().join(format!("layer{number}/work/work"));
            let _ = std::fs::set_permissions(work, std::fs::Permissions::from_mode(0o700));
        }
    }
}

pub(crate) type EngineLink = Link<EngineRequest, EngineReply>;

/// `bulkhead-engine`, and the link to it.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) link: EngineLink,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.link.close();
        self.child.wait().unwrap();
    }
}

impl Host {
    pub(crate) fn new(backend: Backend, socket: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["workspace", "files"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self {
            backend,
            socket: socket.to_owned(),
            home: Digest::of(folder.path().to_str().unwrap()),
            folder,
            tool: std::env::current_exe().unwrap(),
            memory: MemoryPolicy::BestEffort,
            layers: Cell::new(0),
        }
    }

    /// Where the newest layer is.
    pub(crate) fn newest_layer(&self) -> PathBuf {
        self.folder
            .path()
            .join(format!("layer{}", self.layers.get()))
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.folder.path().join("workspace")
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            wall_seconds: 60,
            ..Limits::default()
        }
    }

    pub(crate) fn config(&self) -> EngineConfig {
        EngineConfig {
            backend: self.backend,
            socket: Some(self.socket.clone()),
            home: self.home,
            sandbox_program: program("bulkhead-sandbox"),
            tool_program: self.tool.clone(),
            files: self.folder.path().join("files"),
            memory: self.memory,
        }
    }

    pub(crate) fn program(&self) -> Program {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(program("bulkhead-engine"))
            .arg(self.folder.path().join("files"))
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        Program {
            child,
            link: Link::new(ours),
        }
    }

    /// Up to where it can be told what to run.
    pub(crate) fn connected(&self) -> (Program, LayerKind) {
        let program = self.program();
        program
            .link
            .send(&EngineRequest::Connect {
                config: self.config(),
            })
            .unwrap();
        match program.link.receive().unwrap() {
            EngineReply::Connected { layer } => (program, layer),
            other => panic!("{other:?}"),
        }
    }

    /// An empty layer.
    pub(crate) fn layer(&self, kind: LayerKind) -> LayerFolders {
        self.layers.update(|number| number + 1);
        let folder = self.newest_layer();
        match kind {
            LayerKind::Overlay => {
                let (upper, work) = (folder.join("upper"), folder.join("work"));
                std::fs::create_dir_all(&upper).unwrap();
                std::fs::create_dir_all(&work).unwrap();
                LayerFolders::Overlay { upper, work }
            }
            LayerKind::Copy => {
                let copied = Command::new("cp")
                    .arg("-a")
                    .arg(self.workspace())
                    .arg(&folder)
                    .status()
                    .unwrap();
                assert!(copied.success());
                LayerFolders::Copy { folder }
            }
        }
    }

    /// Begins a run; its reply comes over the link.
    pub(crate) fn start(&self, action: Action, limits: Limits) -> Program {
        let (program, kind) = self.connected();
        let request = EngineRequest::Run {
            action,
            limits,
            workspace: self.workspace(),
            layer: self.layer(kind),
        };
        program.link.send(&request).unwrap();
        program
    }

    pub(crate) fn run(&self, action: Action, limits: Limits) -> RunOutcome {
        finished(&self.start(action, limits))
    }

    pub(crate) fn argv(&self, argv: &[&str]) -> RunOutcome {
        let argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
        self.run(Action::Argv { argv }, self.limits())
    }

    pub(crate) fn shell(&self, script: &str) -> RunOutcome {
        self.run(shell(script), self.limits())
    }

    /// What [`crate::inside`] prints inside a box.
    pub(crate) fn inside(&self, act: &[&str]) -> String {
        let argv: Vec<&str> = [crate::inside::TOOL, "inside"]
            .into_iter()
            .chain(act.iter().copied())
            .collect();
        let outcome = self.argv(&argv);
        assert_eq!(
            outcome.end,
            RunEnd::Exited { code: 0 },
            "{act:?}: {outcome:?}"
        );
        outcome.stdout.trim().to_owned()
    }

    /// The same outside.
    pub(crate) fn outside(&self, act: &[&str]) -> String {
        let exe = std::env::current_exe().unwrap();
        let command = Command::new(exe)
            .arg("inside")
            .args(act)
            .current_dir(self.workspace())
            .output();
        let output = command.unwrap();
        assert!(output.status.success(), "{act:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The states of the containers of this home.
    pub(crate) fn containers(&self) -> Vec<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Container {
            labels: std::collections::HashMap<String, String>,
            state: String,
        }
        let output = Command::new("curl")
            .args(["--silent", "--fail", "--unix-socket"])
            .arg(&self.socket)
            .arg("http://engine/containers/json?all=1")
            .output()
            .unwrap();
        let all: Vec<Container> = serde_json::from_slice(&output.stdout).unwrap();
        let home = self.home.to_string();
        all.into_iter()
            .filter(|one| home.starts_with(&one.labels["bulkhead.home"]))
            .map(|one| format!("{} of {}", one.state, one.labels["bulkhead.owner"]))
            .collect()
    }

    pub(crate) fn nothing_is_left(&self) {
        assert_eq!(self.containers(), Vec::<String>::new());
    }
}

pub(crate) fn finished(program: &Program) -> RunOutcome {
    match program.link.receive().unwrap() {
        EngineReply::Finished { outcome } => outcome,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn shell(script: &str) -> Action {
    Action::Shell {
        script: script.to_owned(),
    }
}

pub(crate) fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}
