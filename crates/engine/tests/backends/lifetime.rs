//! How boxes end, whoever else is gone.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use protocol::engine::EngineRequest;
use protocol::runner::{Limits, RunEnd};

use crate::Check;
use crate::host::{Host, finished, shell};

pub(crate) const CHECKS: &[Check] = &[
    (
        "the_time_limit_ends_daemons_too",
        the_time_limit_ends_daemons_too,
    ),
    (
        "what_a_command_leaves_behind_ends_with_it",
        what_a_command_leaves_behind_ends_with_it,
    ),
    ("a_run_can_be_killed", a_run_can_be_killed),
    (
        "a_closed_link_ends_the_container_and_removes_it",
        a_closed_link_ends_the_container_and_removes_it,
    ),
    (
        "what_a_killed_engine_program_left_ends_and_is_removed",
        what_a_killed_engine_program_left_ends_and_is_removed,
    ),
    ("silence_ends_the_container", silence_ends_the_container),
];

/// Daemons that left their session and parent, ignore signals, and each write a line every 20 ms.
const DAEMONS: &str = "for i in 1 2 3 4; do \
    (setsid sh -c 'trap \"\" TERM INT HUP; while :; do echo x >> /workspace/beat; sleep 0.02; done' > /dev/null 2>&1 &) & \
    done; wait; ";

/// The file that the daemons write to, in the layer.
fn beat(host: &Host) -> PathBuf {
    let layer = host.newest_layer();
    let upper = layer.join("upper");
    if upper.exists() { upper } else { layer }.join("beat")
}

fn beats(host: &Host) -> u64 {
    std::fs::metadata(beat(host)).map_or(0, |data| data.len())
}

/// Waits until the daemons write.
fn beats_that_began(host: &Host) {
    let begun = Instant::now();
    while beats(host) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing runs");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asserts that they did write, and do so no more.
fn beats_that_stopped(host: &Host) {
    let before = beats(host);
    assert_ne!(before, 0);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(beats(host), before, "something of the box is alive");
}

fn the_time_limit_ends_daemons_too(host: &Host) {
    let limits = Limits {
        wall_seconds: 2,
        ..host.limits()
    };
    let begun = Instant::now();
    let outcome = host.run(shell(&format!("echo begun; {DAEMONS} sleep 100")), limits);
    assert!(
        begun.elapsed() < Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        (outcome.end, outcome.stdout.as_str()),
        (RunEnd::TimedOut, "begun\n"),
        "{outcome:?}"
    );
    beats_that_stopped(host);
}

fn what_a_command_leaves_behind_ends_with_it(host: &Host) {
    let begun = Instant::now();
    let outcome = host.shell(&format!("{DAEMONS} sleep 0.3; sleep 100 & exit 7"));
    assert!(
        begun.elapsed() < Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(outcome.end, RunEnd::Exited { code: 7 }, "{outcome:?}");
    beats_that_stopped(host);
}

fn a_run_can_be_killed(host: &Host) {
    let program = host.start(
        shell(&format!("echo begun; {DAEMONS} sleep 100")),
        host.limits(),
    );
    beats_that_began(host);
    program.link.send(&EngineRequest::Kill).unwrap();
    let outcome = finished(&program);
    assert_eq!(
        (outcome.end, outcome.stdout.as_str()),
        (RunEnd::Killed, "begun\n"),
        "{outcome:?}"
    );
    beats_that_stopped(host);
}

fn a_closed_link_ends_the_container_and_removes_it(host: &Host) {
    let mut program = host.start(shell(&format!("{DAEMONS} sleep 100")), host.limits());
    beats_that_began(host);
    let there = host.containers();
    assert_eq!(there.len(), 1, "{there:?}");
    program.link.close();
    let begun = Instant::now();
    program.child.wait().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );
    beats_that_stopped(host);
    host.nothing_is_left();
}

fn what_a_killed_engine_program_left_ends_and_is_removed(host: &Host) {
    let mut program = host.start(shell(&format!("{DAEMONS} sleep 100")), host.limits());
    beats_that_began(host);
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    // The engine closes the container's standard input, with which it ends.
    std::thread::sleep(Duration::from_secs(2));
    beats_that_stopped(host);
    let there = host.containers();
    assert_eq!(there.len(), 1, "{there:?}");
    let other = host.start(shell("sleep 3; echo done"), host.limits());
    // One that is in use is not a leftover.
    drop(host.connected());
    assert_eq!(finished(&other).stdout, "done\n");
    host.nothing_is_left();
}

fn silence_ends_the_container(host: &Host) {
    let program = host.start(shell(&format!("{DAEMONS} sleep 100")), host.limits());
    beats_that_began(host);
    // Alive, with every connection open, and saying nothing.
    let pid = rustix::process::Pid::from_child(&program.child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    std::thread::sleep(protocol::engine::SILENCE + Duration::from_secs(3));
    beats_that_stopped(host);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let outcome = finished(&program);
    assert_eq!(outcome.end, RunEnd::Signalled { signal: 9 }, "{outcome:?}");
}
