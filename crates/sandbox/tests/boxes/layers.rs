//! What a box writes goes to a layer, and what becomes of that.

use std::time::{Duration, Instant};

use bulkhead_sandbox::pool::Pool;
use bulkhead_sandbox::run::{Job, Then};
use protocol::control::MemoryPolicy;
use protocol::runner::{Fate, Limits, RunEnd};

use crate::Test;
use crate::host::{Host, Memory, argv_action, shell};

pub(crate) const TESTS: &[Test] = &[
    (
        "nothing_reaches_the_workspace_but_by_being_kept",
        nothing_reaches_the_workspace_but_by_being_kept,
    ),
    (
        "what_was_cut_off_in_the_middle_is_not_kept",
        what_was_cut_off_in_the_middle_is_not_kept,
    ),
    (
        "what_is_written_to_the_workspace_is_bounded",
        what_is_written_to_the_workspace_is_bounded,
    ),
    (
        "a_box_that_is_ready_is_used_and_replaced",
        a_box_that_is_ready_is_used_and_replaced,
    ),
    (
        "a_box_that_is_ready_for_something_else_is_not_used",
        a_box_that_is_ready_for_something_else_is_not_used,
    ),
    (
        "where_memory_must_be_held_and_is_not_nothing_starts",
        where_memory_must_be_held_and_is_not_nothing_starts,
    ),
];

/// What became of the newest layer that somebody decided about.
fn last(host: &Host) -> &'static str {
    host.layers.decided().last().unwrap().1
}

fn nothing_reaches_the_workspace_but_by_being_kept(host: &Host) {
    let there = host.workspace.path().join("canary");
    let discarded = host.run(Job {
        then: Then::Discard,
        ..host.job(shell("echo 1 > canary; cat canary"))
    });
    let discarded = discarded.unwrap();
    assert_eq!(discarded.stdout, "1\n");
    assert_eq!(
        (discarded.changes.fate, last(host)),
        (Fate::Discarded, "discarded")
    );
    assert!(!there.exists());
    let kept = host.shell("echo 2 > canary");
    assert!(matches!(kept.changes.fate, Fate::Kept { .. }));
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "2\n");
    // Who only reads has nothing to keep.
    let unchanged = host.shell("cat canary; echo x > /tmp/x");
    assert_eq!(
        (unchanged.changes.fate, last(host)),
        (Fate::Unchanged, "forgotten")
    );
    std::fs::remove_file(there).unwrap();
}

fn what_was_cut_off_in_the_middle_is_not_kept(host: &Host) {
    let job = host.job(shell("echo > half; sleep 100"));
    let limits = Limits {
        wall_seconds: 1,
        ..job.limits.clone()
    };
    let outcome = host.run(Job { limits, ..job }).unwrap();
    assert_eq!(
        (outcome.end, outcome.changes.fate),
        (RunEnd::TimedOut, Fate::Discarded)
    );
    assert!(!host.workspace.path().join("half").exists());
    // An error of its own is no reason to lose what it did.
    let failed = host.shell("echo > whole; exit 3");
    assert!(matches!(failed.changes.fate, Fate::Kept { .. }));
    std::fs::remove_file(host.workspace.path().join("whole")).unwrap();
}

fn what_is_written_to_the_workspace_is_bounded(host: &Host) {
    const MIB: u64 = 1024 * 1024;
    let bounded = |script: &str| {
        let job = host.job(shell(script));
        let limits = Limits {
            workspace_bytes: 16 * MIB,
            ..job.limits.clone()
        };
        host.run(Job { limits, ..job }).unwrap()
    };
    // One file is held by the kernel.
    let one = bounded("head -c 64M /dev/zero > one; stat -c %s one; rm one");
    assert_eq!(one.stdout, format!("{}\n", 16 * MIB), "{one:?}");
    let sparse = bounded("truncate -s 100G sparse");
    assert_ne!(sparse.end, RunEnd::Exited { code: 0 });
    // Many are found out.
    let many =
        bounded("for i in $(seq 64); do head -c 4M /dev/zero > $i; sleep 0.02; done; sleep 20");
    assert_eq!(many.end, RunEnd::Signalled { signal: 9 });
    assert!(many.stderr.contains("16777216 bytes"), "{many:?}");
    assert_eq!(many.changes.fate, Fate::Discarded);
    // So are those without a name.
    let nameless = bounded(
        "exec python3 -c 'import os, time\n\
         held = []\n\
         for number in range(20):\n\
         \x20   held.append(open(\"file\", \"wb\"))\n\
         \x20   os.unlink(\"file\")\n\
         \x20   held[-1].write(bytes(3 << 20))\n\
         \x20   held[-1].flush()\n\
         time.sleep(20)'",
    );
    assert_eq!(
        nameless.end,
        RunEnd::Signalled { signal: 9 },
        "{nameless:?}"
    );
    // Somebody else's writing is not taken for the box' own.
    let other = host.workspace.path().join("other");
    std::fs::write(&other, vec![1; 64 * MIB as usize]).unwrap();
    assert_eq!(bounded("sleep 0.3").end, RunEnd::Exited { code: 0 });
    std::fs::remove_file(other).unwrap();
}

