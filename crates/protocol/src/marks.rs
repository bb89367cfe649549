//! How the vault has its secrets looked for by programs that must not have them.
//!
//! The vault turns each secret into a [`Mark`]: keyed digests of pieces of it. Whoever holds
//! the marks finds a secret in a text, and cannot read it out of them.
//!
//! A value is first [`normal`]: its ASCII letters, in lower case, and its digits; all else is
//! dropped. So blanks, dashes, zero-width signs or another case hide nothing. Then it is cut,
//! from its end, into windows that do **not** overlap. That is what keeps it closed: the
//! beginning of many tokens is public (`sk-ant-api03-`, the number of a bot), and of windows
//! that overlap one could guess the first and then every other, one letter at a time. Of each
//! window there is a SHA-256 with the key before it, and 16 bits of a rolling hash, by which a
//! scanner passes over almost all places of a text without a SHA-256.
//!
//! What can be guessed offline by whoever holds the marks: a window at a time, at no less than
//! its own entropy minus those 16 bits. For random letters and digits a window of 16 has 82 bits,
//! one of 24 hexadecimal digits 96. A value of 8 to 15 letters and digits is one window, so it is
//! as safe as a fast hash of it is: 8 random ones can be found in minutes, and a password that
//! somebody thought of can be found by trying words; [`Mark::is_guessable`] tells the owner. The
//! number of letters and digits of a value, and its name, stand in the mark as they are. The key is new at each start of
//! the vault, so that nothing can be computed beforehand and marks of two starts say nothing
//! of one another.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use crate::ids::{Digest, NoRandom, SecretName, hex, random, unhex};

/// Fewer letters and digits than this get no marks: every text would be full of them.
pub const SHORTEST: usize = 8;

/// Letters and digits in a window of a longer value.
pub const WINDOW: usize = 16;

/// The same for a value of hexadecimal digits only, which say less each.
pub const HEX_WINDOW: usize = 24;

/// Windows of one value; what is in front of them is found only together with all of it.
pub const MOST_WINDOWS: usize = 512;

/// The key of the marks, new at each start of the vault. No Debug that shows it, no Clone;
/// wiped when dropped.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub struct MarkKey([u8; 32]);

impl MarkKey {
    /// A new one, from the kernel.
    pub fn random() -> Result<Self, NoRandom> {
        random().map(Self)
    }

    /// One for tests and for marks that are not of a vault.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn copy(&self) -> Self {
        Self(self.0)
    }
}

impl Drop for MarkKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for MarkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MarkKey(..)")
    }
}

impl TryFrom<String> for MarkKey {
    type Error = &'static str;

    fn try_from(mut text: String) -> Result<Self, Self::Error> {
        let bytes = unhex(&text).map(Zeroizing::new);
        text.zeroize();
        bytes
            .and_then(|bytes| bytes.as_slice().try_into().ok().map(Self))
            .ok_or("a key of marks is 64 lower-case hexadecimal digits")
    }
}

impl Serialize for MarkKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(hex(&self.0)))
    }
}

/// What finding a mark means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// A secret is about to leave.
    Secret,
    /// A decoy was touched: nobody has a reason to use it.
    Honeytoken,
}

/// Whether finding one window is finding the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is: nothing else looks like it.
    Alone,
    /// It may be ordinary words, such as an address within a file of credentials; it counts only
    /// with the whole value around it.
    Within,
}

/// One window of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Letters and digits of the value before it.
    pub at: u32,
    /// Letters and digits in it.
    pub width: u32,
    /// Of the [`Rolling`] hash.
    pub filter: u16,
    /// Of [`Marks::digest`].
    pub digest: Digest,
    /// Whether it counts by itself.
    pub standing: Standing,
}

/// One secret, as it can be looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Of which secret.
    pub name: SecretName,
    /// What it means to find it.
    pub kind: MarkKind,
    /// Letters and digits of the whole value.
    pub length: u32,
    /// Of the whole value.
    pub whole: Digest,
    /// From the end of the value to its beginning; at least one.
    pub windows: Vec<Window>,
}

impl Mark {
    /// Whether somebody with the marks could find the value by trying: it has under
    /// [`WINDOW`] letters and digits.
    #[must_use]
    pub fn is_guessable(&self) -> bool {
        self.length < WINDOW as u32
    }
}

/// All that a scanner needs to find the secrets of a vault.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marks {
    key: MarkKey,
    marks: Vec<Mark>,
}

impl Marks {
    /// Marks that were made with this key.
    pub fn new(key: &MarkKey, marks: Vec<Mark>) -> Self {
        let key = key.copy();
        Self { key, marks }
    }

