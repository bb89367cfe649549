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
        // A group may end in a sign of its own, `ghp_`; single letters are followed by others' signs.
        let letters = letters(&bytes[at..]);
        let signs = bytes[at + letters..]
            .iter()
            .take(1)
            .filter(|b| letters > 1 && matches!(b, b'_' | b'-' | b'.' | b':'))
            .count();
        let word = bytes[at..]
            .iter()
            .take(LONGEST_GROUP + 1)
            .take_while(|b| is_of_token(**b))
            .count();
        let found = [letters, letters + signs, word]
            .into_iter()
            .find_map(|size| groups(bytes, at, size));
        match found {
            Some(groups) => {
                put_together(&groups, &mut out);
                at = groups.last().map_or(at + letters, |last| last.end);
            }
            None => at += letters,
        }
    }
    out.finish(budget)
}

/// A letter, a digit, or a sign that tokens have.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'_' | b'-' | b'.' | b':' | b'~' | b'+' | b'/' | b'=')
}

/// Longer ones are put together in one way only.
const LONGEST_SPELLED: usize = 600;

/// A word before or after may have the length of a group by chance: without up to two of them at each
/// end, too.
fn put_together(groups: &[Range<usize>], out: &mut Builder<'_>) {
    let whole: usize = groups.iter().map(ExactSizeIterator::len).sum();
    let most = if whole <= LONGEST_SPELLED { 2 } else { 0 };
    for first in 0..=most {
        for last in 0..=most {
            if first + last < groups.len() {
                for group in &groups[first..groups.len() - last] {
                    out.copy(group.clone());
                }
                out.gap();
            }
        }
    }
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
    let gap = bytes.get(gap_start..)?;
    let gap = &gap[..gap
        .iter()
        .take(LONGEST_GAP + 1)
        .take_while(|b| !b.is_ascii_alphanumeric() && **b != 0)
        .count()];
    if gap.is_empty() || gap.len() > LONGEST_GAP {
        return None;
    }
    let second = gap_start + gap.len();
    if !bytes
        .get(second..second + size)
        .is_some_and(|group| is_group(group, gap))
    {
        return None;
    }
    let mut groups: Vec<Range<usize>> = std::iter::once(start..gap_start).collect();
    let mut at = gap_start;
    while bytes[at..].starts_with(gap) {
        let next = at + gap.len();
        let whole = bytes
            .get(next..next + size)
            .filter(|group| is_group(group, gap));
        match whole {
            Some(_) if bytes[next + size..].starts_with(gap) || !more(bytes, next + size) => {
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

/// Letters and digits, with few signs among them; of one sign, any.
fn is_group(group: &[u8], gap: &[u8]) -> bool {
    let signs = group.iter().filter(|b| !b.is_ascii_alphanumeric()).count();
    let own = |byte: &u8| byte.is_ascii_graphic() && (group.len() == 1 || !gap.contains(byte));
    group.iter().all(own) && (group.len() == 1 || signs * 4 <= group.len())
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
        // Of base64 every long word has some.
        let foreign = |b: &u8| b.is_ascii_punctuation() && !matches!(b, b'+' | b'/' | b'=');
        let strewn = || word.iter().filter(|b| foreign(b)).count();
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
        for text in [
            "it is abcd efgh ijkl mn.",
            "it is abcd-efgh-ijkl-mn.",
            "with abcd efgh ijkl mn as",
        ] {
            let joined = decoded(decode, text);
            assert!(joined.contains("abcdefghijklmn\0"), "{text}: {joined}");
        }
        assert!(decoded(decode, "it is abc_ efgh ijkl mnop").contains("abc_efghijklmnop"));
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
