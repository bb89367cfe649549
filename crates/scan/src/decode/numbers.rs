//! Lists of numbers, each a character: hexadecimal, decimal, octal, binary.

use std::ops::Range;

use crate::view::{Budget, Builder, READABLE, View};

/// Signs between two numbers of one list, at most.
const LONGEST_GAP: usize = 4;

pub(super) fn decode(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    let bytes = &view.bytes;
    let mut out = Builder::new(view);
    let mut list: Vec<Range<usize>> = Vec::new();
    let mut reached = 0;
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_alphanumeric() {
            at += 1;
            continue;
        }
        let end = at
            + bytes[at..]
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric())
                .count();
        let goes_on =
            list.is_empty() || at - reached <= LONGEST_GAP && !bytes[reached..at].contains(&0);
        if !goes_on {
            read(bytes, &list, &mut out);
            list.clear();
        }
        match number(bytes, at..end) {
            Some(digits) => list.push(digits),
            None if says_a_number(&bytes[at..end]) => {}
            None => {
                read(bytes, &list, &mut out);
                list.clear();
            }
        }
        at = end;
        reached = end;
    }
    read(bytes, &list, &mut out);
    out.finish(budget)
}

/// `U+0041` and `\u 0041` are one number with a letter before it, `chr(65)` one with a word.
fn says_a_number(word: &[u8]) -> bool {
    let words = ["u", "x", "h", "chr", "char", "fromcharcode"];
    words
        .iter()
        .any(|one| word.eq_ignore_ascii_case(one.as_bytes()))
}

/// The digits of what may be a number, without what says its base.
fn number(bytes: &[u8], word: Range<usize>) -> Option<Range<usize>> {
    let text = &bytes[word.clone()];
    let prefix = match text {
        [b'0', b'x' | b'X' | b'o' | b'b', ..] if text.len() > 2 => 2,
        [b'x' | b'u' | b'U', ..] => 1,
        _ => 0,
    };
    let digits = &text[prefix..];
    let short = (1..=4).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let binary = (6..=8).contains(&digits.len()) && digits.iter().all(|d| matches!(d, b'0' | b'1'));
    (short || binary).then(|| word.start + prefix..word.end)
}

/// Reads a list in every base that all its numbers could be of.
fn read(bytes: &[u8], list: &[Range<usize>], out: &mut Builder<'_>) {
    if list.len() < READABLE {
        return;
    }
    for base in [16, 10, 8, 2] {
        let values: Vec<Option<u8>> = list
            .iter()
            .map(|digits| character(&bytes[digits.clone()], base))
            .collect();
        let readable = values.iter().flatten().count();
        if readable < READABLE || readable * 4 < values.len() * 3 {
            continue;
        }
        for (digits, value) in list.iter().zip(values) {
            match value {
                Some(value) => out.push(value, digits.clone()),
                None => out.gap(),
            }
        }
        out.gap();
    }
}

fn character(digits: &[u8], base: u32) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    let value = u32::from_str_radix(text, base).ok()?;
    let long_enough = match base {
        2 => digits.len() >= 6,
        _ => digits.len() >= 2,
    };
    let value = u8::try_from(value).ok()?;
    (long_enough && matches!(value, b' '..=b'~' | b'\n' | b'\t')).then_some(value)
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
    fn lists_are_read_in_every_base_and_spelling() {
        for text in [
            "104 105 100 100 101 110 32 119 111 114 100",
            "[104, 105, 100, 100, 101, 110, 32, 119, 111, 114, 100]",
            "68 69 64 64 65 6e 20 77 6f 72 64",
            "68:69:64:64:65:6e:20:77:6f:72:64",
            "0x68, 0x69, 0x64, 0x64, 0x65, 0x6e, 0x20, 0x77, 0x6f, 0x72, 0x64",
            "x68 x69 x64 x64 x65 x6E x20 x77 x6F x72 x64",
            "U+0068 U+0069 U+0064 U+0064 U+0065 U+006E U+0020 U+0077 U+006F U+0072 U+0064",
            "chr(104)+chr(105)+chr(100)+chr(100)+chr(101)+chr(110)+chr(32)+chr(119)+chr(111)+chr(114)+chr(100)",
            "String.fromCharCode(104,105,100,100,101,110,32,119,111,114,100)",
            "150 151 144 144 145 156 040 167 157 162 144",
            "01101000 01101001 01100100 01100100 01100101 01101110 00100000 01110111 01101111 01110010 01100100",
        ] {
            assert!(
                decoded(text).contains("hidden word"),
                "{text}: {}",
                decoded(text)
            );
        }
    }

    #[test]
    fn a_date_and_a_table_are_no_list() {
        assert_eq!(decoded("2026-11-26 04:54, 12 3 4"), "");
        assert_eq!(decoded("a be cafe and dad 12 by the sea"), "");
    }
}
