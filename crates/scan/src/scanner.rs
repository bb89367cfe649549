//! A scan of one text.

use std::ops::Range;

use protocol::marks::Marks;

use crate::decode::{self, Signs, Way};
use crate::finding::{Finding, Kind};
use crate::hit::{Hit, Rank};
use crate::vault::Search;
use crate::view::{Budget, Builder, View};
use crate::{context, formats, structured};

/// Texts are looked through in pieces of so many bytes, so that the memory for what is decoded
/// does not grow with them.
const PIECE: usize = 64 * 1024;

/// So many bytes of the piece before are looked at again: what is cut by the border is whole in one
/// of two pieces.
const OVERLAP: usize = 12 * 1024;

/// A border is moved so far to stand at a blank.
const BORDER: usize = 256;

/// Decodings within one another.
const DEPTH: usize = 3;

/// So many times the size of a piece may all that is decoded from it have together. Ordinary texts need
/// about four times their size, texts full of encodings about ten.
const DECODED: usize = 40;

/// Looks for secrets. Made once, used for many texts, from many threads.
#[derive(Debug)]
pub struct Scanner {
    search: Search,
}

impl Scanner {
    /// One that knows these marks and all formats.
    pub fn new(marks: Marks) -> Self {
        Self {
            search: Search::new(marks),
        }
    }

    /// One that knows the formats only: where there is no vault.
    pub fn of_formats() -> Self {
        Self::new(Marks::none())
    }

    /// How many letters and digits of one of the vault's values can have been said before it is found, at most.
    pub(crate) fn reach(&self) -> usize {
        self.search.reach()
    }

    /// All findings, sorted, none over another. Takes time in proportion to the text.
    #[must_use]
    pub fn scan(&self, text: &str) -> Vec<Finding> {
        let bytes = text.as_bytes();
        let mut hits = Vec::new();
        structured::long(bytes, &mut hits);
        for piece in pieces(bytes) {
            let offset = piece.start;
            let budget = Budget::of(piece.len() * DECODED + PIECE);
            let found = self.piece(&bytes[piece], budget);
            hits.extend(found.into_iter().map(|hit| Hit {
                start: hit.start + offset,
                end: hit.end + offset,
                ..hit
            }));
        }
        merge(text, hits)
    }

    fn piece(&self, bytes: &[u8], mut budget: Budget) -> Vec<Hit> {
        let mut hits = Vec::new();
        let view = View::of(bytes);
        self.look(&view, Way::default(), Signs::All, &mut budget, &mut hits);
        if let Some(view) = without_zeros(&view, &mut budget) {
            self.look(&view, Way::default(), Signs::All, &mut budget, &mut hits);
        }
        if budget.is_spent() {
            hits.push(Hit::new(Kind::TOO_ENCODED, 0..bytes.len(), Rank::Context));
        }
        hits
    }

    fn look(
        &self,
        view: &View<'_>,
        way: Way,
        signs: Signs,
        budget: &mut Budget,
        hits: &mut Vec<Hit>,
    ) {
        let mut found = Vec::new();
        match signs {
            Signs::All => {
                formats::find(&view.bytes, &mut found);
                structured::short(&view.bytes, &mut found);
                if way.is_upright() {
                    structured::passwords(&view.bytes, &mut found);
                    context::find(&view.bytes, &mut found);
                }
            }
            Signs::LettersAndDigits => formats::find_loose(&view.bytes, &mut found),
        }
        self.search.find(view, &mut found);
        hits.extend(found.into_iter().map(|hit| {
            let origin = view.origin(hit.start..hit.end);
            Hit {
                start: origin.start,
                end: origin.end,
                ..hit
            }
        }));
        if way.depth < DEPTH && signs == Signs::All {
            let mut deeper = |view: &View<'_>, way: Way, signs: Signs, budget: &mut Budget| {
                self.look(view, way, signs, budget, hits);
            };
            decode::each(view, way, budget, &mut deeper);
        }
    }
}

