//! The formats that keys are commonly given out in: data, and the one matcher for them.
//!
//! A row is a sequence of fixed texts and of runs over an alphabet, with the fewest and most
//! characters of each. It is found by its longest fixed text and then checked in both
//! directions; nothing is tried twice, so a text cannot be made slow to look through.

mod checksum;
mod cloud;
mod code;
mod matcher;
mod services;

use crate::alphabet::Alphabet;
use crate::finding::Kind;

pub(crate) use matcher::{find, find_loose};

/// A piece of a format.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// Exactly this text.
    Lit(&'static str),
    /// So many characters of the alphabet, at least and at most.
    Run(Alphabet, usize, usize),
}

/// One format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    pub(crate) kind: Kind,
    parts: &'static [Part],
    /// Which part it is found by.
    anchor: usize,
    /// An invented one, with `{}` in its middle so that nobody takes this file for a leak.
    #[cfg_attr(not(test), expect(dead_code, reason = "what the tests look for"))]
    example: &'static str,
}

const fn row(kind: &'static str, parts: &'static [Part], example: &'static str) -> Format {
    let mut anchor = 0;
    let mut longest = 0;
    let mut index = 0;
    while index < parts.len() {
        if let Part::Lit(text) = parts[index]
            && text.len() > longest
        {
            longest = text.len();
            anchor = index;
        }
        index += 1;
    }
    assert!(longest > 0, "a format needs a fixed text to be found by");
    Format {
        kind: Kind(kind),
        parts,
        anchor,
        example,
    }
}

impl Format {
    fn anchor_text(&self) -> &'static str {
        match self.parts[self.anchor] {
            Part::Lit(text) => text,
            // `row` takes nothing else for an anchor.
            Part::Run(..) => "",
        }
    }

    /// The letters and digits of the text that it begins with; nothing if it begins with a run, or with
    /// too few to look for.
    fn first_letters(&self) -> String {
        let text = match self.parts[0] {
            Part::Lit(text) => text,
            Part::Run(..) => "",
        };
        let letters: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
        // Every digest of a lock file begins so.
        if letters.len() < 3 || letters == "sha256" {
            String::new()
        } else {
            letters
        }
    }

    /// Letters and signs that every one of them has.
    fn fixed(&self) -> usize {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Lit(text) => text.len(),
                Part::Run(..) => 0,
            })
            .sum()
    }
}

/// All rows.
pub(crate) fn all() -> impl Iterator<Item = &'static Format> {
    [cloud::FORMATS, code::FORMATS, services::FORMATS]
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&'static str, usize, usize)> {
        let mut hits = Vec::new();
        find(text.as_bytes(), &mut hits);
        hits.iter()
            .map(|hit| (hit.kind.as_str(), hit.start, hit.end))
            .collect()
    }

    #[test]
    fn every_format_is_found_by_its_example_whole_and_in_a_sentence() {
        for format in all() {
            let example = format.example.replace("{}", "");
            let text = format!("it is \"{example}\", so");
            let whole = (format.kind.as_str(), 7, 7 + example.len());
            assert!(
                found(&text).contains(&whole),
                "{whole:?} in {text}: {:?}",
                found(&text)
            );
        }
    }

    #[test]
    fn no_example_is_found_when_one_of_its_signs_is_missing_or_another_letter_follows() {
        for format in all() {
            let example = format.example.replace("{}", "");
            let fixed = format.parts.iter().all(|part| match part {
                Part::Lit(_) => true,
                Part::Run(_, least, most) => least == most,
            });
            let ends_in_run = matches!(format.parts.last(), Some(Part::Run(..)));
            if !fixed || !ends_in_run {
                continue;
            }
            let others = |text: &str| {
                found(text)
                    .iter()
                    .any(|(kind, ..)| *kind == format.kind.as_str())
            };
            let shorter = &example[..example.len() - 1];
            let others_too = all().filter(|other| other.kind == format.kind).count() > 1;
            if !others_too {
                assert!(!others(&format!("x {shorter} y")), "{shorter}");
                assert!(!others(&format!("x {example}8 y")), "{example}8");
            }
        }
    }

    #[test]
    fn an_example_with_its_random_part_worn_down_to_one_letter_is_not_found() {
        for format in all() {
            let mut text = String::new();
            for part in format.parts {
                match part {
                    Part::Lit(fixed) => text.push_str(fixed),
                    Part::Run(alphabet, least, _) => {
                        let sign = [b'x', b'X', b'0']
                            .into_iter()
                            .find(|sign| alphabet.has(*sign))
                            .expect("every alphabet has one of them");
                        text.extend(std::iter::repeat_n(char::from(sign), *least));
                    }
                }
            }
            assert!(found(&text).is_empty(), "{text}");
        }
    }
}
