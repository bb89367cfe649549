//! The native box, tried from inside. All of it runs twice when it is started as root: as root and
//! as an ordinary user. What must fail inside succeeds outside, so that the box is what stops it.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests by libtest's attribute, which these have not"
)]

mod groups;
#[path = "../harness/mod.rs"]
mod harness;
mod host;
mod inside;
mod layers;
mod lifetime;
mod online;
mod script;
mod service;
mod view;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use protocol::script::SCRIPT_FLAG;

type Test = (&'static str, fn(&host::Host));

const TESTS: &[&[Test]] = &[
    view::TESTS,
    groups::TESTS,
    layers::TESTS,
    lifetime::TESTS,
    online::TESTS,
    script::TESTS,
    service::TESTS,
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[1..] {
        ["inside", ref act @ ..] => inside::main(act),
        ["outlived", helper, what] => lifetime::outlived(Path::new(helper), what),
        ["supervised", helper] => service::supervised(Path::new(helper)),
        ["suite", helper] => suite(&host::Host::new(Path::new(helper))),
        [] if args[0] == inside::TOOL => inside::tool(),
        [SCRIPT_FLAG] if args[0] == inside::TOOL => return tools::inside::main(),
        ref asked => tests(asked),
    }
    ExitCode::SUCCESS
}

/// The whole suite again, by somebody who is not root. Only root can become somebody else.
const ORDINARY: &str = "all_of_it_as_an_ordinary_user";

fn tests(args: &[&str]) {
    let helper = Path::new(env!("CARGO_BIN_EXE_bulkhead-sandbox"));
    let all = || TESTS.iter().copied().flatten();
    let root = rustix::process::geteuid().is_root();
    match harness::asked(args) {
        harness::Asked::List => {
            let ordinary = root.then_some(ORDINARY);
            harness::list(args, all().map(|(name, _)| *name).chain(ordinary));
        }
        harness::Asked::One(ORDINARY) => as_ordinary_user(helper),
        harness::Asked::One(wanted) => {
            let test = all().find(|(name, _)| *name == wanted);
            run(
                &host::Host::new(helper),
                test.expect("the test is on the list"),
            );
        }
        harness::Asked::All => {
            suite(&host::Host::new(helper));
            if root {
                as_ordinary_user(helper);
            }
        }
    }
}

fn suite(host: &host::Host) {
    TESTS
        .iter()
        .copied()
        .flatten()
        .for_each(|test| run(host, test));
}

fn run(host: &host::Host, (name, test): &Test) {
    let begun = Instant::now();
    test(host);
    println!(
        "test {name} (user {}) ... ok ({} ms)",
        rustix::process::geteuid(),
        begun.elapsed().as_millis()
    );
}

fn as_ordinary_user(helper: &Path) {
    const USER: u32 = 4246;
    let folder = tempfile::tempdir().unwrap();
    host::open_to_all(folder.path());
    // Copies, since the build folder may be closed to others.
    let (exe, copy) = (
        folder.path().join("boxes"),
        folder.path().join("bulkhead-sandbox"),
    );
    std::fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    std::fs::copy(helper, &copy).unwrap();
    for path in [&exe, &copy] {
        host::open_to_all(path);
    }
    let status = Command::new(&exe)
        .arg("suite")
        .arg(&copy)
        .env(host::MEMORY_VARIABLE, "best effort")
        .current_dir("/")
        .gid(USER)
        .uid(USER)
        .status()
        .unwrap();
    assert!(status.success(), "as an ordinary user: {status}");
}