    /// Of a vault that holds nothing, and of no vault.
    pub fn none() -> Self {
        Self::new(&MarkKey([0; 32]), Vec::new())
    }

    /// Looks for this value as well, if it is long enough.
    pub fn add(&mut self, name: SecretName, value: &str) {
        let mark = marks_of(&self.key, name, MarkKind::Secret, value);
        self.marks.extend(mark);
    }

    /// The marks.
    pub fn iter(&self) -> impl Iterator<Item = &Mark> {
        self.marks.iter()
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The rolling hash that the windows' filters are of.
    pub fn rolling(&self) -> Rolling {
        Rolling::new(&self.key)
    }

    /// SHA-256 of the key and of letters and digits that are [`normal`] already.
    pub fn digest(&self, normal: &[u8]) -> Digest {
        digest(&self.key, normal)
    }
}

/// A value with too few letters and digits to be looked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it has {0} letters and digits, and with under {SHORTEST} it cannot be told from ordinary text: the leak scan will not find it; use a longer value"
)]
pub struct TooShort(pub usize);

/// The mark of one value.
pub fn marks_of(
    key: &MarkKey,
    name: SecretName,
    kind: MarkKind,
    value: &str,
) -> Result<Mark, TooShort> {
    let value = Zeroizing::new(value.bytes().filter_map(normal).collect::<Vec<u8>>());
    if value.len() < SHORTEST {
        return Err(TooShort(value.len()));
    }
    let rolling = Rolling::new(key);
    let width = width_for(&value);
    let mut windows: Vec<Window> = value
        .rchunks_exact(width)
        .take(MOST_WINDOWS)
        .enumerate()
        .map(|(index, window)| Window {
            at: (value.len() - (index + 1) * width) as u32,
            width: width as u32,
            filter: rolling.of(window),
            digest: digest(key, window),
            standing: standing(window),
        })
        .collect();
    if windows.iter().all(|w| w.standing == Standing::Within) {
        for window in &mut windows {
            window.standing = Standing::Alone;
        }
    }
    Ok(Mark {
        name,
        kind,
        length: value.len() as u32,
        whole: digest(key, &value),
        windows,
    })
}

/// A letter in lower case or a digit; `None` for all that is dropped.
#[must_use]
pub fn normal(byte: u8) -> Option<u8> {
    byte.is_ascii_alphanumeric()
        .then(|| byte.to_ascii_lowercase())
}

fn width_for(value: &[u8]) -> usize {
    let full = if value.iter().all(u8::is_ascii_hexdigit) {
        HEX_WINDOW
    } else {
        WINDOW
    };
    full.min(value.len())
}

/// Words have no digits in their middle; tokens do.
fn standing(window: &[u8]) -> Standing {
    let changes = window
        .windows(2)
        .filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit());
    if changes.count() >= 2 {
        Standing::Alone
    } else {
        Standing::Within
    }
}

/// The key is of a fixed length and known to whoever computes this, so that it needs no HMAC:
/// nothing is authenticated by it.
fn digest(key: &MarkKey, normal: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(key.0);
    hash.update(normal);
    Digest(hash.finalize().into())
}

/// A hash of a window that is moved on by one byte at a time: a polynomial over 64 bits whose
/// base and whose letters come from the key. Only its upper 16 bits are ever given away.
pub struct Rolling {
    letters: [u64; 256],
    base: u64,
}

impl Rolling {
    fn new(key: &MarkKey) -> Self {
        let number = |which: u16| {
            let mut hash = Sha256::new();
            hash.update(key.0);
            hash.update(b"rolling");
            hash.update(which.to_be_bytes());
            let bytes: [u8; 32] = hash.finalize().into();
            bytes
                .iter()
                .take(8)
                .fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let mut letters = [0; 256];
        for (which, letter) in (0..).zip(letters.iter_mut()) {
            *letter = number(which);
        }
        Self {
            letters,
            base: number(256) | 1,
        }
    }

    /// Of one window.
    pub fn of(&self, window: &[u8]) -> u16 {
        let hash = window.iter().fold(0, |hash, byte| self.push(hash, *byte));
        Self::filter(hash)
    }

    /// The hash of a window that is one byte longer.
    #[inline]
    pub fn push(&self, hash: u64, byte: u8) -> u64 {
        hash.wrapping_mul(self.base)
            .wrapping_add(self.letters[usize::from(byte)])
    }

    /// What the first byte of a window of `width` bytes has become in the hash after one more
    /// was pushed: a table by byte, to be subtracted.
    pub fn leaving(&self, width: u32) -> [u64; 256] {
        let power = self.base.wrapping_pow(width);
        self.letters.map(|letter| letter.wrapping_mul(power))
    }

    /// The bits that stand in a mark.
    #[inline]
    pub fn filter(hash: u64) -> u16 {
        (hash >> 48) as u16
    }
}

impl fmt::Debug for Rolling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rolling(..)")
    }
}

