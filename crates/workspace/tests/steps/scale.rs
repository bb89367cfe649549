//! Large, deep, and while others move things.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::common::{Place, kept, tree};
use protocol::runner::Fate;
use protocol::workspace::UndoTo;

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[test]
fn a_hundred_thousand_files_are_kept_and_undone_in_bounded_time_and_memory() {
    let mut place = Place::new();
    place.given("mkdir there");
    let before = place.tree();
    // One new folder is one operation; in one that is there each file is one.
    let script = "mkdir new; perl -e 'for (1..50000) { for my $d (\"new\", \"there\") { open F, \">\", \"$d/$_\" or die } }'";
    let over = place.run(script);
    let begun = Instant::now();
    let changes = place.keep(&over);
    kept(&changes);
    assert_eq!(changes.list.len() as u64 + changes.more, 100_001);
    place.undo(UndoTo::Newest);
    println!(
        "keep and undo of 100,000 files: {:?}, {} MiB",
        begun.elapsed(),
        peak() >> 20
    );
    assert!(begun.elapsed() < Duration::from_secs(120));
    assert!(peak() < 400 << 20, "{}", peak());
    assert_eq!(place.tree(), before);
    place.assert_tidy();
}

#[test]
fn a_deep_tree_is_kept_deleted_and_undone_and_a_deeper_one_refused() {
    let deep = |depth: u32| {
        format!(
            "perl -e 'for (1..{depth}) {{ mkdir \"dir\" or die; chdir \"dir\" or die }} open F, \">\", \"end\"'"
        )
    };
    let mut place = Place::new();
    let changes = place.step(&deep(900));
    kept(&changes);
    assert_eq!(changes.list.len() as u64 + changes.more, 901);
    let changes = place.step_of(2, "rm -rf dir");
    kept(&changes);
    assert_eq!(changes.list.len() as u64 + changes.more, 901);
    place.undo(UndoTo::Newest);
    place.given("perl -e 'for (1..900) { chdir \"dir\" or die } -e \"end\" or die'");
    let ready = place.begin();
    ready.run("rm -rf dir; echo x > dir");
    kept(&place.keep(&ready.over));
    // One that is deeper than any path is refused, told or thrown away, in a time that is that of its size.
    let begun = Instant::now();
    let changes = place.step(&format!("rm dir; {}", deep(5000)));
    let Fate::Failed { reason, .. } = &changes.fate else {
        panic!("{:?}", changes.fate)
    };
    assert!(
        reason.contains("deeper than 1000") && reason.len() < 100,
        "{reason}"
    );
    let over = place.run(&format!("rm dir; {}", deep(5000)));
    place.store.forget(over.layer).unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    place.assert_tidy();
}

#[test]
fn a_small_step_reads_no_folder_but_those_it_changes() {
    let mut place = Place::new();
    place.given("for a in 1 2 3 4 5 6 7 8 9; do mkdir -p t/$a/x t/$a/y; echo > t/$a/x/f; done");
    let old = SystemTime::now() - Duration::from_secs(3 * 24 * 60 * 60);
    let folders = || {
        let mut all = vec![place.workspace()];
        let mut at = 0;
        while at < all.len() {
            for entry in std::fs::read_dir(&all[at]).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    all.push(entry.path());
                }
            }
            at += 1;
        }
        all
    };
    let folders = folders();
    assert_eq!(folders.len(), 29);
    // Reading a folder sets its access time, if that is older than a day.
    let age = || {
        for folder in &folders {
            let times = std::fs::FileTimes::new().set_accessed(old);
            std::fs::File::open(folder)
                .unwrap()
                .set_times(times)
                .unwrap();
        }
    };
    let read = || {
        let is_read = |path: &&std::path::PathBuf| {
            std::fs::metadata(path).unwrap().accessed().unwrap() > old + Duration::from_secs(60)
        };
        folders.iter().filter(is_read).count()
    };
    age();
    std::fs::read_dir(&folders[3]).unwrap().count();
    assert_eq!(
        read(),
        1,
        "the file system must tell reads for this test to see"
    );
    let over = place.run("echo new > t/5/x/f");
    age();
    kept(&place.keep(&over));
    assert_eq!(read(), 0, "names are looked up, nothing is listed");
    place.undo(UndoTo::Newest);
    assert_eq!(read(), 0);
    // To delete a folder it and what is below it are listed.
    age();
    std::thread::sleep(Duration::from_millis(12));
    let over = place.run("rm -r t/5");
    kept(&place.keep(&over));
    let left: Vec<_> = folders.iter().filter(|path| path.exists()).collect();
    assert_eq!(left.len(), 26);
    for path in left {
        let time = std::fs::metadata(path).unwrap().accessed().unwrap();
        assert!(time < old + Duration::from_secs(60), "{}", path.display());
    }
}

