//! The side outside of the box.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bulkhead_sandbox::boxes::{Boxes, Config};
use bulkhead_sandbox::layers::{Layer, Layers};
use bulkhead_sandbox::run::{Job, Killer, Refused, Then};
use bulkhead_sandbox::way::Outside;
use protocol::call::Action;
use protocol::control::{BoxGroups, MemoryPolicy};
use protocol::ids::CallRef;
use protocol::runner::{Changes, EntryId, Fate, Limits, RunEnd, RunOutcome};
use protocol::workspace::{Base, GitFolders, LayerFolders, LayerId, LayerKind};

/// A workspace, and how to run something over it. Boxes die with the thread that made it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) helper: PathBuf,
    pub(crate) workspace: tempfile::TempDir,
    pub(crate) layers: Arc<Folders>,
    boxes: Boxes,
}

impl Host {
    pub(crate) fn new(helper: &Path) -> Self {
        let workspace = tempfile::tempdir().unwrap();
        Self::over(helper, workspace, MemoryPolicy::BestEffort).unwrap()
    }

    pub(crate) fn over(
        helper: &Path,
        workspace: tempfile::TempDir,
        memory: MemoryPolicy,
    ) -> Result<Self, Refused> {
        let layers = Arc::new(Folders::new(workspace.path()));
        let boxes = Self::boxes(helper, workspace.path(), memory, layers.clone())?;
        Ok(Self {
            helper: helper.to_owned(),
            workspace,
            layers,
            boxes,
        })
    }

    pub(crate) fn boxes(
        helper: &Path,
        workspace: &Path,
        memory: MemoryPolicy,
        layers: Arc<Folders>,
    ) -> Result<Boxes, Refused> {
        let config = Config {
            program: helper.to_owned(),
            tool_program: std::env::current_exe().unwrap(),
            workspace: workspace.to_owned(),
            memory,
            groups: BoxGroups::Own,
        };
        Boxes::start(config, layers)
    }

    pub(crate) fn job(&self, action: Action) -> Job {
        Job {
            action,
            limits: Limits {
                wall_seconds: 60,
                ..Limits::default()
            },
            then: Then::Keep {
                origin: None,
                git: protocol::workspace::GitFolders::Open,
            },
        }
    }

    pub(crate) fn run(&self, job: Job) -> Result<RunOutcome, Refused> {
        self.boxes.run(job)
    }

    pub(crate) fn run_killable(
        &self,
        job: Job,
        begun: impl FnOnce(Killer),
    ) -> Result<RunOutcome, Refused> {
        self.boxes.run_killable(job, begun)
    }

    pub(crate) fn run_online(
        &self,
        action: Action,
        outside: &Outside,
    ) -> Result<RunOutcome, Refused> {
        self.boxes.run_online(self.job(action), outside, drop)
    }

    pub(crate) fn argv(&self, argv: &[&str]) -> RunOutcome {
        self.run(self.job(argv_action(argv))).unwrap()
    }

