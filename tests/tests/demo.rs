//! The demo and the benches, as somebody who just built the programs runs them.

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use testkit::system::{program, said};

/// In a folder that has to be empty again afterwards.
fn run(arguments: &[&str]) -> (Output, Value) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(program("bulkhead"))
        .args(arguments)
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("bulkhead runs");
    let left = folder.path().read_dir().expect("it can be read").count();
    assert_eq!(left, 0, "something is left behind: {}", said(&output));
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    (output, json)
}

#[test]
fn the_demo_stops_everything_and_leaves_nothing_behind() {
    let (output, demo) = run(&["demo", "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(demo["ok"], true);
    let attempts = demo["attempts"].as_array().expect("attempts");
    assert!(attempts.len() >= 10);
    let mut row = 0;
    for attempt in attempts {
        assert_eq!(attempt["stopped"], true, "{attempt}");
        let next = attempt["row"].as_u64().expect("a row of the record");
        assert!(next > row, "rows come in order: {attempt}");
        row = next;
    }
    let with = |asked: &str| attempts.iter().filter(|one| one["asked"] == asked).count();
    assert!(with("never") >= 3 && with("said_no") >= 3 && with("said_yes") >= 3);
    let checks = demo["checks"].as_array().expect("checks");
    assert!(checks.len() >= 7);
    assert!(checks.iter().all(|check| check["held"] == true), "{demo}");
}

#[test]
fn the_bench_has_every_figure_and_compares_with_the_machine() {
    let (output, bench) = run(&["bench", "--json", "--quick"]);
    assert!(output.status.success(), "{}", said(&output));
    let figure = |name: &str| {
        let all = bench.as_array().expect("a list");
        let one = all.iter().find(|one| one["name"] == name).cloned();
        one.unwrap_or_else(|| panic!("no figure {name}: {bench}"))
    };
    for name in [
        "fdatasync",
        "fork_exec",
        "model_direct",
        "turn_one_tool",
        "turn_first",
        "up_to_ready",
        "box_cold",
        "box_ready",
        "box_change",
        "undo_change",
    ] {
        let measured = figure(name);
        assert_eq!(measured["unit"], "ms", "{measured}");
        let (p50, p99) = (measured["p50"].as_f64(), measured["p99"].as_f64());
        assert!(p50 > Some(0.0) && p99 >= p50, "{measured}");
        assert!(measured["n"].as_u64() >= Some(2), "{measured}");
    }
    for name in [
        "decide_ordinary",
        "decide_ls",
        "decide_pipeline",
        "decide_opaque",
    ] {
        let decided = figure(name);
        assert_eq!(decided["unit"], "us", "{decided}");
        // Far above the targets, which a busy machine may miss now and then.
        assert!(decided["p50"].as_f64() < Some(2000.0), "{decided}");
        assert!(decided["n"].as_u64() >= Some(500), "{decided}");
    }
    let turn = figure("turn_no_tools");
    assert_eq!(turn["baseline"], figure("fdatasync")["p50"]);
    assert!(turn["ratio"].as_f64() >= Some(0.0), "{turn}");
    // A box is more than a process, whatever the machine does meanwhile.
    assert!(figure("turn_one_tool")["ratio"].as_f64() > Some(1.0));
    assert!(figure("box_cold")["ratio"].as_f64() > Some(1.0));
    assert!(figure("boxes_per_second")["p50"].as_f64() > Some(1.0));
    let memory = bench.as_array().into_iter().flatten();
    let memory: Vec<&Value> = memory
        .filter(|one| one["name"] == "idle_pss" || one["name"] == "idle_rss")
        .collect();
    assert!(matches!(memory[..], [one] if one["unit"] == "MiB" && one["p50"].as_f64() > Some(1.0)));
}