#[test]
fn swapping_folders_for_links_never_leads_a_step_out() {
    const SWAPS: u32 = 100_000;
    let mut place = Place::new();
    place.given("mkdir -p a/b; echo 0 > a/b/f; echo 0 > a/b/g");
    let outside = tempfile::tempdir().unwrap();
    for path in ["b", "."] {
        let folder = outside.path().join(path);
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["f", "g"] {
            std::fs::write(folder.join(name), "canary").unwrap();
        }
    }
    let canary = tree(outside.path());
    let workspace = place.workspace();
    std::os::unix::fs::symlink(outside.path(), workspace.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path(), workspace.join("a/link")).unwrap();
    let (stop, swaps) = (AtomicBool::new(false), AtomicU32::new(0));
    let (mut kept, mut refused, mut undone) = (0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            let here = std::fs::File::open(&workspace).unwrap();
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..50 {
                    for (one, other) in [("a", "link"), ("a/b", "a/link")] {
                        // There and back, so that the folders are where they belong in between.
                        for _ in 0..2 {
                            rustix::fs::renameat_with(&here, one, &here, other, exchange).unwrap();
                            swaps.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        for round in 0.. {
            let enough = refused > 0 && kept > 0 && undone > 0;
            if swaps.load(Ordering::Relaxed) >= SWAPS && enough || round >= 5000 {
                break;
            }
            let ready = place.begin();
            let protocol::workspace::LayerFolders::Overlay { upper, .. } = &ready.folders else {
                panic!("an overlay")
            };
            // As a box would leave it that saw the folders as they were.
            super::common::sh(
                upper,
                &format!("mkdir -p a/b; echo {round} > a/b/f; mkdir a/b/new; echo {round} > a/b/g"),
            );
            match place.keep(&ready.over).fate {
                Fate::Kept { .. } => kept += 1,
                Fate::Conflict { .. } | Fate::Failed { .. } => refused += 1,
                other => panic!("{other:?}"),
            }
            let to = UndoTo::Newest;
            let diff = protocol::workspace::Diff::Unified;
            let shown = place
                .store
                .history(protocol::workspace::HistoryRequest::Preview {
                    to: to.clone(),
                    diff,
                });
            if let protocol::workspace::HistoryReply::Preview { preview } = shown {
                assert!(!preview.diff.contains("canary"), "{}", preview.diff);
                let digest = preview.digest;
                let reply = place
                    .store
                    .history(protocol::workspace::HistoryRequest::Undo { to, digest });
                undone += u32::from(matches!(
                    reply,
                    protocol::workspace::HistoryReply::Undone { .. }
                ));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{swaps:?} swaps, {kept} kept, {refused} refused, {undone} undone");
    assert!(swaps.into_inner() >= SWAPS);
    assert!(
        refused > 0 && kept > 0 && undone > 0,
        "the race never met a step, or always did"
    );
    assert_eq!(tree(outside.path()), canary);
}

#[test]
fn a_small_step_is_quick() {
    let mut place = Place::new();
    place.given("mkdir d; echo a > d/a");
    let mut times = Vec::new();
    for n in 0..30 {
        let ready = place.begin();
        let protocol::workspace::LayerFolders::Overlay { upper, .. } = &ready.folders else {
            panic!("an overlay")
        };
        super::common::sh(upper, &format!("mkdir d; echo {n} > d/a"));
        std::thread::sleep(Duration::from_millis(5));
        let begun = Instant::now();
        kept(&place.keep(&ready.over));
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "keep one small file: p50 {:?}, best {:?}",
        times[15], times[0]
    );
    // The machine may be busy; the benches compare ratios.
    assert!(times[0] < Duration::from_millis(100), "{times:?}");
}
