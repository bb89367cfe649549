//! A scan of text that comes in pieces.

use crate::finding::{Finding, redact};
use crate::scanner::Scanner;

/// What was let through is remembered so far back, in bytes.
const MEMORY: usize = 4 * 1024;

/// At least so much of a message's end is held back.
const LEAST_HELD: usize = 32;

/// Never is more held back than this: a private key is longer than any other secret.
const MOST_HELD: usize = 16 * 1024;

/// With less that is new a scan is not worth its time.
const STEP: usize = 8;

/// Text that may go on, and what was found in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// What can be shown or sent now, with the findings redacted.
    pub text: String,
    /// New ones. Their places are bytes since the stream began, over all pieces and messages.
    pub findings: Vec<Finding>,
}

/// Takes text piece by piece: the deltas of a model, the chunks of a body, one message after the
/// other. It holds back the end of a text as long as it could be the beginning of something, and
/// remembers what went before, so that what is split over two pieces or two messages is found. Of what
/// is found over the border of two messages the first part is gone by then; the rest is redacted.
#[derive(Debug, Default)]
pub struct Stream {
    /// The end of what was let through, as it was before anything was redacted.
    memory: String,
    /// What is held back.
    held: String,
    /// Bytes of `held` that a scan has already seen without letting them through.
    seen: usize,
    /// Bytes of the stream before `memory`.
    offset: usize,
}

impl Stream {
    /// At the beginning of a conversation.
    pub fn new() -> Self {
        Self::default()
    }

    /// After what was said before, as far as it is remembered. What is found in that alone is not found again.
    pub fn after(said: &str) -> Self {
        Self {
            memory: remembered(said).to_owned(),
            ..Self::default()
        }
    }

    /// The next piece of the current message.
    #[must_use]
    pub fn push(&mut self, scanner: &Scanner, piece: &str) -> Passed {
        self.held.push_str(piece);
        // What is long is not looked through anew for every letter.
        let step = STEP.max(self.held.len() / 8);
        if self.held.len() < LEAST_HELD + STEP || self.held.len() < self.seen + step {
            return Passed::default();
        }
        let end = self.held.len() - held_back(&self.held, scanner.reach());
        let passed = self.let_through(scanner, end);
        self.seen = self.held.len();
        passed
    }

    /// The message is at its end: all that was held back. The stream can take the next one, which is read
    /// as if it went on where this one ended.
    #[must_use]
    pub fn finish(&mut self, scanner: &Scanner) -> Passed {
        let passed = self.let_through(scanner, self.held.len());
        self.seen = 0;
        passed
    }

    /// Scans all, and lets the first `end` held bytes through, or up to a finding that may go on.
    fn let_through(&mut self, scanner: &Scanner, end: usize) -> Passed {
        let before = self.memory.len();
        let whole = format!("{}{}", self.memory, self.held);
        let end = whole.floor_char_boundary(before + end);
        let findings = scanner.scan(&whole);
        // What a finding reaches into is let through with all of it, and not held for ever.
        let too_long = self.held.len() > 2 * MOST_HELD;
        let cut = findings
            .iter()
            .find(|finding| finding.start < end && finding.end > end)
            .map_or(end, |finding| {
                if too_long {
                    finding.end
                } else if end == whole.len() {
                    end
                } else {
                    finding.start.max(before)
                }
            });
        // One that began before this message and may go on is held too.
        let new: Vec<Finding> = findings
            .into_iter()
            .filter(|finding| finding.end > before && finding.start < cut && finding.end <= cut)
            .collect();
        let text = redact(&whole[before..cut], &moved(&new, before));
        let found = new
            .into_iter()
            .map(|finding| Finding {
                start: finding.start + self.offset,
                end: finding.end + self.offset,
                ..finding
            })
            .collect();
        self.remember(&whole, cut);
        Passed {
            text,
            findings: found,
        }
    }

    fn remember(&mut self, whole: &str, cut: usize) {
        let memory = remembered(&whole[..cut]);
        self.offset += cut - memory.len();
        self.memory = memory.to_owned();
        self.held = whole[cut..].to_owned();
    }
}

/// The end of what was said, as far as it can belong to what is said next.
fn remembered(said: &str) -> &str {
    &said[said.floor_char_boundary(said.len().saturating_sub(MEMORY))..]
}

