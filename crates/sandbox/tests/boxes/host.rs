//! The side outside of the box.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bulkhead_sandbox::run::{Refused, RunSpec, run_once};
use protocol::call::Action;
use protocol::runner::{Limits, RunEnd, RunOutcome};
use protocol::workspace::LayerFolders;

/// A workspace, and how to run something over it.
pub(crate) struct Host {
    pub(crate) helper: PathBuf,
    pub(crate) workspace: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new(helper: &Path) -> Self {
        Self {
            helper: helper.to_owned(),
            workspace: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn spec(&self, action: Action) -> RunSpec {
        RunSpec {
            action,
            limits: Limits {
                wall_seconds: 60,
                ..Limits::default()
            },
            workspace: self.workspace.path().to_owned(),
            layer: LayerFolders::Copy {
                folder: self.workspace.path().to_owned(),
            },
            tool_program: std::env::current_exe().unwrap(),
        }
    }

    pub(crate) fn run(&self, spec: RunSpec) -> Result<RunOutcome, Refused> {
        run_once(spec, &self.helper)
    }

    pub(crate) fn argv(&self, argv: &[&str]) -> RunOutcome {
        self.run(self.spec(argv_action(argv))).unwrap()
    }

    pub(crate) fn shell(&self, script: &str) -> RunOutcome {
        self.run(self.spec(Action::Shell {
            script: script.to_owned(),
        }))
        .unwrap()
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
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

pub(crate) fn argv_action(argv: &[&str]) -> Action {
    Action::Argv {
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
    }
}

pub(crate) fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}
