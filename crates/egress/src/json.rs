//! Cutting pieces out of a JSON text so that it stays one: pure.

use std::ops::Range;

/// Where in a JSON text a byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    Inside,
}

/// The text with each range replaced by its label where it covers the inside of strings. What
/// it covers between strings is left, but for digits, which could spell it: they become `1`. The
/// ranges are in order and do not overlap; labels hold neither quotes nor backslashes.
pub(crate) fn without(text: &str, cuts: &[(Range<usize>, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut cuts = cuts.iter().peekable();
    let mut labelled = false;
    let mut place = Place::Outside;
    let mut at = 0;
    while at < text.len() {
        let end = unit(text, at, place);
        let piece = &text[at..end];
        while cuts.next_if(|(range, _)| range.end <= at).is_some() {
            labelled = false;
        }
        let cut = cuts.peek().filter(|(range, _)| range.start < end);
        match (place, piece, cut) {
            (Place::Outside, "\"", _) => {
                place = Place::Inside;
                out.push('"');
            }
            (Place::Inside, "\"", _) => {
                place = Place::Outside;
                out.push('"');
            }
            (_, _, None) => out.push_str(piece),
            (Place::Outside, _, Some(_)) => {
                let digit = piece.bytes().all(|b| b.is_ascii_digit());
                out.push_str(if digit { "1" } else { piece });
            }
            (Place::Inside, _, Some((_, label))) => {
                if !labelled {
                    out.push_str(label);
                    labelled = true;
                }
            }
        }
        at = end;
    }
    out
}

/// The end of the character or, inside a string, of the escape that begins here.
fn unit(text: &str, at: usize, place: Place) -> usize {
    let rest = &text.as_bytes()[at..];
    let length = match (place, rest) {
        // Two escapes that are one character.
        (
            Place::Inside,
            [
                b'\\',
                b'u',
                b'd' | b'D',
                b'8'..=b'9' | b'a'..=b'b' | b'A'..=b'B',
                ..,
            ],
        ) => 12,
        (Place::Inside, [b'\\', b'u', ..]) => 6,
        (Place::Inside, [b'\\', ..]) => 2,
        _ => 1,
    };
    text.ceil_char_boundary((at + length).min(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, ranges: &[(usize, usize)]) -> String {
        let cuts: Vec<_> = ranges
            .iter()
            .map(|r| (r.0..r.1, "[cut]".to_owned()))
            .collect();
        without(text, &cuts)
    }

    #[test]
    fn what_is_cut_out_leaves_the_rest_as_it_was() {
        let text = r#"{"a":"say hush now","b":1}"#;
        let at = text.find("hush").unwrap();
        assert_eq!(cut(text, &[(at, at + 4)]), r#"{"a":"say [cut] now","b":1}"#);
        assert_eq!(cut(text, &[]), text);
        let twice = r#"["hush hush"]"#;
        assert_eq!(cut(twice, &[(2, 6), (7, 11)]), r#"["[cut] [cut]"]"#);
    }

    #[test]
    fn wherever_it_is_cut_it_stays_json() {
        let text = r#"{"k\u00e9y":["a\"b\\","é€\n",-12.5e3,true,null,{"x":"\ud83d\ude00"}],"":0}"#;
        serde_json::from_str::<serde_json::Value>(text).unwrap();
        for start in 0..text.len() {
            for end in start + 1..=text.len() {
                let left = cut(text, &[(start, end)]);
                let read = serde_json::from_str::<serde_json::Value>(&left);
                assert!(read.is_ok(), "{start}..{end}: {left}");
                let inside = text.get(start..end).unwrap_or_default();
                if inside.len() > 3 && inside.bytes().all(|b| b.is_ascii_alphanumeric()) {
                    assert!(!left.contains(inside) || inside == "true" || inside == "null");
                }
            }
        }
    }
}