    pub(crate) fn shell(&self, script: &str) -> RunOutcome {
        self.run(self.job(shell(script))).unwrap()
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
        let output = std::process::Command::new(exe)
            .arg("inside")
            .args(act)
            .current_dir(self.workspace.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{act:?}: {output:?}");
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

pub(crate) fn argv_action(argv: &[&str]) -> Action {
    Action::Argv {
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
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

/// What must hold the memory of boxes here. The tests fail where it is something else, so that a cgroup
/// that is not found is not taken for one that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// A cgroup of either version.
    SomeCgroup,
    CgroupV1,
    CgroupV2,
    BestEffort,
}

/// Says it: `cgroup v1`, `cgroup v2` or `best effort`.
pub(crate) const MEMORY_VARIABLE: &str = "BULKHEAD_TEST_MEMORY";

impl Memory {
    /// Unless it is said, root must have cgroups, and nobody else.
    pub(crate) fn of_this_machine() -> Self {
        match std::env::var(MEMORY_VARIABLE).as_deref() {
            Ok("cgroup v1") => Self::CgroupV1,
            Ok("cgroup v2") => Self::CgroupV2,
            Ok("best effort") => Self::BestEffort,
            Ok(other) => panic!("{MEMORY_VARIABLE} is {other:?}"),
            Err(_) if rustix::process::geteuid().is_root() => Self::SomeCgroup,
            Err(_) => Self::BestEffort,
        }
    }

    pub(crate) fn is_held(self) -> bool {
        self != Self::BestEffort
    }

    /// Whether all of a box ends with the first process for which there is no memory.
    pub(crate) fn ends_as_a_whole(self) -> bool {
        self == Self::CgroupV2
    }

    /// Whether a receipt may call it so.
    pub(crate) fn is_called(self, name: &str) -> bool {
        match self {
            Self::SomeCgroup => ["cgroup v1", "cgroup v2"].contains(&name),
            Self::CgroupV1 => name == "cgroup v1",
            Self::CgroupV2 => name == "cgroup v2",
            Self::BestEffort => name == "best effort",
        }
    }
}

/// Layers as plain folders. What is kept is copied over, without a thought for what was removed: the
/// program that does it well has tests of its own.
#[derive(Debug)]
pub(crate) struct Folders {
    folder: tempfile::TempDir,
    workspace: PathBuf,
    count: AtomicU64,
    decided: Mutex<Vec<(LayerId, &'static str)>>,
}

impl Folders {
    pub(crate) fn new(workspace: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sequence"), [0; 8]).unwrap();
        Self {
            folder,
            workspace: workspace.to_owned(),
            count: AtomicU64::new(0),
            decided: Mutex::default(),
        }
    }

    /// Where they are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How many layers there were.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// What became of the layers.
    pub(crate) fn decided(&self) -> Vec<(LayerId, &'static str)> {
        self.decided.lock().unwrap().clone()
    }

    /// Where the box that was made last writes a file of this name.
    pub(crate) fn newest(&self, name: &str) -> PathBuf {
        self.of(LayerId(self.count.load(Ordering::SeqCst)), "upper")
            .join(name)
    }

    /// A file of this name that some box wrote.
    pub(crate) fn any(&self, name: &str) -> Option<PathBuf> {
        let newest = self.count.load(Ordering::SeqCst);
        let all = (1..=newest).map(|number| self.of(LayerId(number), "upper").join(name));
        all.into_iter().find(|path| path.exists())
    }

    fn of(&self, LayerId(number): LayerId, part: &str) -> PathBuf {
        self.folder.path().join(number.to_string()).join(part)
    }

    fn decide(&self, layer: LayerId, what: &'static str) {
        self.decided.lock().unwrap().push((layer, what));
    }
}

impl Layers for Folders {
    fn begin(&self, kind: LayerKind) -> Result<Layer, Refused> {
        let id = LayerId(self.count.fetch_add(1, Ordering::SeqCst) + 1);
        for part in ["upper", "work", "copy"] {
            std::fs::create_dir_all(self.of(id, part)).unwrap();
        }
        let folders = match kind {
            LayerKind::Overlay => LayerFolders::Overlay {
                upper: self.of(id, "upper"),
                work: self.of(id, "work"),
            },
            LayerKind::Copy => LayerFolders::Copy {
                folder: self.of(id, "copy"),
            },
        };
        Ok(Layer {
            id,
            folders,
            sequence: self.folder.path().join("sequence"),
        })
    }

    fn keep(
        &self,
        layer: LayerId,
        _: Base,
        _: Option<CallRef>,
        _: GitFolders,
    ) -> Result<Changes, Refused> {
        let copied = std::process::Command::new("cp")
            .args(["-a", "--no-preserve=xattr", "."])
            .arg(&self.workspace)
            .current_dir(self.of(layer, "upper"))
            .status()
            .unwrap();
        assert!(copied.success());
        self.decide(layer, "kept");
        Ok(Changes {
            fate: Fate::Kept {
                entry: EntryId(layer.0),
            },
            ..Changes::default()
        })
    }

    fn discard(&self, layer: LayerId) -> Result<Changes, Refused> {
        self.decide(layer, "discarded");
        Ok(Changes {
            fate: Fate::Discarded,
            ..Changes::default()
        })
    }

    fn forget(&self, layer: LayerId) {
        self.decide(layer, "forgotten");
    }
}
