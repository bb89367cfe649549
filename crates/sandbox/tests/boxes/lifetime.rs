//! How boxes end, and when there is none.

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bulkhead_sandbox::run::Job;
use protocol::call::Action;
use protocol::control::MemoryPolicy;
use protocol::runner::{Limits, RunEnd};

use crate::host::{Host, Memory, argv_action, shell};
use crate::{Test, groups};

pub(crate) const TESTS: &[Test] = &[
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
        "a_run_dies_with_who_started_it",
        a_run_dies_with_who_started_it,
    ),
    (
        "output_is_cut_and_read_to_its_end",
        output_is_cut_and_read_to_its_end,
    ),
    ("cpu_time_is_bounded", cpu_time_is_bounded),
    (
        "without_namespaces_nothing_runs",
        without_namespaces_nothing_runs,
    ),
    (
        "the_checks_of_doctor_know_this_machine",
        the_checks_of_doctor_know_this_machine,
    ),
];

/// Ten daemons that left their session and parent, ignore signals, and each write a line every 20 ms.
const DAEMONS: &str = "for i in 1 2 3 4 5 6 7 8 9 10; do \
    (setsid sh -c 'trap \"\" TERM INT HUP; while :; do echo x >> /workspace/beat; sleep 0.02; done' > /dev/null 2>&1 &) & \
    done; wait; ";

/// How often the daemons wrote; asserts that they do so no more.
fn beats_that_stopped(beat: &Path) -> u64 {
    let size = || std::fs::metadata(beat).map_or(0, |data| data.len());
    let before = size();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(size(), before, "something of the box is alive");
    std::fs::remove_file(beat).unwrap();
    before
}

fn the_time_limit_ends_daemons_too(host: &Host) {
    let spec = host.job(Action::Shell {
        script: format!("{DAEMONS} exec sleep 100"),
    });
    // Slow machines take more than a second until the daemons run.
    let limits = Limits {
        wall_seconds: 4,
        ..spec.limits.clone()
    };
    let begun = Instant::now();
    let outcome = host.run(Job { limits, ..spec }).unwrap();
    assert_eq!(outcome.end, RunEnd::TimedOut);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    assert!(outcome.duration_ms >= 4000);
    assert!(beats_that_stopped(&host.layers.newest("beat")) > 10);
}

fn what_a_command_leaves_behind_ends_with_it(host: &Host) {
    let outcome = host.shell(&format!("{DAEMONS} sleep 0.5; echo over"));
    assert_eq!(
        (outcome.end, outcome.stdout.as_str()),
        (RunEnd::Exited { code: 0 }, "over\n")
    );
    assert!(beats_that_stopped(&host.layers.newest("beat")) > 10);
    // Also if it keeps the output open.
    let begun = Instant::now();
    assert_eq!(host.shell("sleep 100 & echo over").stdout, "over\n");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

fn a_run_can_be_killed(host: &Host) {
    let layers = host.layers.clone();
    let mut watcher = None;
    let outcome = host.run_killable(
        host.job(shell(&format!("echo begun; {DAEMONS} sleep 100"))),
        |killer| {
            watcher = Some(std::thread::spawn(move || {
                wait_until(|| layers.newest("beat").exists());
                killer.kill();
                killer.kill();
            }));
        },
    );
    let outcome = outcome.unwrap();
    watcher.unwrap().join().unwrap();
    assert_eq!(
        (outcome.end, outcome.stdout.as_str()),
        (RunEnd::Killed, "begun\n")
    );
    beats_that_stopped(&host.layers.newest("beat"));
    // Before it began, nothing began.
    let outcome = host.run_killable(host.job(shell("echo > began")), |killer| killer.kill());
    assert_eq!(outcome.unwrap().end, RunEnd::Killed);
    assert!(!host.layers.newest("began").exists());
}

fn a_run_dies_with_who_started_it(host: &Host) {
    let exe = std::env::current_exe().unwrap();
    let mut starter = Command::new(exe)
        .arg("outlived")
        .arg(&host.helper)
        .arg("daemons")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut beat = String::new();
    let mut told = std::io::BufReader::new(starter.stdout.take().unwrap());
    told.read_line(&mut beat).unwrap();
    let beat = Path::new(beat.trim());
    wait_until(|| beat.exists());
    groups::are_there(starter.id());
    starter.kill().unwrap();
    starter.wait().unwrap();
    // The kernel kills builder, init and the rest one after the other.
    std::thread::sleep(Duration::from_millis(500));
    assert!(beats_that_stopped(beat) > 0);
    groups::go_with_the_next_start(&host.helper, starter.id());
    // Overlayfs leaves a folder that nobody may enter.
    let folder = beat.ancestors().nth(3).unwrap();
    let removal = ["-c", "chmod -R u+rwx \"$0\" && rm -r \"$0\""];
    let removed = Command::new("sh").args(removal).arg(folder).status();
    assert!(removed.unwrap().success());
}

/// Runs a box in a process of its own, to be killed; or one that prints its environment; or says why there
/// is none that holds its memory as a whole.
pub(crate) fn outlived(helper: &Path, what: &str) {
    if what == "enforced" {
        let workspace = tempfile::tempdir().unwrap();
        let refused = Host::over(helper, workspace, MemoryPolicy::Enforced).unwrap_err();
        print!("{refused}");
        return;
    }
    let host = Host::new(helper);
    if what == "environment" {
        print!("{}", host.argv(&["env"]).stdout);
        return;
    }
    // Where the first box will write.
    let first = host.layers.newest("beat").display().to_string();
    println!("{}", first.replace("/0/upper/", "/1/upper/"));
    host.run(host.job(shell(&format!("{DAEMONS} sleep 100"))))
        .unwrap();
}

fn output_is_cut_and_read_to_its_end(host: &Host) {
    let script = "head -c 3000000 /dev/zero | tr '\\0' a; head -c 3000000 /dev/zero | tr '\\0' b >&2; exit 5";
    let spec = host.job(Action::Shell {
        script: script.to_owned(),
    });
    let limits = Limits {
        output_bytes: 1000,
        ..spec.limits.clone()
    };
    let outcome = host
        .run(Job {
            limits: limits.clone(),
            ..spec
        })
        .unwrap();
    assert_eq!(outcome.end, RunEnd::Exited { code: 5 });
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("a".repeat(1000).as_str(), "b".repeat(1000).as_str())
    );
    assert!(outcome.truncated);
    let exact = host.job(argv_action(&["head", "-c", "1000", "/dev/zero"]));
    let outcome = host.run(Job { limits, ..exact }).unwrap();
    assert_eq!((outcome.stdout.len(), outcome.truncated), (1000, false));
    assert_eq!(host.shell("printf 'a\\377b'").stdout, "a\u{fffd}b");
}

