//! Escapes of URLs (RFC 3986), HTML, JSON, C and quoted-printable texts (RFC 2045), all at once:
//! whoever hides something need not be consistent.

use std::ops::Range;

use crate::view::{Budget, Builder, View};

/// What an escape stands for.
enum Meaning {
    /// A character.
    Sign(char),
    /// Nothing: a line that goes on.
    Nothing,
}

pub(super) fn decode(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    let bytes = &view.bytes;
    let mut out = Builder::new(view);
    let mut at = 0;
    let mut copied = 0;
    let mut last = 0;
    while at < bytes.len() {
        if !matches!(bytes[at], b'%' | b'&' | b'\\' | b'=') {
            at += 1;
            continue;
        }
        let Some((meaning, len)) = escape(&bytes[at..]) else {
            at += 1;
            continue;
        };
        around(&mut out, copied.max(at.saturating_sub(AROUND)), at, last);
        let from = at..at + len;
        if let Meaning::Sign(sign) = meaning {
            let mut buffer = [0; 4];
            for byte in sign.encode_utf8(&mut buffer).bytes() {
                out.push(byte, from.clone());
            }
        }
        at += len;
        copied = at;
        last = at;
    }
    if last == 0 {
        return None;
    }
    let end = bytes.len().min(last + AROUND);
    out.copy(last..end);
    out.finish(budget)
}

/// So much before and after an escape belongs to it.
const AROUND: usize = 512;

/// Copies what stands between two escapes, or its two ends if that is long.
fn around(out: &mut Builder<'_>, from: usize, to: usize, last: usize) {
    if from > last && last > 0 {
        let end = from.min(last + AROUND);
        out.copy(last..end);
        if end < from {
            out.gap();
        }
    } else if from > last {
        out.gap();
    }
    out.copy(from..to);
}

fn escape(bytes: &[u8]) -> Option<(Meaning, usize)> {
    match bytes {
        [b'%', b'u' | b'U', ..] => {
            unit(bytes, 2..6, 16).map(|(sign, len)| (Meaning::Sign(sign), len))
        }
        [b'%', ..] => unit(bytes, 1..3, 16).map(|(sign, len)| (Meaning::Sign(sign), len)),
        [b'=', b'\r', b'\n', ..] => Some((Meaning::Nothing, 3)),
        [b'=', b'\n', ..] => Some((Meaning::Nothing, 2)),
        [b'=', high, low, ..] if is_upper_hex(*high) && is_upper_hex(*low) => {
            unit(bytes, 1..3, 16).map(|(sign, len)| (Meaning::Sign(sign), len))
        }
        [b'&', ..] => entity(bytes).map(|(sign, len)| (Meaning::Sign(sign), len)),
        [b'\\', rest @ ..] => backslash(bytes, rest),
        _ => None,
    }
}

fn is_upper_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte)
}

/// A number of exactly these digits.
fn unit(bytes: &[u8], digits: Range<usize>, base: u32) -> Option<(char, usize)> {
    let end = digits.end;
    let text = std::str::from_utf8(bytes.get(digits)?).ok()?;
    if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let sign = char::from_u32(u32::from_str_radix(text, base).ok()?)?;
    Some((sign, end))
}

fn backslash(bytes: &[u8], rest: &[u8]) -> Option<(Meaning, usize)> {
    let sign = |sign: char| Some((Meaning::Sign(sign), 2));
    let number = |digits, base| unit(bytes, digits, base).map(|(s, len)| (Meaning::Sign(s), len));
    match rest.first()? {
        b'x' | b'X' => number(2..4, 16),
        b'u' if rest.get(1) == Some(&b'{') => braced(bytes),
        b'u' => number(2..6, 16),
        b'U' => number(2..10, 16),
        b'0'..=b'3' => number(1..4, 8),
        b'n' | b'r' => sign('\n'),
        b't' | b'f' | b'b' => sign('\t'),
        b'\n' => Some((Meaning::Nothing, 2)),
        b'"' | b'\'' | b'/' | b'\\' | b'`' | b'-' | b'_' | b'.' | b'=' | b':' | b'&' => {
            sign(char::from(*rest.first()?))
        }
        _ => None,
    }
}

