//! Boxes of each backend, tried from inside: real engines, started by `tools/test-engines`, the same
//! checks for each. What must fail inside succeeds outside, so that the box is what stops it.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests by libtest's attribute, which these have not"
)]

#[path = "../../../sandbox/tests/harness/mod.rs"]
mod harness;

mod engines;
mod faults;
mod host;
mod inside;
mod lifetime;
mod probes;
mod proxy;
mod view;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use engines::{Engine, ORDINARY_USER};
use host::Host;
use protocol::runner::Backend;

type Check = (&'static str, fn(&Host));

/// What holds for every backend.
const CHECKS: &[&[Check]] = &[view::CHECKS, lifetime::CHECKS, probes::CHECKS];

/// A backend's name, and how it is tried.
type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("docker_holds_a_box", docker_holds_a_box),
    ("podman_holds_a_box", podman_holds_a_box),
    ("rootless_podman_holds_a_box", rootless_podman_holds_a_box),
    ("gvisor_holds_a_box", gvisor_holds_a_box),
    (
        "what_an_engine_does_not_do_is_refused",
        what_an_engine_does_not_do_is_refused,
    ),
];

fn docker_holds_a_box() {
    let engine = Engine::docker();
    suite(&Host::new(Backend::Docker, engine.socket()));
    engine.as_ordinary_user(Backend::Docker);
}

fn podman_holds_a_box() {
    suite(&Host::new(Backend::Podman, Engine::podman().socket()));
}

fn rootless_podman_holds_a_box() {
    Engine::rootless_podman().as_ordinary_user(Backend::Podman);
}

fn gvisor_holds_a_box() {
    let engine = Engine::docker();
    suite(&Host::new(Backend::Gvisor, engine.socket()));
    engine.as_ordinary_user(Backend::Gvisor);
}

fn what_an_engine_does_not_do_is_refused() {
    faults::all(&Engine::docker(), &Engine::podman());
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[1..] {
        ["inside", ref act @ ..] => inside::main(act),
        ["suite", backend, socket] => {
            let backend = match backend {
                "docker" => Backend::Docker,
                "podman" => Backend::Podman,
                "gvisor" => Backend::Gvisor,
                other => panic!("{other}"),
            };
            suite(&Host::new(backend, Path::new(socket)));
        }
        [] if args[0] == inside::TOOL => inside::tool(),
        ref asked => tests(asked),
    }
}

fn tests(args: &[&str]) {
    match harness::asked(args) {
        harness::Asked::List => harness::list(args, TESTS.iter().map(|(name, _)| *name)),
        harness::Asked::One(wanted) => {
            let found = TESTS.iter().find(|(name, _)| *name == wanted);
            found.expect("the test is on the list").1();
        }
        harness::Asked::All => TESTS.iter().for_each(|(_, test)| test()),
    }
}

/// Each check, and how long a box takes.
fn suite(host: &Host) {
    let (backend, user) = (host.backend.name(), rustix::process::geteuid());
    for (name, check) in CHECKS.iter().copied().flatten() {
        let begun = Instant::now();
        check(host);
        println!(
            "test {backend} (user {user}) {name} ... ok ({} ms)",
            begun.elapsed().as_millis()
        );
    }
    host.nothing_is_left();
    let mut times: Vec<_> = (0..10)
        .map(|_| {
            let begun = Instant::now();
            host.shell("true");
            begun.elapsed().as_millis()
        })
        .collect();
    times.sort_unstable();
    println!(
        "{backend} (user {user}): a box takes {} ms (median of 10), {} ms at most",
        times[5], times[9]
    );
}

impl Engine {
    /// The suite again, by somebody who is not root.
    fn as_ordinary_user(&self, backend: Backend) {
        let folder = tempfile::tempdir().unwrap();
        host::open_to_all(folder.path());
        // Copies, since the build folder may be closed to others.
        let copy = |from: &Path| {
            let to = folder.path().join(from.file_name().unwrap());
            std::fs::copy(from, &to).unwrap();
            to
        };
        let exe = copy(&std::env::current_exe().unwrap());
        for name in host::PROGRAMS {
            copy(&host::program(name));
        }
        let status = Command::new(exe)
            .args(["suite", backend.name()])
            .arg(self.socket())
            .current_dir("/")
            .gid(ORDINARY_USER)
            .uid(ORDINARY_USER)
            .status()
            .unwrap();
        assert!(
            status.success(),
            "{backend:?} as an ordinary user: {status}"
        );
    }
}
