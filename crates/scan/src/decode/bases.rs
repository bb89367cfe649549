//! Base 64, 32 and 16 (RFC 4648), in both alphabets of 64, with or without padding, and wherever
//! in a longer run what was encoded begins.

use crate::view::{Budget, Builder, READABLE, View, push_readable};

/// Not a digit of the base.
const NONE: u8 = 255;

/// A line of this length that goes on is one that was broken by whoever encoded it.
const BROKEN_LINE: usize = 40;

/// Eight bytes in base 64 are eleven digits; a few more, since they need not begin where a
/// group does.
const LEAST_64: usize = 12;
const LEAST_32: usize = 13;
const LEAST_16: usize = 16;
const LEAST_2: usize = 64;

/// A label of a name that goes on after a dot: names have at most 63 signs between two dots.
const LABEL: usize = 24;

const fn values(alphabets: &[&str]) -> [u8; 256] {
    let mut table = [NONE; 256];
    let mut which = 0;
    while which < alphabets.len() {
        let digits = alphabets[which].as_bytes();
        let mut index = 0;
        while index < digits.len() {
            table[digits[index] as usize] = index as u8;
            index += 1;
        }
        which += 1;
    }
    table
}

static VALUES_64: [u8; 256] = values(&[
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
]);
static VALUES_32: [u8; 256] = values(&[
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
    "abcdefghijklmnopqrstuvwxyz234567",
]);
static VALUES_16: [u8; 256] = values(&["0123456789ABCDEF", "0123456789abcdef"]);
static VALUES_2: [u8; 256] = values(&["01"]);

pub(super) fn base64(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    decode(view, &VALUES_64, 6, LEAST_64, budget)
}

pub(super) fn base32(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    decode(view, &VALUES_32, 5, LEAST_32, budget)
}

pub(super) fn hexadecimal(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    decode(view, &VALUES_16, 4, LEAST_16, budget)
}

/// Zeros and ones without anything between them.
pub(super) fn binary(view: &View<'_>, budget: &mut Budget) -> Option<View<'static>> {
    decode(view, &VALUES_2, 1, LEAST_2, budget)
}

fn decode(
    view: &View<'_>,
    values: &[u8; 256],
    bits: usize,
    least: usize,
    budget: &mut Budget,
) -> Option<View<'static>> {
    let bytes = &view.bytes;
    let mut out = Builder::new(view);
    let mut at = 0;
    let mut run = Run::default();
    while at < bytes.len() {
        let digits = bytes[at..]
            .iter()
            .take_while(|byte| values[usize::from(**byte)] != NONE)
            .count();
        if digits < least {
            at += digits + 1;
            continue;
        }
        at = run.collect(bytes, at, values, bits);
        run.decode(bits, &mut out);
    }
    out.finish(budget)
}

/// Digits that follow one another.
#[derive(Default)]
struct Run {
    digits: Vec<u8>,
    places: Vec<usize>,
    decoded: Vec<u8>,
}

impl Run {
    /// Takes the run that begins here; where it ends.
    fn collect(&mut self, bytes: &[u8], start: usize, values: &[u8; 256], bits: usize) -> usize {
        self.digits.clear();
        self.places.clear();
        let mut at = start;
        let mut line = at;
        loop {
            while let Some(byte) = bytes.get(at)
                && values[usize::from(*byte)] != NONE
            {
                self.digits.push(values[usize::from(*byte)]);
                self.places.push(at);
                at += 1;
            }
            let next = bytes.get(at + 1).map_or(NONE, |b| values[usize::from(*b)]);
            if bits < 6 && bytes.get(at) == Some(&b'.') && at - line >= LABEL && next != NONE {
                at += 1;
                line = at;
                continue;
            }
            match next_line(bytes, at) {
                Some(next)
                    if at - line >= BROKEN_LINE
                        && bytes
                            .get(next)
                            .is_some_and(|b| values[usize::from(*b)] != NONE) =>
                {
                    at = next;
                    line = next;
                }
                Some(_) | None => return at,
            }
        }
    }

