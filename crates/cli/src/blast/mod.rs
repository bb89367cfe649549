//! `bulkhead blast-radius`: the compartments, tried from inside of each.
//!
//! An installation of its own is made in a temporary folder, with secrets, a session and files that are there to be
//! found. For each program in turn it is started anew, by the real supervisor and with the real programs but for
//! one: in that one's place stands `bulkhead-intruder`, which gets everything that the program gets, confines itself
//! as the program does, and attacks. What it reached is what it found, and what changed. An attacker who is not
//! confined at all shows first that the attempts can see.

mod judge;
mod place;
mod stage;

use std::time::Instant;

use intruder::table::{ASSETS, CONTROL, ROWS};

use crate::fault::Fault;
use crate::output;
use crate::scratch::{Afterwards, Scratch};

use judge::{Cell, Held};
use stage::Stage;

/// How it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A table for people.
    Text,
    /// One line.
    Json,
}

/// Runs it. [`Fault::Said`] if any cell is not as it should be.
pub(crate) fn run(form: Form) -> Result<(), Fault> {
    let began = Instant::now();
    let scratch = Scratch::new(&std::env::temp_dir(), "blast", Afterwards::Remove)?;
    let stage = Stage::build(&scratch)?;
    let mut cells = judge::control(&stage.without_confinement()?);
    let mut harm = Vec::new();
    for row in &ROWS {
        let seen = stage.with_intruder(row)?;
        harm.extend(seen.harm.iter().map(|what| format!("{}: {what}", row.name)));
        cells.extend(judge::row(row, &seen));
    }
    match form {
        Form::Json => output::json(&cells.iter().map(Cell::form).collect::<Vec<_>>())?,
        Form::Text => show(&cells, began)?,
    }
    for what in &harm {
        eprintln!("bulkhead: harmed: {what}");
    }
    match harm.is_empty() && cells.iter().all(|cell| cell.held() == Held::Yes) {
        true => Ok(()),
        false => Err(Fault::Said),
    }
}

fn show(cells: &[Cell], began: Instant) -> Result<(), Fault> {
    for cell in cells.iter().filter(|cell| cell.held() == Held::No) {
        output::line(format!(
            "{} and {}: {} was expected, {} was seen ({})",
            cell.program,
            cell.asset.title(),
            cell.expected.word(),
            cell.observed.word(),
            cell.probe
        ))?;
    }
    let names = ROWS.iter().map(|row| row.name).chain([CONTROL]);
    for name in names {
        let reached = ASSETS.iter().filter(|asset| {
            let this = cells
                .iter()
                .find(|cell| cell.program == name && cell.asset == **asset);
            this.is_some_and(|cell| cell.observed == judge::Reached::Yes)
        });
        let reached: Vec<&str> = reached.map(|asset| asset.title()).collect();
        let reached = match reached.as_slice() {
            [] => "nothing".to_owned(),
            reached => reached.join(", "),
        };
        output::line(format!("{name}: {reached}"))?;
    }
    let off = cells.iter().filter(|cell| cell.held() == Held::No).count();
    output::line(format!(
        "{} cells, {off} not as they should be, in {:.1} s",
        cells.len(),
        began.elapsed().as_secs_f64()
    ))
}