/// The findings as places of what is behind the first bytes.
fn moved(findings: &[Finding], before: usize) -> Vec<Finding> {
    findings
        .iter()
        .map(|finding| Finding {
            start: finding.start.saturating_sub(before),
            end: finding.end - before,
            ..finding.clone()
        })
        .collect()
}

/// How many bytes of the end could be the beginning of something: a word that may go on, words that
/// are spelled letter by letter, a key that has begun and not ended, so many letters of a value.
fn held_back(held: &str, reach: usize) -> usize {
    let bytes = held.as_bytes();
    let key = held
        .rfind("-----BEGIN ")
        .filter(|at| !held[*at..].contains("-----END"));
    let mut start = bytes.len();
    let mut words = 0;
    // Back over words as long as they are short, and over one that is not.
    for (at, byte) in bytes.iter().enumerate().rev() {
        if byte.is_ascii_whitespace() {
            let word = &bytes[at + 1..start];
            if word.len() > 8 && words > 0 {
                break;
            }
            words += 1;
            start = at;
        }
    }
    let spelled = words >= 4 && average_word(&bytes[start..]) <= 2;
    let word = bytes
        .iter()
        .rev()
        // No secret has letters of other alphabets, and some of these have no blanks between words.
        .take_while(|b| b.is_ascii() && !b.is_ascii_whitespace())
        .count();
    let least = if spelled { bytes.len() - start } else { word };
    let least = least
        .max(LEAST_HELD)
        .max(held.len() - last_letters(held, reach))
        .max(key.map_or(0, |at| held.len() - at));
    least.min(MOST_HELD).min(held.len())
}

/// Where the last so many letters and digits begin. Those of other alphabets count too, although no secret has
/// them: an answer in Russian or Chinese would not be shown before its end.
fn last_letters(held: &str, reach: usize) -> usize {
    let Some(before) = reach.checked_sub(1) else {
        return held.len();
    };
    let mut letters = held
        .char_indices()
        .rev()
        .filter(|(_, sign)| sign.is_alphanumeric());
    letters.nth(before).map_or(0, |(at, _)| at)
}

/// The length of the words, blanks aside. Words of a language have three letters and more.
fn average_word(bytes: &[u8]) -> usize {
    let words = bytes.split(u8::is_ascii_whitespace);
    let (words, letters) = words
        .filter(|word| !word.is_empty())
        .fold((0, 0), |(words, letters), word| {
            (words + 1, letters + word.len())
        });
    letters / words.max(1_usize)
}

#[cfg(test)]
mod tests {
    use protocol::ids::SecretName;
    use protocol::marks::{MarkKey, MarkKind, Marks, marks_of};

    use super::*;
    use crate::finding::Kind;

    const SECRET: &str = "k8Wq2zz71-m4x9p3v7-Tq5";

    fn scanner() -> Scanner {
        let key = MarkKey::from_bytes([5; 32]);
        let name = SecretName::parse("the-secret").expect("a name");
        let mark = marks_of(&key, name, MarkKind::Secret, SECRET).expect("long enough");
        Scanner::new(Marks::new(&key, vec![mark]))
    }

    fn streamed(text: &str, size: usize) -> (String, Vec<Finding>) {
        let scanner = scanner();
        let mut stream = Stream::new();
        let mut passed = Passed::default();
        let mut take = |one: Passed| {
            passed.text.push_str(&one.text);
            passed.findings.extend(one.findings);
        };
        let signs: Vec<char> = text.chars().collect();
        for piece in signs.chunks(size) {
            take(stream.push(&scanner, &piece.iter().collect::<String>()));
        }
        take(stream.finish(&scanner));
        (passed.text, passed.findings)
    }

    #[test]
    fn what_is_split_anywhere_is_found_and_none_of_it_is_let_through() {
        let text = format!(
            "{} and here é it is: {SECRET}, {}",
            "words ".repeat(30),
            "more ".repeat(30)
        );
        for size in [1, 2, 3, 7, 20, 64, 1000] {
            let (shown, findings) = streamed(&text, size);
            assert_eq!(
                shown,
                text.replace(SECRET, "[redacted: vault_secret]"),
                "{size}"
            );
            let place = text.find(SECRET).expect("it is there");
            let places: Vec<_> = findings.iter().map(|f| (f.kind, f.start, f.end)).collect();
            assert_eq!(
                places,
                [(Kind::SECRET, place, place + SECRET.len())],
                "{size}"
            );
        }
    }

