//! Boxes by themselves, against a plain process that runs the same program in the same loop.

use std::path::Path;
use std::time::Duration;

use super::Table;
use super::machine;
use super::measure::Measure;
use super::rig::Rig;
use crate::fault::Fault;

/// Threads that want boxes at the same time.
const THREADS: usize = 4;
/// Files of a small workspace.
const FEW: usize = 10;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BoxExtent {
    /// Runs of each kind of box, and of each other program that takes milliseconds.
    pub(super) runs: usize,
    /// Runs of each container engine.
    pub(super) engine_runs: usize,
    /// Changes, and undos of them.
    changes: usize,
    /// Files of a large workspace.
    files: usize,
    /// For how long as many boxes as possible are run.
    rush: Duration,
}

impl BoxExtent {
    /// Figures to be quoted.
    pub(crate) const FULL: Self = Self {
        runs: 300,
        engine_runs: 20,
        changes: 100,
        files: 100_000,
        rush: Duration::from_secs(2),
    };

    /// A part of something larger.
    pub(crate) const SHORT: Self = Self {
        runs: 100,
        engine_runs: 5,
        changes: 20,
        files: 5_000,
        rush: Duration::from_secs(1),
    };

    /// Whether it works at all.
    pub(crate) const QUICK: Self = Self {
        runs: 5,
        engine_runs: 1,
        changes: 2,
        files: 100,
        rush: Duration::from_millis(100),
    };
}

/// Measures boxes. Each loop has processes of its own to compare with.
pub(super) fn measure(folder: &Path, extent: BoxExtent) -> Result<(Vec<Measure>, Table), Fault> {
    let mut measures = Vec::new();
    let held = cold(&folder.join("cold"), extent, &mut measures)?;
    ready(&folder.join("ready"), extent, &mut measures)?;
    changes(folder, extent, &mut measures)?;
    Ok((
        measures,
        vec![["boxes".to_owned(), format!("native, memory: {held}")]],
    ))
}

fn process() -> Result<Duration, Fault> {
    machine::process().map_err(Fault::io("start /bin/true"))
}

/// Boxes that are made when they are wanted. Says what holds their memory.
fn cold(folder: &Path, extent: BoxExtent, measures: &mut Vec<Measure>) -> Result<String, Fault> {
    let rig = Rig::start(folder, FEW, 0)?;
    let (_, first) = rig.cold()?;
    let (mut plain, mut boxed) = (Vec::new(), Vec::new());
    for _ in 0..extent.runs {
        plain.push(process()?);
        boxed.push(rig.cold()?.0);
    }
    let plain = Measure::of_times("box_cold_process", &plain);
    let boxed = Measure::of_times("box_cold", &boxed).against(plain.p50);
    let tail = boxed.tail("box_cold_p99", &plain);
    let rate = rig.rate(THREADS, extent.rush)?;
    measures.extend([plain, boxed, tail]);
    measures.push(Measure::of("boxes_per_second", "/s", &[rate]));
    Ok(first.receipt.memory)
}

/// Boxes that are ready when they are wanted.
fn ready(folder: &Path, extent: BoxExtent, measures: &mut Vec<Measure>) -> Result<(), Fault> {
    let rig = Rig::start(folder, FEW, 1)?;
    rig.ready()?;
    let (mut plain, mut boxed) = (Vec::new(), Vec::new());
    for _ in 0..extent.runs {
        plain.push(process()?);
        boxed.push(rig.ready()?.0);
    }
    let plain = Measure::of_times("box_ready_process", &plain);
    let boxed = Measure::of_times("box_ready", &boxed).against(plain.p50);
    measures.extend([plain, boxed]);
    Ok(())
}

/// The same change in a small workspace and in a large one, kept and undone.
fn changes(folder: &Path, extent: BoxExtent, measures: &mut Vec<Measure>) -> Result<(), Fault> {
    let small = Rig::start(&folder.join("small"), FEW, 1)?;
    let large = Rig::start(&folder.join("large"), extent.files, 1)?;
    let [
        mut small_change,
        mut small_undo,
        mut large_change,
        mut large_undo,
    ] = [const { Vec::new() }; 4];
    for number in 0..extent.changes {
        small_change.push(small.change(number)?);
        small_undo.push(small.undo()?);
        large_change.push(large.change(number)?);
        large_undo.push(large.undo()?);
    }
    let change = Measure::of_times("box_change", &small_change);
    let undo = Measure::of_times("undo_change", &small_undo);
    let large_change = Measure::of_times("box_change_large", &large_change).against(change.p50);
    let large_undo = Measure::of_times("undo_change_large", &large_undo).against(undo.p50);
    measures.extend([change, large_change, undo, large_undo]);
    Ok(())
}
