//! Signs that look like others or like nothing: zero-width and other invisible ones, wide and
//! mathematical letters, letters of other alphabets that look Latin, and ASCII in tags and in
//! variation selectors, which nobody sees.

use crate::view::{Budget, Builder, View};

/// What a sign is to be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// As it is.
    Same,
    /// As this ASCII character.
    As(u8),
    /// Not at all, or, several in a row, as this byte that it carries.
    Hidden(Option<u8>),
}

/// So many hidden bytes in a row are a message.
const MESSAGE: usize = 4;

pub(super) fn decode(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    let bytes = &view.bytes;
    if bytes.is_ascii() {
        return None;
    }
    let mut out = Builder::new(view);
    let mut hidden: Vec<(usize, usize, u8)> = Vec::new();
    let mut changed = 0;
    let mut at = 0;
    for chunk in bytes.utf8_chunks() {
        for sign in chunk.valid().chars() {
            let end = at + sign.len_utf8();
            match read(sign) {
                Read::Same => {
                    changed += flush(&mut hidden, &mut out);
                    for byte in &bytes[at..end] {
                        out.push(*byte, at..end);
                    }
                }
                Read::As(byte) => {
                    changed += 1 + flush(&mut hidden, &mut out);
                    out.push(byte, at..end);
                }
                Read::Hidden(byte) => {
                    changed += 1;
                    hidden.extend(byte.map(|byte| (at, end, byte)));
                }
            }
            at = end;
        }
        flush(&mut hidden, &mut out);
        let invalid = chunk.invalid().len();
        if invalid > 0 {
            out.gap();
        }
        at += invalid;
    }
    flush(&mut hidden, &mut out);
    (changed > 0).then(|| out.finish(budget)).flatten()
}

/// Adds the hidden bytes if they are a message.
fn flush(hidden: &mut Vec<(usize, usize, u8)>, out: &mut Builder<'_>) -> usize {
    let message = hidden.len() >= MESSAGE;
    if message {
        out.gap();
        for (start, end, byte) in hidden.iter() {
            out.push(*byte, *start..*end);
        }
        out.gap();
    }
    let count = hidden.len();
    hidden.clear();
    if message { count } else { 0 }
}

/// How a sign is to be read.
pub(crate) fn read(sign: char) -> Read {
    if sign.is_ascii() {
        return Read::Same;
    }
    let code = u32::from(sign);
    match code {
        0xAD | 0x34F | 0x61C | 0x115F..=0x1160 | 0x17B4..=0x17B5 | 0x180B..=0x180F => {
            Read::Hidden(None)
        }
        0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F | 0x3164 | 0xFEFF | 0xFFA0 => {
            Read::Hidden(None)
        }
        0x300..=0x36F | 0x1AB0..=0x1AFF | 0x1DC0..=0x1DFF | 0x20D0..=0x20FF | 0xFE20..=0xFE2F => {
            Read::Hidden(None)
        }
        0xFE00..=0xFE0F => Read::Hidden(Some((code - 0xFE00) as u8)),
        0xE0100..=0xE01EF => Read::Hidden(Some((code - 0xE0100 + 16) as u8)),
        0xE0020..=0xE007E => Read::Hidden(Some((code - 0xE0000) as u8)),
        0xE0000..=0xE0FFF | 0x1D173..=0x1D17A => Read::Hidden(None),
        0xA0 | 0x1680 | 0x2000..=0x200A | 0x202F | 0x205F | 0x3000 => Read::As(b' '),
        0x2028 | 0x2029 | 0x85 => Read::As(b'\n'),
        0x2010..=0x2015 | 0x2043 | 0x2212 | 0xFE58 | 0xFE63 => Read::As(b'-'),
        0x2018..=0x201B | 0x2032 | 0x2BC => Read::As(b'\''),
        0x201C..=0x201F | 0x2033 => Read::As(b'"'),
        0x2024 | 0xB7 | 0x3002 | 0xFF61 => Read::As(b'.'),
        0x2044 | 0x2215 | 0x29F8 => Read::As(b'/'),
        0x2236 | 0xA789 | 0xFE55 => Read::As(b':'),
        0xFF01..=0xFF5E => Read::As((code - 0xFEE0) as u8),
        0x1D400..=0x1D6A3 => letter(code - 0x1D400),
        0x1D7CE..=0x1D7FF => Read::As(b'0' + ((code - 0x1D7CE) % 10) as u8),
        0x24B6..=0x24CF => Read::As(b'A' + (code - 0x24B6) as u8),
        0x24D0..=0x24E9 => Read::As(b'a' + (code - 0x24D0) as u8),
        0x2460..=0x2468 => Read::As(b'1' + (code - 0x2460) as u8),
        0x24EA => Read::As(b'0'),
        0x1F130..=0x1F149 => Read::As(b'A' + (code - 0x1F130) as u8),
        0x1F150..=0x1F169 => Read::As(b'A' + (code - 0x1F150) as u8),
        0x1F170..=0x1F189 => Read::As(b'A' + (code - 0x1F170) as u8),
        0x1F1E6..=0x1F1FF => Read::As(b'A' + (code - 0x1F1E6) as u8),
        _ => lookalike(sign),
    }
}