    #[test]
    fn what_is_written_in_pieces_with_something_between_them_is_held_back_until_it_is_known() {
        let letters: Vec<char> = SECRET.chars().filter(char::is_ascii_alphanumeric).collect();
        for size in 1..9 {
            for between in [
                " ".repeat(40),
                "\n\n".repeat(9),
                " - ".to_owned(),
                "\u{200b}".repeat(30),
            ] {
                let pieces: Vec<String> = letters
                    .chunks(size)
                    .map(|piece| piece.iter().collect())
                    .collect();
                let pieces = pieces.join(&between);
                for spelled in [pieces.clone(), pieces.chars().rev().collect()] {
                    let text = format!(
                        "In pieces it goes like this, and on and on: {spelled}, and that was it."
                    );
                    let (shown, findings) = streamed(&text, 3);
                    assert_eq!(findings.len(), 1, "{text}");
                    assert!(
                        shown.contains("on: [redacted: vault_secret], and"),
                        "{shown}"
                    );
                }
            }
        }
    }

    #[test]
    fn text_in_any_alphabet_is_let_through_as_it_comes() {
        for word in ["слово ", "字词", "言葉、", "λέξη "] {
            let (scanner, mut stream, mut shown) = (scanner(), Stream::new(), String::new());
            for _ in 0..100 {
                shown.push_str(&stream.push(&scanner, word).text);
            }
            let held = word.repeat(100).chars().count() - shown.chars().count();
            assert!(held < 150, "{word}: {held}");
        }
    }

    #[test]
    fn what_is_spelled_is_held_back_until_it_is_known() {
        let spelled: Vec<String> = SECRET.chars().map(String::from).collect();
        let text = format!(
            "It goes like this, letter by letter: {} and that was all of it, really.",
            spelled.join(" ")
        );
        let (shown, findings) = streamed(&text, 3);
        assert_eq!(findings.len(), 1);
        assert!(!shown.contains("k 8 W q 2"), "{shown}");
    }

    #[test]
    fn what_is_split_over_two_messages_is_found_in_the_second() {
        let scanner = scanner();
        let mut stream = Stream::new();
        let (one, two) = SECRET.split_at(11);
        let first = stream.push(&scanner, &format!("First this: {one}"));
        let ended = stream.finish(&scanner);
        assert_eq!(first.text.len() + ended.text.len(), 12 + one.len());
        let second = stream.push(&scanner, &format!("{two} and that was the second"));
        let ended = stream.finish(&scanner);
        let shown = second.text + &ended.text;
        assert_eq!(shown, "[redacted: vault_secret] and that was the second");
        assert_eq!(second.findings.len() + ended.findings.len(), 1);
    }

    /// The second begins with the same once more, so that both are one finding, which may still go on.
    #[test]
    fn what_began_in_one_message_and_may_go_on_is_held_back_in_the_next() {
        let scanner = scanner();
        let mut stream = Stream::new();
        let _ = stream.push(&scanner, &format!("First this: {SECRET}"));
        assert_eq!(stream.finish(&scanner).findings.len(), 1);
        let hexed: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
        let second = stream.push(&scanner, &hexed);
        assert_eq!(second, Passed::default());
        let ended = stream.finish(&scanner);
        assert_eq!(ended.text, "[redacted: vault_secret]");
        assert_eq!(ended.findings.len(), 1);
    }

    #[test]
    fn ordinary_text_is_let_through_as_it_comes() {
        let text = "An answer with ordinary words in it, of some length. ".repeat(20);
        let scanner = scanner();
        let mut stream = Stream::new();
        let mut shown = String::new();
        for piece in text.as_bytes().chunks(10) {
            let piece = std::str::from_utf8(piece).expect("ASCII");
            shown.push_str(&stream.push(&scanner, piece).text);
        }
        assert!(
            text.len() - shown.len() < 120,
            "{}",
            text.len() - shown.len()
        );
        shown.push_str(&stream.finish(&scanner).text);
        assert_eq!(shown, text);
    }

    #[test]
    fn what_was_found_in_one_message_is_not_found_again_in_the_next() {
        let scanner = scanner();
        let mut stream = Stream::new();
        let first = stream.push(
            &scanner,
            &format!("it is {SECRET} as you know and as I know, and so does everybody"),
        );
        let ended = stream.finish(&scanner);
        assert_eq!(first.findings.len() + ended.findings.len(), 1);
        let second = stream.push(&scanner, " and something else");
        let ended = stream.finish(&scanner);
        assert_eq!(second.findings.len() + ended.findings.len(), 0);
    }
}