fn cpu_time_is_bounded(host: &Host) {
    let spec = host.job(Action::Shell {
        script: "while :; do :; done".to_owned(),
    });
    let limits = Limits {
        cpu_seconds: 1,
        ..spec.limits.clone()
    };
    let outcome = host.run(Job { limits, ..spec }).unwrap();
    assert!(
        matches!(outcome.end, RunEnd::Signalled { signal: 9 | 24 }),
        "{outcome:?}"
    );
}

fn without_namespaces_nothing_runs(host: &Host) {
    let exe = std::env::current_exe().unwrap();
    // A user namespace below which no other can be made, like a host that forbids them.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$0\" outlived \"$1\" \"$2\"";
    let inside = |first: &str| {
        let script = script.replacen("echo 0 > /proc/sys/user/max_user_namespaces;", first, 1);
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "sh", "-c", &script])
            .arg(&exe)
            .arg(&host.helper)
            .arg("environment");
        command.output().unwrap()
    };
    let refused = inside("echo 0 > /proc/sys/user/max_user_namespaces;");
    assert!(!refused.status.success());
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        text.contains("max_user_namespaces is 0")
            && text.contains("sysctl -w user.max_user_namespaces"),
        "{text}"
    );
    assert!(refused.stdout.is_empty());
    let control = inside("");
    assert!(control.status.success(), "{control:?}");
}

fn the_checks_of_doctor_know_this_machine(_: &Host) {
    let checks = bulkhead_sandbox::check();
    let status = |name: &str| {
        checks
            .iter()
            .find(|check| check.name == name)
            .unwrap()
            .status
    };
    assert_eq!(status("landlock"), bulkhead_sandbox::Status::Ok);
    assert_eq!(status("seccomp"), bulkhead_sandbox::Status::Ok);
    assert_eq!(status("user namespaces"), bulkhead_sandbox::Status::Ok);
    let memory = match Memory::of_this_machine().is_held() {
        true => bulkhead_sandbox::Status::Ok,
        false => bulkhead_sandbox::Status::Warn,
    };
    assert_eq!(status("memory limit"), memory);
    assert!(
        checks
            .iter()
            .all(|check| (check.status == bulkhead_sandbox::Status::Ok) == check.fix.is_empty())
    );
}

fn wait_until(done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "it did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}
