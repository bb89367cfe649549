//! Which parts of a text were scanned before and held nothing: pure.
//!
//! A conversation is sent to the model whole with every request, and grows at its end. What stood in
//! a request before is not scanned again. No text is kept for that, only a keyed hash of each
//! kilobyte, counted from the beginning and from the end.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;

/// Bytes under one hash.
const BLOCK: usize = 1024;

/// Blocks that are scanned again beside what is new: something may stand across the border.
const BESIDE: usize = 2;

/// Texts of which is remembered that they were clean.
const TEXTS: usize = 16;

/// What was clean.
pub(crate) struct Clean {
    key: RandomState,
    texts: VecDeque<Blocks>,
}

/// The hashes of a text's whole blocks.
#[derive(PartialEq, Eq)]
pub(crate) struct Blocks {
    front: Vec<u64>,
    back: Vec<u64>,
}

impl Default for Clean {
    fn default() -> Self {
        Self {
            key: RandomState::new(),
            texts: VecDeque::new(),
        }
    }
}

impl Clean {
    /// The part of the text that has to be scanned, on characters' borders, and what to
    /// [`Self::keep`] if nothing is found in it.
    pub(crate) fn rest(&self, text: &str) -> (Range<usize>, Blocks) {
        let bytes = text.as_bytes();
        let hash = |block: &[u8]| self.key.hash_one(block);
        let blocks = Blocks {
            front: bytes.chunks_exact(BLOCK).map(hash).collect(),
            back: bytes.rchunks_exact(BLOCK).map(hash).collect(),
        };
        let known = |before: &Blocks| {
            let front = same(&before.front, &blocks.front);
            let back = same(&before.back, &blocks.back);
            (front, back)
        };
        let best = self.texts.iter().map(known);
        let (front, back) = best.max_by_key(|(f, b)| f + b).unwrap_or_default();
        let start = front.saturating_sub(BESIDE) * BLOCK;
        let end = text.len() - back.saturating_sub(BESIDE) * BLOCK;
        let rest = match start < end {
            true => text.floor_char_boundary(start)..text.ceil_char_boundary(end),
            // What is at the front and what is at the back lie over one another.
            false => 0..0,
        };
        (rest, blocks)
    }

    /// Nothing was found in the rest of this text.
    pub(crate) fn keep(&mut self, blocks: Blocks) {
        self.texts.retain(|before| *before != blocks);
        if self.texts.len() >= TEXTS {
            self.texts.pop_front();
        }
        self.texts.push_back(blocks);
    }
}

/// How many hashes are the same from the beginning.
fn same(one: &[u64], other: &[u64]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text without repetition, of this many bytes.
    fn text(from: usize, bytes: usize) -> String {
        let words = (from..).map(|number| format!("{number} "));
        let mut text = String::new();
        for word in words {
            text.push_str(&word);
            if text.len() >= bytes {
                break;
            }
        }
        text.truncate(bytes);
        text
    }

    fn rest(clean: &Clean, text: &str) -> Range<usize> {
        clean.rest(text).0
    }

    #[test]
    fn only_what_is_new_is_scanned_with_something_beside_it() {
        let mut clean = Clean::default();
        let (before, tools) = (text(0, 50_000), text(1_000_000, 20_000));
        let first = format!("{before}{tools}");
        let (all, blocks) = clean.rest(&first);
        assert_eq!(all, 0..first.len());
        clean.keep(blocks);
        assert_eq!(rest(&clean, &first), 0..0);
        let grown = format!("{before}something new{tools}");
        let new = rest(&clean, &grown);
        assert!(
            new.start < 50_000 - BLOCK && new.end > 50_013 + BLOCK,
            "{new:?}"
        );
        assert!(new.len() < 8 * BLOCK, "{new:?}");
        let other = text(5_000_000, 10_000);
        assert_eq!(rest(&clean, &other), 0..other.len());
    }

    #[test]
    fn whatever_is_changed_is_within_what_is_scanned() {
        let mut clean = Clean::default();
        let before = text(0, 10_240);
        let blocks = clean.rest(&before).1;
        clean.keep(blocks);
        for at in (0..before.len()).step_by(61) {
            for new in ["é", "longer than it was before", ""] {
                let changed = format!("{}{new}{}", &before[..at], &before[at + 1..]);
                let rest = rest(&clean, &changed);
                assert!(
                    rest.start <= at && at + new.len() <= rest.end,
                    "{at}: {rest:?}"
                );
                assert!(changed.is_char_boundary(rest.start) && changed.is_char_boundary(rest.end));
            }
        }
    }

    #[test]
    fn so_many_texts_are_remembered_and_no_more() {
        let mut clean = Clean::default();
        for number in 0..40 {
            let blocks = clean.rest(&text(number * 100_000, 4096)).1;
            clean.keep(blocks);
        }
        assert_eq!(clean.texts.len(), TEXTS);
        assert_eq!(rest(&clean, &text(0, 4096)), 0..4096);
        assert_eq!(rest(&clean, &text(3_900_000, 4096)), 0..0);
    }
}
