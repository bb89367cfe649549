//! What was seen, against what is meant to be.

use intruder::scene::{Line, Outcome};
use intruder::table::{ASSETS, Asset, CONTROL, CONTROL_REACHES, EVERYWHERE, Row, Try};
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
    /// What had to be tried was not, or had no answer; it counts as neither.
    NotKnown,
}

impl Reached {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::NotKnown => "not known",
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
    /// How it was reached; how many ways were tried in vain; or which were not.
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
    let cell = |asset: &Asset| {
        let expected = row.yes.contains(asset).into();
        cell(row.name, *asset, expected, row.tries, seen)
    };
    ASSETS.iter().map(cell).collect()
}

/// The cells of the attacker under no confinement: only those that it has to reach.
pub(super) fn control(seen: &Seen) -> Vec<Cell> {
    let cell = |asset: &Asset| cell(CONTROL, *asset, Reached::Yes, &[], seen);
    CONTROL_REACHES.iter().map(cell).collect()
}

fn cell(
    program: &'static str,
    asset: Asset,
    expected: Reached,
    tries: &[&[Try]],
    seen: &Seen,
) -> Cell {
    let all = EVERYWHERE.iter().chain(tries.iter().copied().flatten());
    let mut missing: Vec<&str> = all
        .filter(|(on, _)| *on == asset)
        .map(|(_, it)| *it)
        .collect();
    let (mut tried, mut silent, mut how) = (0_u32, Vec::new(), None);
    for line in &seen.lines {
        match line {
            Line::Attempt {
                asset: on,
                probe,
                outcome,
                ..
            } if *on == asset => {
                tried += 1;
                missing.retain(|name| name != probe);
                match outcome {
                    Outcome::Through => {
                        how.get_or_insert_with(|| probe.clone());
                    }
                    Outcome::NotKnown => silent.push(probe.as_str()),
                    Outcome::Refused | Outcome::Said => {}
                }
            }
            Line::Loot { probe, text } => {
                let of = seen.laid_out.iter().find(|(laid, _)| laid == text);
                if of.is_some_and(|(_, of)| *of == asset) {
                    how.get_or_insert_with(|| probe.clone());
                }
            }
            Line::Attempt { .. } | Line::Knocked | Line::Counted | Line::Done => {}
        }
    }
    let effect = seen.effects.iter().find(|(of, _)| *of == asset);
    let how = how.or_else(|| effect.map(|(_, what)| (*what).to_owned()));
    let (observed, probe) = match how {
        Some(how) => (Reached::Yes, how),
        None if missing.is_empty() && silent.is_empty() => {
            (Reached::No, format!("{tried} attempts"))
        }
        None => {
            let (missing, silent) = (missing.join(", "), silent.join(", "));
            let what = format!("not tried: {missing}; without an answer: {silent}");
            (Reached::NotKnown, what)
        }
    };
    Cell {
        program,
        asset,
        expected,
        observed,
        probe,
    }
}

#[cfg(test)]
mod tests {
    use intruder::table::ROWS;

    use super::*;

    fn attempt(asset: Asset, probe: &str, outcome: Outcome) -> Line {
        Line::Attempt {
            asset,
            probe: probe.to_owned(),
            outcome,
            detail: String::new(),
        }
    }

    /// All that the first row has to try, in vain.
    fn vain() -> Vec<Line> {
        let all = EVERYWHERE
            .iter()
            .chain(ROWS[0].tries.iter().copied().flatten());
        all.map(|(asset, probe)| attempt(*asset, probe, Outcome::Refused))
            .collect()
    }

    fn seen() -> Seen {
        let mut lines = vain();
        lines.push(attempt(Asset::MasterKey, "a way", Outcome::Through));
        lines.push(Line::Loot {
            probe: "a place".to_owned(),
            text: "canary-1".to_owned(),
        });
        Seen {
            lines,
            laid_out: vec![("canary-1".to_owned(), Asset::OtherToken)],
            effects: vec![(Asset::ForgedApproval, "it ran")],
            harm: Vec::new(),
        }
    }

    fn observed(seen: &Seen, wanted: Reached) -> Vec<Asset> {
        let cells = row(&ROWS[0], seen);
        let cells = cells.iter().filter(|cell| cell.observed == wanted);
        cells.map(|cell| cell.asset).collect()
    }

    #[test]
    fn what_went_through_was_found_or_happened_is_reached_and_nothing_else() {
        let seen = seen();
        assert_eq!(
            observed(&seen, Reached::Yes),
            [Asset::OtherToken, Asset::MasterKey, Asset::ForgedApproval]
        );
        assert!(observed(&seen, Reached::NotKnown).is_empty());
        let cells = row(&ROWS[0], &seen);
        let off = cells.iter().filter(|cell| cell.held() == Held::No);
        assert_eq!(off.count(), 3);
    }

    #[test]
    fn what_was_not_tried_or_not_answered_counts_as_neither() {
        for left_out in 0..vain().len() {
            let mut seen = Seen {
                lines: vain(),
                ..Seen::default()
            };
            assert!(observed(&seen, Reached::NotKnown).is_empty());
            let Line::Attempt { asset, probe, .. } = seen.lines.remove(left_out) else {
                panic!("all of them are attempts");
            };
            assert_eq!(observed(&seen, Reached::NotKnown), [asset], "{probe}");
            seen.lines.push(attempt(asset, &probe, Outcome::NotKnown));
            assert_eq!(observed(&seen, Reached::NotKnown), [asset], "{probe}");
            let cells = row(&ROWS[0], &seen);
            assert_eq!(
                cells.iter().filter(|cell| cell.held() == Held::No).count(),
                1
            );
        }
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
