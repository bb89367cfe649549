//! What holds the memory and the processes of a box as a whole, where something does.

use std::path::{Path, PathBuf};

use bulkhead_sandbox::run::Job;
use protocol::runner::{Limits, RunEnd, RunOutcome};

use crate::Test;
use crate::host::{Host, Memory, argv_action, shell};
use crate::inside::TOOL;

pub(crate) const TESTS: &[Test] = &[
    (
        "memory_is_held_as_a_whole_or_the_receipt_says_that_it_is_not",
        memory_is_held_as_a_whole_or_the_receipt_says_that_it_is_not,
    ),
    (
        "what_is_in_tmp_is_memory_where_a_cgroup_holds_it",
        what_is_in_tmp_is_memory_where_a_cgroup_holds_it,
    ),
    (
        "threads_and_processes_of_a_box_are_counted_together",
        threads_and_processes_of_a_box_are_counted_together,
    ),
    (
        "the_group_of_a_box_goes_with_it",
        the_group_of_a_box_goes_with_it,
    ),
];

/// Folders of cgroups whose name begins so.
fn groups(beginning: &str) -> Vec<PathBuf> {
    const MAX_DEPTH: usize = 8;
    let mut found = Vec::new();
    let mut open = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || depth == MAX_DEPTH {
                continue;
            }
            if entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with(beginning))
            {
                found.push(entry.path());
            }
            open.push((entry.path(), depth + 1));
        }
    }
    found
}

/// Folders of a service.
pub(crate) fn of_service(pid: u32) -> Vec<PathBuf> {
    groups(&format!("bulkhead-{pid}-"))
}

/// Folders of boxes of a service.
pub(crate) fn of_boxes(pid: u32) -> Vec<PathBuf> {
    let inner = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let all = of_service(pid).into_iter().flat_map(inner);
    all.map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

const MIB: u64 = 1024 * 1024;

fn limited(host: &Host, argv: &[&str]) -> RunOutcome {
    let job = host.job(argv_action(argv));
    let limits = Limits {
        memory_bytes: 128 * MIB,
        tmp_bytes: 512 * MIB,
        pids: 40,
        ..job.limits
    };
    host.run(Job { limits, ..job }).unwrap()
}

fn killed_for_memory(outcome: &RunOutcome) -> bool {
    outcome.end == (RunEnd::Signalled { signal: 9 })
        && outcome.stderr.contains("134217728 bytes of memory")
}

fn memory_is_held_as_a_whole_or_the_receipt_says_that_it_is_not(host: &Host) {
    let memory = Memory::of_this_machine();
    // Each of these is far below the limit.
    let bomb = limited(host, &[TOOL, "inside", "together", "16", "24"]);
    assert!(memory.is_called(&bomb.receipt.memory), "{bomb:?}");
    assert_eq!(
        (bomb.receipt.limits.memory_bytes, bomb.receipt.limits.pids),
        (128 * MIB, 40)
    );
    let survived: u64 = bomb.stdout.trim().parse().unwrap_or(0);
    match memory.ends_as_a_whole() || !memory.is_held() {
        true => assert!(killed_for_memory(&bomb), "{bomb:?}"),
        false => assert!(survived < 6, "{bomb:?}"),
    }
    // The first process of the command, which holds nothing, does not survive the others.
    let shell = format!("{TOOL} inside together 16 24; echo survived");
    let outlived = limited(host, &["sh", "-c", &shell]);
    if memory.ends_as_a_whole() {
        assert!(
            killed_for_memory(&outlived) && outlived.stdout.is_empty(),
            "{outlived:?}"
        );
    }
    let control = limited(host, &[TOOL, "inside", "together", "3", "24"]);
    assert_eq!(control.stdout, "3\n", "{control:?}");
}

fn what_is_in_tmp_is_memory_where_a_cgroup_holds_it(host: &Host) {
    let memory = Memory::of_this_machine();
    let fill = "for i in 1 2 3 4 5 6 7 8; do head -c 32M /dev/zero > /tmp/$i || break; done; \
                du -sm /tmp | cut -f1";
    let outcome = limited(host, &["sh", "-c", fill]);
    let there = outcome.stdout.trim().parse::<u64>();
    if memory.ends_as_a_whole() {
        assert!(killed_for_memory(&outcome), "{outcome:?}");
    } else if memory.is_held() {
        assert!(
            there.as_ref().map_or(true, |mebibytes| *mebibytes <= 128),
            "{outcome:?}"
        );
    } else {
        // That is held by the limit of /tmp alone.
        assert_eq!(there, Ok(256), "{outcome:?}");
    }
}

fn threads_and_processes_of_a_box_are_counted_together(host: &Host) {
    let outcome = limited(host, &[TOOL, "inside", "children", "500"]);
    let children: u32 = outcome.stdout.trim().parse().unwrap();
    assert!((20..40).contains(&children), "{outcome:?}");
}

fn the_group_of_a_box_goes_with_it(host: &Host) {
    let own = std::process::id();
    let held = Memory::of_this_machine().is_held();
    assert_eq!(!of_service(own).is_empty(), held);
    assert_eq!(of_boxes(own), Vec::<PathBuf>::new());
    let mut meanwhile = None;
    let outcome = host.run_killable(host.job(shell("sleep 0.5")), |_| {
        meanwhile = Some(of_boxes(own));
    });
    assert_eq!(outcome.unwrap().end, RunEnd::Exited { code: 0 });
    assert_eq!(!meanwhile.unwrap().is_empty(), held);
    for _ in 0..20 {
        host.argv(&["true"]);
        assert_eq!(of_boxes(own), Vec::<PathBuf>::new());
    }
    // Neither does one stay whose processes were killed.
    let _ = limited(host, &[TOOL, "inside", "together", "16", "24"]);
    assert_eq!(of_boxes(own), Vec::<PathBuf>::new());
}

/// While a service is there it has groups of boxes, where something has.
pub(crate) fn are_there(pid: u32) {
    assert_eq!(
        !of_boxes(pid).is_empty(),
        Memory::of_this_machine().is_held()
    );
}

/// What a killed service left goes when the next one starts, whichever that is.
pub(crate) fn go_with_the_next_start(helper: &Path, pid: u32) {
    drop(Host::new(helper));
    assert_eq!(of_service(pid), Vec::<PathBuf>::new());
}