/// The mathematical alphabets: 52 letters each.
fn letter(offset: u32) -> Read {
    let place = (offset % 52) as u8;
    Read::As(if place < 26 {
        b'A' + place
    } else {
        b'a' + place - 26
    })
}

/// Letters of Greek and Cyrillic that look Latin, and the Latin ones that mathematics kept elsewhere.
fn lookalike(sign: char) -> Read {
    const PAIRS: [(&str, &str); 3] = [
        (
            "АВЕЅІЈКМНОРСТУХԌԚԜаеорсухіјѕԁһԛԝ",
            "ABESIJKMHOPCTYXGQWaeopcyxijsdhqw",
        ),
        ("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧονικαυρϲ", "ABEZHIKMNOPTYXovikaupc"),
        ("ℂℍℕℙℚℝℤℎℬℰℱℋℐℒℳℛℯℊℴℭℌℑℜℨ", "CHNPQRZhBEFHILMRegoCHIRZ"),
    ];
    for (others, latin) in PAIRS {
        if let Some(place) = others.chars().position(|other| other == sign) {
            return Read::As(latin.as_bytes()[place]);
        }
    }
    Read::Same
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
    fn what_looks_alike_is_read_alike() {
        for text in [
            "hi\u{200b}d\u{2060}den",
            "ｈｉｄｄｅｎ",
            "𝐡𝕚𝖽𝒹𝓮𝗻",
            "ⓗⓘⓓⓓⓔⓝ",
            "һіddеn",
            "h\u{301}id\u{fe0f}den",
        ] {
            assert_eq!(decoded(text), "hidden", "{text}");
        }
        assert_eq!(decoded("a\u{a0}b\u{2013}c\u{ff0e}d"), "a b-c.d");
    }

    #[test]
    fn messages_in_tags_and_selectors_are_read() {
        let tags: String = "hidden"
            .chars()
            .filter_map(|c| char::from_u32(0xE0000 + u32::from(c)))
            .collect();
        assert!(decoded(&format!("a{tags}b")).contains("hidden"));
        let selectors: String = "hidden"
            .chars()
            .filter_map(|c| char::from_u32(0xE0100 + u32::from(c) - 16))
            .collect();
        assert!(decoded(&format!("a{selectors}b")).contains("hidden"));
    }

    #[test]
    fn other_languages_are_left_alone() {
        assert_eq!(decoded("Grüße aus Köln, 日本語"), "");
    }

    #[test]
    fn the_pairs_of_lookalikes_are_pairs() {
        assert_eq!(read('Ԝ'), Read::As(b'W'));
        assert_eq!(read('ԝ'), Read::As(b'w'));
        assert_eq!(read('ϲ'), Read::As(b'c'));
        assert_eq!(read('ℨ'), Read::As(b'Z'));
    }
}