    /// Decodes it from each of the digits that a group could begin with.
    fn decode(&mut self, bits: usize, out: &mut Builder<'_>) {
        // Digits of a group: as many as give whole bytes.
        let group = match bits {
            6 => 4,
            5 | 1 => 8,
            _ => 2,
        };
        for skipped in 0..group {
            self.decoded.clear();
            let (mut number, mut have) = (0_u32, 0);
            for digit in self.digits.iter().skip(skipped) {
                number = number << bits | u32::from(*digit);
                have += bits;
                if have >= 8 {
                    have -= 8;
                    self.decoded.push((number >> have) as u8);
                }
            }
            if self.decoded.len() >= READABLE {
                let places = &self.places;
                push_readable(&self.decoded, out, |byte| {
                    let first = skipped + byte * 8 / bits;
                    let last = skipped + (byte * 8 + 7) / bits;
                    places[first]..places[last] + 1
                });
            }
        }
    }
}

/// Where the next line begins, behind blanks, if this one ends here.
fn next_line(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let rest = rest
        .strip_prefix(b"\r")
        .unwrap_or(rest)
        .strip_prefix(b"\n")?;
    let blanks = rest
        .iter()
        .take(16)
        .take_while(|b| matches!(b, b' ' | b'\t'));
    Some(bytes.len() - rest.len() + blanks.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(decoder: fn(&View<'_>, &mut Budget) -> Option<View<'static>>, text: &str) -> String {
        let view = View::of(text.as_bytes());
        let decoded = decoder(&view, &mut Budget::of(10_000));
        decoded.map_or(String::new(), |view| {
            String::from_utf8_lossy(&view.bytes).into_owned()
        })
    }

    #[test]
    fn what_was_encoded_is_found_wherever_it_begins() {
        for text in [
            "c29tZXRoaW5nIGhpZGRlbg==",
            "x c29tZXRoaW5nIGhpZGRlbg x",
            "AAc29tZXRoaW5nIGhpZGRlbg",
            "Zc29tZXRoaW5nIGhpZGRlbg",
        ] {
            assert!(decoded(base64, text).contains("something hidden"), "{text}");
        }
        assert!(decoded(base32, "ONXW2ZLUNBUW4ZZANBUWIZDFNY======").contains("something hidden"));
        assert!(decoded(base32, "onxw2zlunbuw4zzanbuwizdfny").contains("something hidden"));
        assert!(
            decoded(hexadecimal, "736F6d657468696e672068696464656e").contains("something hidden")
        );
        assert!(
            decoded(hexadecimal, "a736f6d657468696e672068696464656e").contains("something hidden")
        );
    }

    #[test]
    fn broken_lines_are_read_as_one() {
        let text = "c29tZXRoaW5nIGxvbmcgdGhhdCBnb2VzIG9uIGFu\r\n  ZCBvbiBhbmQgb24gYW5kIG9u";
        assert!(decoded(base64, text).contains("goes on and on"));
    }

    #[test]
    fn what_is_spread_over_the_labels_of_a_name_is_read_as_one() {
        let name = "736f6d657468696e672068696464656e2077697468.696e2061206e616d65.example.org";
        assert!(decoded(hexadecimal, name).contains("something hidden within a name"));
        let name = "onxw2zlunbuw4zzanbuwizdfnyqho2lunbuw.4idbebxgc3lf.example.org";
        assert!(decoded(base32, name).contains("something hidden within a name"));
    }

    #[test]
    fn zeros_and_ones_are_read() {
        let bits: String = "hidden word".bytes().map(|b| format!("{b:08b}")).collect();
        assert!(decoded(binary, &format!("x {bits} y")).contains("hidden word"));
        assert_eq!(decoded(binary, &"0".repeat(200)), "");
    }

    #[test]
    fn a_decoded_byte_comes_from_its_digits() {
        let view = View::of(b"--c29tZXRoaW5nIGhpZGRlbg");
        let view = base64(&view, &mut Budget::of(10_000)).expect("something was decoded");
        let at = view
            .bytes
            .windows(9)
            .position(|w| w == b"something")
            .expect("it is there");
        assert_eq!(view.origin(at..at + 9), 2..14);
    }

    #[test]
    fn ordinary_words_are_nothing() {
        let text = "internationalization of communications, straightforwardly";
        assert_eq!(decoded(base64, text), "");
        assert_eq!(decoded(base32, text), "");
    }
}
