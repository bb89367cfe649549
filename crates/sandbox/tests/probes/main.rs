//! Every attack on a box, tried in one and outside, by the program that `bulkhead sandbox probe` starts. When
//! it is started as root all of it runs twice: as root and as an ordinary user.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests by libtest's attribute, which these have not"
)]

#[path = "../harness/mod.rs"]
mod harness;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bulkhead_sandbox::probes::stage::Told;

type Test = (&'static str, fn(&Programs));

const TESTS: &[Test] = &[
    (
        "every_attack_is_stopped_in_the_box_and_gets_through_outside",
        every_attack_is_stopped_in_the_box_and_gets_through_outside,
    ),
    (
        "without_a_box_there_is_a_reason_and_no_finding",
        without_a_box_there_is_a_reason_and_no_finding,
    ),
    (
        "no_argument_leaves_out_a_layer_of_a_shipped_program",
        no_argument_leaves_out_a_layer_of_a_shipped_program,
    ),
];

/// The same by somebody who is not root. Only root can become somebody else.
const ORDINARY: &str = "all_of_it_as_an_ordinary_user";
const USER: u32 = 4242;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args[1..].iter().map(String::as_str).collect();
    let programs = Programs {
        probe: env!("CARGO_BIN_EXE_bulkhead-probe").into(),
        helper: env!("CARGO_BIN_EXE_bulkhead-sandbox").into(),
        user: None,
    };
    let root = rustix::process::geteuid().is_root();
    match harness::asked(&args) {
        harness::Asked::List => {
            let ordinary = root.then_some(ORDINARY);
            harness::list(&args, TESTS.iter().map(|(name, _)| *name).chain(ordinary));
        }
        harness::Asked::One(ORDINARY) => as_ordinary_user(&programs),
        harness::Asked::One(wanted) => {
            let test = TESTS.iter().find(|(name, _)| *name == wanted);
            run(&programs, test.expect("the test is on the list"));
        }
        harness::Asked::All => {
            TESTS.iter().for_each(|test| run(&programs, test));
            if root {
                as_ordinary_user(&programs);
            }
        }
    }
}

fn run(programs: &Programs, (name, test): &Test) {
    let begun = Instant::now();
    test(programs);
    let millis = begun.elapsed().as_millis();
    println!(
        "test {name} (user {:?}) ... ok ({millis} ms)",
        programs.user
    );
}

fn as_ordinary_user(programs: &Programs) {
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path());
    // Copies, since the build folder may be closed to others.
    let copy = |program: &Path| {
        let copy = folder.path().join(program.file_name().unwrap());
        std::fs::copy(program, &copy).unwrap();
        open_to_all(&copy);
        copy
    };
    let programs = Programs {
        probe: copy(&programs.probe),
        helper: copy(&programs.helper),
        user: Some(USER),
    };
    TESTS.iter().for_each(|test| run(&programs, test));
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The programs, and who runs them.
struct Programs {
    probe: PathBuf,
    helper: PathBuf,
    user: Option<u32>,
}

impl Programs {
    fn stage(&self, helper: &Path, scope: &str, more: &[&str]) -> Told {
        let mut command = Command::new(&self.probe);
        command
            .args(["stage", "start"])
            .arg(helper)
            .args(["/no/such/configuration", "native", scope])
            .args(more)
            .current_dir("/");
        if let Some(user) = self.user {
            command.gid(user).uid(user);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn every_attack_is_stopped_in_the_box_and_gets_through_outside(programs: &Programs) {
    let findings = match programs.stage(&programs.helper, "full", &[]) {
        Told::Findings(findings) => findings,
        refused @ Told::Refused { .. } => panic!("{refused:?}"),
    };
    let names: BTreeSet<_> = findings.iter().map(|it| it.probe.as_str()).collect();
    assert_eq!(names.len(), findings.len());
    assert!(names.len() >= 120, "{}", names.len());
    let wrong: Vec<_> = findings
        .iter()
        .filter(|it| !it.stopped || !it.control)
        .map(|it| {
            format!(
                "{}: stopped {}, control {}: {}",
                it.probe, it.stopped, it.control, it.detail
            )
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "as {:?}:\n{}",
        programs.user,
        wrong.join("\n")
    );
}

fn without_a_box_there_is_a_reason_and_no_finding(programs: &Programs) {
    match programs.stage(Path::new("/bin/false"), "full", &[]) {
        Told::Refused { reason, fix } => assert!(!reason.is_empty() && !fix.is_empty()),
        findings @ Told::Findings(_) => panic!("{findings:?}"),
    }
}

/// Without the user namespace there is no box, in a test build that can leave it out.
fn no_argument_leaves_out_a_layer_of_a_shipped_program(programs: &Programs) {
    let told = programs.stage(&programs.helper, "start", &["--without=user"]);
    assert_eq!(told, Told::Findings(Vec::new()));
}