/// Zero bytes are gaps of what was decoded; in a text they are signs that nobody sees.
fn without_zeros(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    if !view.bytes.contains(&0) {
        return None;
    }
    let mut out = Builder::new(view);
    for at in (0..view.bytes.len()).filter(|at| view.bytes[*at] != 0) {
        out.copy(at..at + 1);
    }
    out.finish(budget)
}

/// Pieces that overlap, with borders at blanks where there are any.
fn pieces(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    loop {
        let rough = (start + PIECE + OVERLAP).min(bytes.len());
        let end = if rough == bytes.len() {
            rough
        } else {
            blank_before(bytes, rough)
        };
        pieces.push(start..end);
        if end == bytes.len() {
            return pieces;
        }
        start = blank_before(bytes, end - OVERLAP);
    }
}

fn blank_before(bytes: &[u8], at: usize) -> usize {
    let back = bytes[at - BORDER..at]
        .iter()
        .rposition(u8::is_ascii_whitespace);
    back.map_or(at, |back| at - BORDER + back)
}

/// One finding for all that overlaps, of the kind that ranks highest, over all their places.
fn merge(text: &str, mut hits: Vec<Hit>) -> Vec<Finding> {
    hits.sort_by(|a, b| (a.start, b.rank).cmp(&(b.start, a.rank)));
    let mut merged: Vec<Hit> = Vec::new();
    for hit in hits {
        match merged.last_mut() {
            Some(last) if hit.start < last.end || continues(last, &hit) => {
                let end = last.end.max(hit.end);
                if outranks(&hit, last) {
                    let start = last.start;
                    *last = hit;
                    last.start = start;
                }
                last.end = end;
            }
            _ => merged.push(hit),
        }
    }
    merged
        .into_iter()
        .map(|hit| Finding {
            kind: hit.kind,
            name: hit.name,
            start: text.floor_char_boundary(hit.start),
            end: text.ceil_char_boundary(hit.end),
        })
        .collect()
}

fn outranks(hit: &Hit, last: &Hit) -> bool {
    if hit.kind == Kind::HONEYTOKEN || last.kind == Kind::HONEYTOKEN {
        return last.kind != Kind::HONEYTOKEN;
    }
    let longer = hit.end - hit.start > last.end - last.start;
    hit.rank > last.rank || (hit.rank == last.rank && longer)
}

/// The next piece of the same secret.
fn continues(last: &Hit, hit: &Hit) -> bool {
    let same = last.kind == hit.kind && last.name == hit.name && hit.rank == Rank::Vault;
    same && hit.start <= last.end + 4
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No text that is known to decode to more than the budget is at hand, so the budget is made small.
    #[test]
    fn what_is_encoded_beyond_measure_is_a_finding() {
        let text = "%41%42%43%44 ".repeat(100);
        let scanner = Scanner::of_formats();
        let within = scanner.piece(text.as_bytes(), Budget::of(1_000_000));
        assert!(within.is_empty(), "{within:?}");
        let beyond = scanner.piece(text.as_bytes(), Budget::of(100));
        assert_eq!(beyond.len(), 1);
        assert_eq!(
            (beyond[0].kind, beyond[0].end),
            (Kind::TOO_ENCODED, text.len())
        );
    }

    #[test]
    fn zero_bytes_between_letters_hide_nothing() {
        let token = format!("{}{}", "gh", "p_7cCRDs0pWzPqk3uVb9T1xYf5Zn2Ee8Lm4Hh6");
        let strewn: String = token.chars().flat_map(|sign| [sign, '\0']).collect();
        let found = Scanner::of_formats().scan(&strewn);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].start, found[0].end), (0, strewn.len() - 1));
    }

    #[test]
    fn where_two_things_are_found_the_stronger_one_covers_both_places() {
        let text = "abcdefghijklmnop";
        let hits = vec![
            Hit::new(Kind("weak"), 2..9, Rank::Context),
            Hit::new(Kind("strong"), 5..12, Rank::Format),
            Hit::new(Kind("other"), 13..15, Rank::Format),
        ];
        let merged: Vec<_> = merge(text, hits)
            .iter()
            .map(|finding| (finding.kind.as_str(), finding.start, finding.end))
            .collect();
        assert_eq!(merged, [("strong", 2, 12), ("other", 13, 15)]);
    }
}
