//! A text as somebody could have meant it: as given, or decoded once or more often.

use std::borrow::Cow;
use std::ops::Range;

/// Where a byte of a view comes from in the text that was given: from this byte to before that.
type Place = (u32, u32);

/// Bytes, and where each comes from. A zero byte is a gap: nothing is found across it.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) bytes: Cow<'a, [u8]>,
    /// Empty where each byte comes from its own place.
    places: Vec<Place>,
}

impl<'a> View<'a> {
    /// The text itself. At most 4 GiB; a scan looks at much smaller pieces.
    pub(crate) fn of(text: &'a [u8]) -> Self {
        Self {
            bytes: Cow::Borrowed(text),
            places: Vec::new(),
        }
    }

    fn place(&self, at: usize) -> Place {
        match self.places.get(at) {
            Some(place) => *place,
            None => (at as u32, at as u32 + 1),
        }
    }

    /// What a range of the view comes from. Not empty.
    pub(crate) fn origin(&self, range: Range<usize>) -> Range<usize> {
        let (first, last) = (self.place(range.start), self.place(range.end - 1));
        let start = first.0.min(last.0) as usize;
        let end = first.1.max(last.1) as usize;
        start..end
    }
}

/// How many bytes all decodings of one text may have together.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
}

impl Budget {
    pub(crate) fn of(bytes: usize) -> Self {
        Self { left: bytes }
    }

    /// Whether more was to be decoded than there was room for.
    pub(crate) fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// Makes a view out of another.
#[derive(Debug)]
pub(crate) struct Builder<'v> {
    from: &'v View<'v>,
    bytes: Vec<u8>,
    places: Vec<Place>,
}

impl<'v> Builder<'v> {
    pub(crate) fn new(from: &'v View<'v>) -> Self {
        Self {
            from,
            bytes: Vec::new(),
            places: Vec::new(),
        }
    }

    /// One byte, decoded from these of the other view.
    #[inline]
    pub(crate) fn push(&mut self, byte: u8, from: Range<usize>) {
        let origin = self.from.origin(from);
        self.bytes.push(byte);
        self.places.push((origin.start as u32, origin.end as u32));
    }

    /// Bytes of the other view as they are.
    pub(crate) fn copy(&mut self, range: Range<usize>) {
        for at in range {
            self.push(self.from.bytes[at], at..at + 1);
        }
    }

    /// Nothing is to be found across this place.
    pub(crate) fn gap(&mut self) {
        if self.bytes.last().is_some_and(|byte| *byte != 0) {
            let place = self.places.last().copied().unwrap_or_default();
            self.bytes.push(0);
            self.places.push(place);
        }
    }

    /// The view, if there is anything in it and room for it.
    pub(crate) fn finish(self, budget: &mut Budget) -> Option<View<'static>> {
        if self.bytes.is_empty() || budget.is_spent() {
            return None;
        }
        budget.left = budget.left.saturating_sub(self.bytes.len());
        (!budget.is_spent()).then_some(View {
            bytes: Cow::Owned(self.bytes),
            places: self.places,
        })
    }
}

/// Fewer readable bytes in a row are chance.
pub(crate) const READABLE: usize = 8;

/// Adds what is readable of decoded bytes, piece by piece. Zero bytes between others are passed
/// over, since texts of 16 bits are full of them. `from` tells what a byte was decoded from.
pub(crate) fn push_readable(
    decoded: &[u8],
    out: &mut Builder<'_>,
    from: impl Fn(usize) -> Range<usize>,
) {
    let mut start = 0;
    while start < decoded.len() {
        if !is_readable(decoded[start]) {
            start += 1;
            continue;
        }
        let mut end = start;
        let mut signs = 0;
        while end < decoded.len() {
            if is_readable(decoded[end]) {
                signs += 1;
            } else if decoded[end] != 0 || decoded[end - 1] == 0 {
                break;
            }
            end += 1;
        }
        if signs >= READABLE {
            for at in (start..end).filter(|at| decoded[*at] != 0) {
                out.push(decoded[at], from(at));
            }
            out.gap();
        }
        start = end + 1;
    }
}

#[inline]
fn is_readable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_view_of_a_view_is_one_of_the_text() {
        let text = View::of(b"0123456789");
        let mut budget = Budget::of(100);
        let mut builder = Builder::new(&text);
        builder.push(b'a', 2..4);
        builder.push(b'b', 4..6);
        builder.push(b'c', 6..8);
        let once = builder.finish(&mut budget).expect("room for it");
        let mut builder = Builder::new(&once);
        builder.push(b'd', 1..3);
        let twice = builder.finish(&mut budget).expect("room for it");
        assert_eq!(twice.origin(0..1), 4..8);
        assert_eq!(once.origin(0..2), 2..6);
    }

    #[test]
    fn what_is_turned_round_comes_from_the_places_in_between() {
        let text = View::of(b"0123456789");
        let mut builder = Builder::new(&text);
        for at in (0..10).rev() {
            builder.push(text.bytes[at], at..at + 1);
        }
        let turned = builder.finish(&mut Budget::of(100)).expect("room for it");
        assert_eq!(turned.origin(0..3), 7..10);
    }

    #[test]
    fn only_what_is_readable_is_taken() {
        let text = View::of(&[b'x'; 64]);
        let mut builder = Builder::new(&text);
        push_readable(
            b"\x01readable text\x02short\x03s\0i\0x\0t\0e\0e\0n\0!\0",
            &mut builder,
            |at| at..at + 1,
        );
        let view = builder.finish(&mut Budget::of(100)).expect("room for it");
        assert_eq!(&*view.bytes, b"readable text\0sixteen!\0");
    }

    #[test]
    fn when_the_budget_is_spent_there_are_no_more_views() {
        let text = View::of(b"0123456789");
        let mut budget = Budget::of(5);
        let mut builder = Builder::new(&text);
        builder.copy(0..10);
        assert!(builder.finish(&mut budget).is_none());
        assert!(budget.is_spent());
    }
}