/// A pool over the workspace of this host.
fn pool(host: &Host, spare: usize) -> Pool {
    let layers = host.layers.clone();
    let boxes = Host::boxes(
        &host.helper,
        host.workspace.path(),
        MemoryPolicy::BestEffort,
        layers,
    );
    let limits = host.job(argv_action(&["true"])).limits;
    let pool = Pool::start(boxes.unwrap(), limits, spare).unwrap();
    await_ready(&pool, 2 * spare);
    pool
}

fn await_ready(pool: &Pool, count: usize) {
    let until = Instant::now() + Duration::from_secs(20);
    while pool.ready() != count {
        assert!(Instant::now() < until, "{} are ready", pool.ready());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn a_box_that_is_ready_is_used_and_replaced(host: &Host) {
    let made = host.layers.count();
    let pool = pool(host, 1);
    assert_eq!(host.layers.count() - made, 2, "one of each kind");
    for round in 1..=5 {
        let outcome = pool.run(host.job(shell("echo here > found; id -u")), drop);
        let outcome = outcome.unwrap();
        assert_eq!(outcome.stdout, "1000\n");
        assert_eq!(last(host), "kept");
        await_ready(&pool, 2);
        assert_eq!(
            host.layers.count() - made,
            2 + round,
            "one for each that was used"
        );
    }
    // What is thrown away leaves no layer.
    pool.flush();
    await_ready(&pool, 2);
    let forgotten = || {
        host.layers
            .decided()
            .iter()
            .filter(|(_, what)| *what == "forgotten")
            .count()
    };
    let before = forgotten();
    drop(pool);
    assert_eq!(forgotten() - before, 2);
    std::fs::remove_file(host.workspace.path().join("found")).unwrap();
}

fn a_box_that_is_ready_for_something_else_is_not_used(host: &Host) {
    let pool = pool(host, 1);
    let job = host.job(shell(
        "ulimit -v; sed -n 's/Max processes *//p' /proc/self/limits | cut -d' ' -f1",
    ));
    let limits = Limits {
        pids: 77,
        ..job.limits.clone()
    };
    let outcome = pool
        .run(
            Job {
                limits: limits.clone(),
                ..job
            },
            drop,
        )
        .unwrap();
    assert!(outcome.stdout.ends_with("\n77\n"), "{outcome:?}");
    assert_eq!(outcome.receipt.limits, limits);
    assert_eq!(pool.ready(), 2);
    // One whose processes died is thrown away.
    drop(pool);
}

fn where_memory_must_be_held_and_is_not_nothing_starts(host: &Host) {
    let boxes = Host::boxes(
        &host.helper,
        host.workspace.path(),
        MemoryPolicy::Enforced,
        host.layers.clone(),
    );
    match (boxes, Memory::of_this_machine().is_held()) {
        (Ok(boxes), true) => {
            let outcome = boxes.run(host.job(argv_action(&["true"]))).unwrap();
            assert!(
                outcome.receipt.memory.starts_with("cgroup v"),
                "{outcome:?}"
            );
        }
        (Err(refused), false) => {
            assert!(refused.reason.contains("memory"), "{refused:?}");
            assert!(refused.fix.contains("Delegate=yes"), "{refused:?}");
        }
        (boxes, held) => panic!("held: {held}; {boxes:?}"),
    }
}
