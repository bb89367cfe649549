//! What was seen, against what is meant to be.

use intruder::scene::Line;
use intruder::table::{ASSETS, Asset, CONTROL, CONTROL_REACHES, Row};
use serde_json::{Value, json};

/// What came of one intruder.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What it told.
    pub(super) lines: Vec<Line>,
    /// What is laid out, and what each stands for; without what the program is to have.
    pub(super) laid_out: Vec<(String, Asset)>,
    /// What was seen to have happened, whatever it told.
    pub(super) effects: Vec<(Asset, &'static str)>,
    /// What else does not work any more.
    pub(super) harm: Vec<String>,
}

/// Whether something is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    Yes,
    No,
}

impl Reached {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
        }
    }
}

impl From<bool> for Reached {
    fn from(reached: bool) -> Self {
        match reached {
            true => Self::Yes,
            false => Self::No,
        }
    }
}

/// Whether a cell is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Yes,
    No,
}

/// One program and one thing to lose.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) program: &'static str,
    pub(super) asset: Asset,
    pub(super) expected: Reached,
    pub(super) observed: Reached,
    /// How it was reached; or how many ways were tried in vain.
    pub(super) probe: String,
}

impl Cell {
    pub(super) fn held(&self) -> Held {
        match self.expected == self.observed {
            true => Held::Yes,
            false => Held::No,
        }
    }

    /// The entry of the JSON form.
    pub(super) fn form(&self) -> Value {
        json!({
            "program": self.program,
            "asset": self.asset.title(),
            "expected": self.expected.word(),
            "observed": self.observed.word(),
            "probe": self.probe,
        })
    }
}

/// The cells of a program.
pub(super) fn row(row: &Row, seen: &Seen) -> Vec<Cell> {
    let cell = |asset: &Asset| cell(row.name, *asset, row.yes.contains(asset).into(), seen);
    ASSETS.iter().map(cell).collect()
}

/// The cells of the attacker under no confinement: only those that it has to reach.
pub(super) fn control(seen: &Seen) -> Vec<Cell> {
    let cell = |asset: &Asset| cell(CONTROL, *asset, Reached::Yes, seen);
    CONTROL_REACHES.iter().map(cell).collect()
}

fn cell(program: &'static str, asset: Asset, expected: Reached, seen: &Seen) -> Cell {
    let (mut tried, mut how) = (0_u32, None);
    for line in &seen.lines {
        match line {
            Line::Attempt {
                asset: on,
                probe,
                through,
                ..
            } if *on == asset => {
                tried += 1;
                if *through {
                    how.get_or_insert_with(|| probe.clone());
                }
            }
            Line::Loot { probe, text } => {
                let of = seen.laid_out.iter().find(|(laid, _)| laid == text);
                if of.is_some_and(|(_, of)| *of == asset) {
                    how.get_or_insert_with(|| probe.clone());
                }
            }
            Line::Attempt { .. } | Line::Done => {}
        }
    }
    let effect = seen.effects.iter().find(|(of, _)| *of == asset);
    let how = how.or_else(|| effect.map(|(_, what)| (*what).to_owned()));
    let vain = match tried {
        0 => "looked for in all it was given".to_owned(),
        tried => format!("{tried} attempts"),
    };
    Cell {
        program,
        asset,
        expected,
        observed: how.is_some().into(),
        probe: how.unwrap_or(vain),
    }
}

#[cfg(test)]
mod tests {
    use intruder::table::ROWS;

    use super::*;

    fn seen() -> Seen {
        let attempt = |asset, through| Line::Attempt {
            asset,
            probe: "a way".to_owned(),
            through,
            detail: String::new(),
        };
        Seen {
            lines: vec![
                attempt(Asset::HostFiles, false),
                attempt(Asset::MasterKey, true),
                Line::Loot {
                    probe: "a place".to_owned(),
                    text: "canary-1".to_owned(),
                },
            ],
            laid_out: vec![("canary-1".to_owned(), Asset::OtherToken)],
            effects: vec![(Asset::ForgedApproval, "it ran")],
            harm: Vec::new(),
        }
    }

    #[test]
    fn what_went_through_was_found_or_happened_is_reached_and_nothing_else() {
        let cells = row(&ROWS[0], &seen());
        let reached: Vec<Asset> = cells
            .iter()
            .filter(|cell| cell.observed == Reached::Yes)
            .map(|cell| cell.asset)
            .collect();
        assert_eq!(
            reached,
            [Asset::OtherToken, Asset::MasterKey, Asset::ForgedApproval]
        );
        assert_eq!(
            cells.iter().filter(|cell| cell.held() == Held::No).count(),
            3
        );
    }

    #[test]
    fn an_attacker_without_confinement_who_reaches_nothing_shows_that_the_attempts_are_blind() {
        let cells = control(&Seen::default());
        assert!(cells.iter().all(|cell| cell.held() == Held::No));
    }

    #[test]
    fn the_json_form_has_five_keys() {
        let form = row(&ROWS[0], &seen())[0].form();
        let mut keys: Vec<_> = form.as_object().unwrap().keys().cloned().collect();
        keys.sort_unstable();
        assert_eq!(keys, ["asset", "expected", "observed", "probe", "program"]);
    }
}
