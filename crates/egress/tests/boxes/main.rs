//! Boxes that may reach something, with real programs in them: curl, git, pip and npm ask for what their rules
//! allow and for what they do not, of servers in a network of the test's own. `bulkhead-egress` is the real one,
//! the boxes are real, and the test is the supervisor, the ledger, the runner and the servers.
//!
//! Needs unshare(1), ip(8), and those programs; `./test` installs them.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests by libtest's attribute, which these have not"
)]

#[path = "../../../sandbox/tests/harness/mod.rs"]
mod harness;

mod attacks;
mod clients;
mod inside;
mod leaks;
mod run;
mod servers;
mod world;

use std::process::ExitCode;

use world::World;

type Test = (&'static str, fn(&World));

const TESTS: &[&[Test]] = &[clients::TESTS, attacks::TESTS, leaks::TESTS];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[1..] {
        // The builder of boxes is this program too.
        ["build", ..] => return sandbox::native::main(),
        ["inside", ref act @ ..] => inside::main(act),
        ["world", wanted] => find(wanted).1(&World::new()),
        ref asked => match harness::asked(asked) {
            harness::Asked::List => harness::list(asked, all().map(|(name, _)| *name)),
            harness::Asked::One(wanted) => world::enter(find(wanted).0),
            harness::Asked::All => all().for_each(|(name, _)| world::enter(name)),
        },
    }
    ExitCode::SUCCESS
}

fn all() -> impl Iterator<Item = &'static Test> {
    TESTS.iter().copied().flatten()
}

fn find(wanted: &str) -> &'static Test {
    all()
        .find(|(name, _)| *name == wanted)
        .expect("the test is on the list")
}
