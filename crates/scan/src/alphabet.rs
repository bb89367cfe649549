//! Sets of ASCII characters, and what a text made of them looks like.

/// Some of the 128 ASCII characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alphabet(u128);

impl Alphabet {
    const fn of(characters: &str) -> Self {
        let bytes = characters.as_bytes();
        let mut set = 0;
        let mut index = 0;
        while index < bytes.len() {
            set |= 1 << bytes[index];
            index += 1;
        }
        Self(set)
    }

    const fn and(self, characters: &str) -> Self {
        Self(self.0 | Self::of(characters).0)
    }

    /// Whether the byte is one of them.
    #[inline]
    pub(crate) const fn has(self, byte: u8) -> bool {
        byte < 128 && self.0 >> byte & 1 == 1
    }
}

pub(crate) const DIGIT: Alphabet = Alphabet::of("0123456789");
pub(crate) const LOWER: Alphabet = Alphabet::of("abcdefghijklmnopqrstuvwxyz");
pub(crate) const UPPER: Alphabet = Alphabet::of("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
pub(crate) const HEX: Alphabet = DIGIT.and("abcdefABCDEF");
pub(crate) const LOWER_ALNUM: Alphabet = LOWER.and("0123456789");
pub(crate) const UPPER_ALNUM: Alphabet = UPPER.and("0123456789");
pub(crate) const ALNUM: Alphabet = LOWER_ALNUM.and("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
pub(crate) const WORD: Alphabet = ALNUM.and("_");
pub(crate) const SLUG: Alphabet = LOWER_ALNUM.and("-_");
pub(crate) const URL: Alphabet = ALNUM.and("-_");
pub(crate) const URL_EQUALS: Alphabet = URL.and("=");
/// URL's signs and those of base 64, as services name them together.
pub(crate) const TOKEN: Alphabet = URL_EQUALS.and("+/");
/// Two hexadecimal numbers.
pub(crate) const HEX_PAIR: Alphabet = HEX.and(":");
pub(crate) const DOTTED: Alphabet = URL.and(".~");
pub(crate) const DOTTED_EQUALS: Alphabet = URL_EQUALS.and(".");
pub(crate) const PATH: Alphabet = URL.and("/");
pub(crate) const BASE64: Alphabet = ALNUM.and("+/");
pub(crate) const QUERY: Alphabet = BASE64.and("%");
pub(crate) const BECH32: Alphabet = Alphabet::of("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L");
pub(crate) const BECH32_LOWER: Alphabet = Alphabet::of("qpzry9x8gf2tvdw0s3jn54khce6mua7l");

/// Bits that each byte of the text says, by how often each value stands in it (Shannon). A text of
/// one sign repeated has 0, a random one of 16 hexadecimal digits about 3.2.
pub(crate) fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let all = bytes.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / all;
            -share * share.log2()
        })
        .sum()
}

/// Which classes of characters stand in a text, and how often one follows another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mixture {
    pub(crate) lower: usize,
    pub(crate) upper: usize,
    pub(crate) digits: usize,
    pub(crate) others: usize,
    /// Places where a letter stands beside a digit, or a capital follows a small letter.
    pub(crate) changes: usize,
}

impl Mixture {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut mixture = Self::default();
        for byte in bytes {
            match byte {
                b'a'..=b'z' => mixture.lower += 1,
                b'A'..=b'Z' => mixture.upper += 1,
                b'0'..=b'9' => mixture.digits += 1,
                _ => mixture.others += 1,
            }
        }
        mixture.changes = bytes
            .windows(2)
            .filter(|pair| changes(pair[0], pair[1]))
            .count();
        mixture
    }

    /// How many of the classes stand in it: 0 to 4.
    pub(crate) fn classes(self) -> usize {
        [self.lower, self.upper, self.digits, self.others]
            .iter()
            .filter(|count| **count > 0)
            .count()
    }
}

fn changes(one: u8, next: u8) -> bool {
    let letters = one.is_ascii_alphabetic() && next.is_ascii_alphabetic();
    if letters {
        one.is_ascii_lowercase() && next.is_ascii_uppercase()
    } else {
        (one.is_ascii_digit() && next.is_ascii_alphabetic())
            || (one.is_ascii_alphabetic() && next.is_ascii_digit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_have_what_their_names_say() {
        assert!(ALNUM.has(b'Z') && ALNUM.has(b'0') && !ALNUM.has(b'_'));
        assert!(HEX.has(b'F') && !HEX.has(b'g'));
        assert!(!URL.has(200));
    }

    #[test]
    fn a_repeated_sign_says_nothing_and_a_mixture_much() {
        assert!(entropy(b"aaaaaaaa") < 0.01);
        assert!((entropy(b"abcdefgh") - 3.0).abs() < 0.01);
        let mixture = Mixture::of(b"aB3dE-");
        assert_eq!((mixture.classes(), mixture.changes), (4, 4));
    }
}