/// `\u{41}`.
fn braced(bytes: &[u8]) -> Option<(Meaning, usize)> {
    let digits = bytes.get(3..)?.iter().take(7).position(|b| *b == b'}')?;
    let (sign, len) = unit(bytes, 3..3 + digits, 16)?;
    Some((Meaning::Sign(sign), len + 1))
}

/// `&#65;`, `&#x41;`, `&amp;`; the semicolon may be missing after a number.
fn entity(bytes: &[u8]) -> Option<(char, usize)> {
    let (digits, base) = match bytes {
        [b'&', b'#', b'x' | b'X', ..] => (3, 16),
        [b'&', b'#', ..] => (2, 10),
        _ => return named(bytes),
    };
    let is_digit = |b: &&u8| {
        if base == 16 {
            b.is_ascii_hexdigit()
        } else {
            b.is_ascii_digit()
        }
    };
    let len = bytes[digits..].iter().take(8).take_while(is_digit).count();
    let text = std::str::from_utf8(&bytes[digits..digits + len]).ok()?;
    let sign = char::from_u32(u32::from_str_radix(text, base).ok()?)?;
    let end = digits + len;
    Some((sign, end + usize::from(bytes.get(end) == Some(&b';'))))
}

/// The names that a secret or an address could be written with; all the others are letters of
/// languages.
const NAMES: [(&str, char); 35] = [
    ("amp;", '&'),
    ("lt;", '<'),
    ("gt;", '>'),
    ("quot;", '"'),
    ("apos;", '\''),
    ("nbsp;", ' '),
    ("colon;", ':'),
    ("sol;", '/'),
    ("bsol;", '\\'),
    ("period;", '.'),
    ("comma;", ','),
    ("lowbar;", '_'),
    ("UnderBar;", '_'),
    ("dash;", '-'),
    ("hyphen;", '-'),
    ("num;", '#'),
    ("equals;", '='),
    ("plus;", '+'),
    ("quest;", '?'),
    ("percnt;", '%'),
    ("commat;", '@'),
    ("semi;", ';'),
    ("lpar;", '('),
    ("rpar;", ')'),
    ("lsqb;", '['),
    ("rsqb;", ']'),
    ("lbrack;", '['),
    ("rbrack;", ']'),
    ("excl;", '!'),
    ("ast;", '*'),
    ("dollar;", '$'),
    ("Tab;", '\t'),
    ("NewLine;", '\n'),
    ("ZeroWidthSpace;", '\u{200b}'),
    ("shy;", '\u{ad}'),
];

fn named(bytes: &[u8]) -> Option<(char, usize)> {
    let rest = &bytes[1..];
    let (name, sign) = NAMES
        .iter()
        .find(|(name, _)| rest.starts_with(name.as_bytes()))?;
    Some((*sign, 1 + name.len()))
}

/// The text of an attribute or of an address, with HTML's escapes read.
pub(crate) fn html(text: &str) -> String {
    let mut read = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        read.push_str(&rest[..at]);
        rest = &rest[at..];
        match entity(rest.as_bytes()) {
            Some((sign, len)) => {
                read.push(sign);
                rest = &rest[len..];
            }
            None => {
                read.push('&');
                rest = &rest[1..];
            }
        }
    }
    read.push_str(rest);
    read
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
    fn every_kind_of_escape_is_read() {
        for text in [
            "%68id%64en",
            "%u0068idden",
            "&#104;i&#x64;&#100en",
            "\\u0068i\\x64\\144en",
            "\\u{68}idden",
            "\\U00000068idden",
            "=68idd=\nen",
            "hi\\\ndden",
        ] {
            assert_eq!(decoded(text), "hidden", "{text}");
        }
        assert_eq!(decoded("a\\nb&lowbar;&period;c"), "a\nb_.c");
    }

    #[test]
    fn what_is_far_from_an_escape_is_left_out() {
        let text = format!("{}near%41near{}", "x".repeat(2_000), "y".repeat(2_000));
        let read = decoded(&text);
        assert!(read.contains("nearAnear"));
        assert!(read.len() < 1_100, "{}", read.len());
        let two = format!("%41{}%42", "z".repeat(3_000));
        assert_eq!(decoded(&two).len(), 1 + 512 + 1 + 512 + 1);
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(decoded("100% of it & more \\q =zz"), "");
        assert_eq!(html("a&amp;b &nonsense; &"), "a&b &nonsense; &");
    }
}
