//! What was broken over lines, or put together from quoted pieces: `"one" + "two"`.

use std::ops::Range;

use crate::alphabet::{ALNUM, Alphabet, BASE64, URL_EQUALS};
use crate::view::{Budget, Builder, View};

/// Signs between two pieces, at most.
const LONGEST_GAP: usize = 40;

/// Shorter ones are words of a text that was wrapped.
const LEAST: usize = 16;

fn is_solid(byte: u8) -> bool {
    const OTHERS: Alphabet = URL_EQUALS;
    BASE64.has(byte) || OTHERS.has(byte) || matches!(byte, b'.' | b'~' | b':' | b'$')
}

pub(super) fn decode(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    let bytes = &view.bytes;
    let mut out = Builder::new(view);
    let mut pieces: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while let Some(next) = next_break(bytes, at) {
        let before = word_before(
            bytes,
            next.start,
            pieces.last().map_or(0, |last| last.start),
        );
        let after = next.end
            ..next.end
                + bytes[next.end..]
                    .iter()
                    .take_while(|b| is_solid(**b))
                    .count();
        let goes_on = pieces.last().is_some_and(|last| *last == before);
        if !goes_on {
            emit(&pieces, &mut out);
            pieces.clear();
            pieces.push(before);
        }
        pieces.push(after);
        at = next.end;
    }
    emit(&pieces, &mut out);
    out.finish(budget)
}

fn emit(pieces: &[Range<usize>], out: &mut Builder<'_>) {
    let whole: usize = pieces.iter().map(ExactSizeIterator::len).sum();
    if pieces.len() < 2 || whole < LEAST || pieces.iter().any(|p| p.is_empty()) {
        return;
    }
    for piece in pieces {
        out.copy(piece.clone());
    }
    out.gap();
}

fn word_before(bytes: &[u8], end: usize, floor: usize) -> Range<usize> {
    let back = bytes[floor..end]
        .iter()
        .rev()
        .take_while(|b| is_solid(**b))
        .count();
    end - back..end
}

/// The next place from `from` where one piece ends and another may follow.
fn next_break(bytes: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\n' | b'\r' | b'"' | b'\'' | b'`' | b'\\' => {}
            _ => {
                at += 1;
                continue;
            }
        }
        if at > 0
            && is_solid(bytes[at - 1])
            && let Some(end) = gap_end(bytes, at)
        {
            return Some(at..end);
        }
        at += 1;
    }
    None
}

/// The end of a gap that joins two pieces: a line's end, or a quote closed and opened again.
fn gap_end(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = matches!(bytes[start], b'"' | b'\'' | b'`').then(|| bytes[start]);
    let mut lines = 0;
    for (offset, byte) in bytes[start..].iter().enumerate().take(LONGEST_GAP) {
        let at = start + offset;
        match byte {
            b'\n' => lines += 1,
            b' ' | b'\t' | b'\r' | b'\\' => {}
            b'+' | b'.' | b'&' | b',' | b'|' | b'(' | b')' if quote.is_some() => {}
            byte if offset > 0 && Some(*byte) == quote => {
                let next = bytes.get(at + 1)?;
                return is_solid(*next).then_some(at + 1);
            }
            byte if offset > 0 && quote.is_none() && lines > 0 && ALNUM.has(*byte) => {
                return Some(at);
            }
            _ if offset == 0 => {}
            _ => return None,
        }
        if lines > 1 && quote.is_none() {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> String {
        let view = View::of(text.as_bytes());
        decode(&view, &mut Budget::of(10_000)).map_or(String::new(), |view| {
            String::from_utf8_lossy(&view.bytes).into_owned()
        })
    }

    #[test]
    fn pieces_are_put_together() {
        assert_eq!(
            decoded("k = \"abcdefgh\" + \"ijklmnop\";"),
            "abcdefghijklmnop\0"
        );
        assert_eq!(
            decoded("k = 'abcdefgh' .\n    'ijklmnop' . 'qrst'"),
            "abcdefghijklmnopqrst\0"
        );
        assert_eq!(
            decoded("it is abcdefgh\n  ijklmnop so"),
            "abcdefghijklmnop\0"
        );
        assert_eq!(decoded("it is abcdefgh\\\nijklmnop"), "abcdefghijklmnop\0");
    }

    #[test]
    fn short_words_of_wrapped_lines_are_not() {
        assert_eq!(decoded("some words and\nsome more"), "");
        assert_eq!(decoded("a paragraph-of-words\n\nanother-paragraph"), "");
    }
}
