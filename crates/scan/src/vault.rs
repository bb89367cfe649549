//! Looks for the vault's own values, by their marks.

use std::collections::HashMap;
use std::ops::Range;

use protocol::marks::{Mark, MarkKind, Marks, Rolling, Standing, Window, normal};

use crate::decode::rotate;
use crate::finding::Kind;
use crate::hit::{Hit, Rank};
use crate::view::View;

/// All marks, by the width of their windows.
#[derive(Debug)]
pub(crate) struct Search {
    marks: Marks,
    rolling: Rolling,
    widths: Vec<Width>,
}

struct Width {
    width: usize,
    leaving: [u64; 256],
    /// One bit for each filter that some window has.
    filters: Vec<u64>,
    /// For each filter, the mark and the window that has it.
    windows: HashMap<u16, Vec<(usize, usize)>>,
}

impl std::fmt::Debug for Width {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Width({})", self.width)
    }
}

impl Search {
    pub(crate) fn new(marks: Marks) -> Self {
        let rolling = marks.rolling();
        let mut widths: Vec<Width> = Vec::new();
        for (which, mark) in marks.iter().enumerate() {
            for (place, window) in mark.windows.iter().enumerate() {
                let at = match widths.iter().position(|w| w.width == window.width as usize) {
                    Some(at) => at,
                    None => {
                        widths.push(Width::new(window.width, &rolling));
                        widths.len() - 1
                    }
                };
                widths[at].add(window, (which, place));
            }
        }
        Self {
            marks,
            rolling,
            widths,
        }
    }

    /// Until the first window of a value is whole; what stands in front of it is shorter than a window.
    pub(crate) fn reach(&self) -> usize {
        let of = |mark: &Mark| {
            let widest = mark
                .windows
                .iter()
                .map(|window| window.width as usize)
                .max();
            (mark.length as usize).min(2 * widest.unwrap_or(0))
        };
        self.marks.iter().map(of).max().unwrap_or(0)
    }

    /// Adds every place of the view where a value stands, or a piece of one that nothing else
    /// looks like; also backwards and with its letters moved by 13.
    pub(crate) fn find(&self, view: &View<'_>, hits: &mut Vec<Hit>) {
        if self.widths.is_empty() {
            return;
        }
        let mut letters = Vec::with_capacity(view.bytes.len());
        let mut places = Vec::with_capacity(view.bytes.len());
        for (place, byte) in view.bytes.iter().enumerate() {
            if let Some(letter) = normal(*byte) {
                letters.push(letter);
                places.push(place);
            }
        }
        self.in_order(&letters, &places, hits);
        let rotated: Vec<u8> = letters.iter().map(|letter| rotate(*letter)).collect();
        self.in_order(&rotated, &places, hits);
        letters.reverse();
        places.reverse();
        self.in_order(&letters, &places, hits);
        let rotated: Vec<u8> = letters.iter().map(|letter| rotate(*letter)).collect();
        self.in_order(&rotated, &places, hits);
    }

    fn in_order(&self, letters: &[u8], places: &[usize], hits: &mut Vec<Hit>) {
        for width in &self.widths {
            width.find(self, letters, places, hits);
        }
    }

    /// A window was passed over by its filter; here it is looked at.
    fn confirm(
        &self,
        letters: &[u8],
        end: usize,
        candidates: &[(usize, usize)],
    ) -> Option<(&Mark, Range<usize>)> {
        candidates.iter().find_map(|(which, place)| {
            let mark = self.marks.iter().nth(*which)?;
            let window = mark.windows.get(*place)?;
            let start = end - window.width as usize;
            if self.marks.digest(&letters[start..end]) != window.digest {
                return None;
            }
            let whole = start
                .checked_sub(window.at as usize)
                .map(|start| start..start + mark.length as usize)
                .filter(|whole| whole.end <= letters.len())
                .filter(|whole| self.marks.digest(&letters[whole.clone()]) == mark.whole);
            match (whole, window.standing) {
                (Some(whole), _) => Some((mark, whole)),
                (None, Standing::Alone) => Some((mark, start..end)),
                (None, Standing::Within) => None,
            }
        })
    }
}

impl Width {
    fn new(width: u32, rolling: &Rolling) -> Self {
        Self {
            width: width as usize,
            leaving: rolling.leaving(width),
            filters: vec![0; 1024],
            windows: HashMap::new(),
        }
    }

    fn add(&mut self, window: &Window, which: (usize, usize)) {
        self.filters[usize::from(window.filter) / 64] |= 1 << (window.filter % 64);
        self.windows.entry(window.filter).or_default().push(which);
    }

    fn find(&self, search: &Search, letters: &[u8], places: &[usize], hits: &mut Vec<Hit>) {
        let mut hash = 0;
        for (index, letter) in letters.iter().enumerate() {
            hash = search.rolling.push(hash, *letter);
            if index >= self.width {
                let gone = letters[index - self.width];
                hash = hash.wrapping_sub(self.leaving[usize::from(gone)]);
            }
            let filter = Rolling::filter(hash);
            let passes = self.filters[usize::from(filter) / 64] >> (filter % 64) & 1 == 1;
            if !passes || index + 1 < self.width {
                continue;
            }
            let candidates = &self.windows[&filter];
            if let Some((mark, whole)) = search.confirm(letters, index + 1, candidates) {
                let (first, last) = (places[whole.start], places[whole.end - 1]);
                let (start, end) = (first.min(last), first.max(last) + 1);
                let kind = match mark.kind {
                    MarkKind::Secret => Kind::SECRET,
                    MarkKind::Honeytoken => Kind::HONEYTOKEN,
                };
                let mut hit = Hit::new(kind, start..end, Rank::Vault);
                hit.name = Some(mark.name.clone());
                hits.push(hit);
            }
        }
    }
}