impl Drop for Rolling {
    fn drop(&mut self) {
        self.letters.zeroize();
        self.base.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> MarkKey {
        MarkKey::from_bytes([byte; 32])
    }

    fn mark(value: &str) -> Mark {
        marks_of(&key(7), name(), MarkKind::Secret, value).expect("long enough")
    }

    fn name() -> SecretName {
        SecretName::parse("telegram").expect("a name")
    }

    #[test]
    fn blanks_dashes_and_case_make_no_other_mark() {
        assert_eq!(mark("ab1-Cd2_ef3Gh4i5"), mark("AB1 CD2.EF3 GH4\u{200b}I5"));
    }

    #[test]
    fn windows_do_not_overlap_and_begin_at_the_end() {
        let mark = mark("x9q2w8e7r6t5y4u3i1o0p9a8s7d6f5g4h3j2k1l0z9");
        let places: Vec<_> = mark.windows.iter().map(|w| (w.at, w.width)).collect();
        assert_eq!(places, [(26, 16), (10, 16)]);
        assert_eq!(mark.length, 42);
    }

    #[test]
    fn hexadecimal_values_have_wider_windows_and_short_ones_a_single_one() {
        let hex = mark("0123456789abcdef0123456789abcdef");
        assert_eq!((hex.windows[0].at, hex.windows[0].width), (8, 24));
        let short = mark("k3y-w0rd-9");
        assert_eq!((short.windows[0].at, short.windows[0].width), (0, 8));
        assert!(short.is_guessable());
        assert!(!hex.is_guessable());
    }

    #[test]
    fn what_is_too_short_gets_no_mark_and_the_owner_a_reason() {
        let short = marks_of(&key(7), name(), MarkKind::Secret, "a-b-c-1-2-3-4!");
        assert_eq!(short, Err(TooShort(7)));
    }

    #[test]
    fn marks_of_two_keys_have_nothing_in_common() {
        let other = marks_of(&key(8), name(), MarkKind::Secret, "k3yw0rd9k3yw0rd9").expect("long");
        let this = mark("k3yw0rd9k3yw0rd9");
        assert_ne!(this.whole, other.whole);
        assert_ne!(this.windows[0].digest, other.windows[0].digest);
        assert_ne!(this.windows[0].filter, other.windows[0].filter);
    }

    #[test]
    fn ordinary_words_within_a_value_do_not_count_alone() {
        let mark = mark("https://accounts.example.com/login/by/name/k3yw0rd9a1b2");
        let standings: Vec<_> = mark.windows.iter().map(|w| w.standing).collect();
        assert_eq!(standings, [Standing::Alone, Standing::Within]);
        assert_eq!(
            marks_of(&key(7), name(), MarkKind::Secret, "only words are here")
                .expect("long enough")
                .windows[0]
                .standing,
            Standing::Alone
        );
    }

    #[test]
    fn the_rolling_hash_of_a_window_is_the_same_wherever_it_is() {
        let rolling = Rolling::new(&key(3));
        let text = b"somewhere in here stands a window";
        let leaving = rolling.leaving(8);
        let mut hash = 0;
        for (index, byte) in text.iter().enumerate() {
            hash = rolling.push(hash, *byte);
            if index >= 8 {
                hash = hash.wrapping_sub(leaving[usize::from(text[index - 8])]);
            }
            if index >= 7 {
                assert_eq!(Rolling::filter(hash), rolling.of(&text[index - 7..=index]));
            }
        }
    }

    #[test]
    fn marks_go_over_a_link_and_show_neither_key_nor_value() {
        let value = "k3yw0rd9-k3yw0rd9-zz";
        let marks = Marks::new(&key(7), vec![mark(value)]);
        let sent = serde_json::to_string(&Kept { marks: &marks }).expect("plain data");
        assert!(!sent.contains("k3yw0rd9"));
        assert!(!format!("{marks:?}").contains("0707"));
        let read: Back = serde_json::from_str(&sent).expect("what was written");
        assert_eq!(read.marks.marks, marks.marks);
        assert_eq!(read.marks.digest(b"a"), marks.digest(b"a"));
    }

    #[derive(Serialize)]
    struct Kept<'a> {
        marks: &'a Marks,
    }

    #[derive(Deserialize)]
    struct Back {
        marks: Marks,
    }
}
