//! What was taken apart letter by letter, or in groups, or has signs strewn in.

use std::ops::Range;

use crate::view::{Budget, Builder, View};

/// Letters of a group, at most; longer ones are words and lines.
const LONGEST_GROUP: usize = 8;

/// Signs between two groups, at most.
const LONGEST_GAP: usize = 6;

/// Groups of one letter in a row, at least.
const LEAST_LETTERS: usize = 10;

/// Letters of several groups together, at least.
const LEAST_GROUPED: usize = 12;

/// Groups of the same length with the same signs between each two, put together.
pub(super) fn decode(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    let bytes = &view.bytes;
    let mut out = Builder::new(view);
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let size = letters(&bytes[at..]);
        match groups(bytes, at, size) {
            Some(groups) => {
                for group in &groups {
                    out.copy(group.clone());
                }
                out.gap();
                at = groups.last().map_or(at + size, |last| last.end);
            }
            None => at += size,
        }
    }
    out.finish(budget)
}

fn letters(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric())
        .count()
}

fn groups(bytes: &[u8], start: usize, size: usize) -> Option<Vec<Range<usize>>> {
    if size > LONGEST_GROUP {
        return None;
    }
    let gap_start = start + size;
    let gap = &bytes[gap_start..];
    let gap = &gap[..gap
        .iter()
        .take(LONGEST_GAP + 1)
        .take_while(|b| !b.is_ascii_alphanumeric() && **b != 0)
        .count()];
    if gap.is_empty() || gap.len() > LONGEST_GAP {
        return None;
    }
    let mut groups = vec![start..gap_start];
    let mut at = gap_start;
    while bytes[at..].starts_with(gap) {
        let next = at + gap.len();
        let whole = bytes
            .get(next..next + size)
            .filter(|group| is_group(group, gap));
        match whole {
            Some(_)
                if size > 1 || bytes[next + size..].starts_with(gap) || !more(bytes, next + 1) =>
            {
                groups.push(next..next + size);
                at = next + size;
            }
            Some(_) | None => {
                let rest = letters(&bytes[next..]);
                if rest > 0 && rest < size {
                    groups.push(next..next + rest);
                }
                break;
            }
        }
    }
    let whole: usize = groups.iter().map(ExactSizeIterator::len).sum();
    let enough = if size == 1 {
        groups.len() >= LEAST_LETTERS
    } else {
        groups.len() >= 3 && whole >= LEAST_GROUPED
    };
    enough.then_some(groups)
}

fn is_group(group: &[u8], gap: &[u8]) -> bool {
    let blank_or_gap =
        |byte: &u8| !byte.is_ascii_graphic() || (group.len() > 1 && gap.contains(byte));
    !group.iter().any(blank_or_gap)
}

fn more(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(u8::is_ascii_alphanumeric)
}

/// Single letters with whatever signs between them, and words with several signs strewn in: letters
/// and digits only.
pub(super) fn squeeze(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    let bytes = &view.bytes;
    let mut out = Builder::new(view);
    let mut run: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let size = letters(&bytes[at..]);
        let near = run
            .last()
            .is_none_or(|last| at - last <= LONGEST_GAP && !bytes[*last..at].contains(&0));
        if size > 1 || !near {
            emit(&mut run, &mut out);
        }
        if size == 1 {
            run.push(at);
        }
        at += size;
    }
    emit(&mut run, &mut out);
    words(bytes, &mut out);
    out.finish(budget)
}

fn emit(run: &mut Vec<usize>, out: &mut Builder<'_>) {
    if run.len() >= LEAST_LETTERS {
        for at in run.iter() {
            out.copy(*at..*at + 1);
        }
        out.gap();
    }
    run.clear();
}

/// Words of these lengths with at least so many strewn signs are squeezed.
const WORD: Range<usize> = 20..400;
const STREWN: usize = 3;

fn words(bytes: &[u8], out: &mut Builder<'_>) {
    let mut at = 0;
    for word in bytes.split(|b| b.is_ascii_whitespace() || *b == 0) {
        let strewn = || word.iter().filter(|b| b.is_ascii_punctuation()).count();
        if WORD.contains(&word.len()) && strewn() >= STREWN {
            for (offset, _) in word
                .iter()
                .enumerate()
                .filter(|(_, b)| b.is_ascii_alphanumeric())
            {
                out.copy(at + offset..at + offset + 1);
            }
            out.gap();
        }
        at += word.len() + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Decoder = fn(&View<'_>, &mut Budget) -> Option<View<'static>>;

    fn decoded(decoder: Decoder, text: &str) -> String {
        let view = View::of(text.as_bytes());
        decoder(&view, &mut Budget::of(10_000)).map_or(String::new(), |view| {
            String::from_utf8_lossy(&view.bytes).into_owned()
        })
    }

    #[test]
    fn letters_and_groups_are_put_together() {
        for text in [
            "s k - a b c d e f g h",
            "s, k, -, a, b, c, d, e, f, g, h",
            "'s', 'k', '-', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'",
            "s-k---a-b-c-d-e-f-g-h",
            "s|k|-|a|b|c|d|e|f|g|h",
        ] {
            let joined = decoded(decode, text);
            assert!(joined.contains("sk-abcdefgh"), "{text}: {joined}");
        }
        assert_eq!(
            decoded(decode, "it is abcd efgh ijkl mn."),
            "abcdefghijklmn\0"
        );
        assert_eq!(
            decoded(decode, "it is abcd-efgh-ijkl-mn."),
            "abcdefghijklmn\0"
        );
    }

    #[test]
    fn signs_between_letters_do_not_matter() {
        assert_eq!(decoded(squeeze, "a.b-c d_e  f:g/h*i,j!k"), "abcdefghijk\0");
        assert_eq!(
            decoded(squeeze, "abc.def-ghi_jkl+mno*pqr"),
            "abcdefghijklmnopqr\0"
        );
    }

    #[test]
    fn ordinary_sentences_give_nothing() {
        assert_eq!(
            decoded(squeeze, "This is a sentence, with some-words in it."),
            ""
        );
        assert_eq!(
            decoded(decode, "A sentence with different words in it, as usual."),
            ""
        );
    }
}
