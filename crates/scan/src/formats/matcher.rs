//! Finds the rows of the tables in bytes.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::checksum::ends_with_crc32;
use super::{Format, Part, all};
use crate::alphabet::{ALNUM, BASE64};
use crate::hit::{Hit, Rank};
use crate::placeholder::{is_made_up, is_random, nobody_says};

/// A fixed text of so many signs is told from others without a look at what stands before it.
const DISTINCT: usize = 8;

/// With fewer fixed signs than this the rest has to look random in every way.
const WEAK: usize = 4;

struct Table {
    anchors: AhoCorasick,
    /// For each anchor, the formats that have it.
    formats: Vec<Vec<&'static Format>>,
    /// By the letters and digits that a format begins with.
    loose: AhoCorasick,
    loose_formats: Vec<Vec<&'static Format>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let (anchors, formats) = finder(|format| format.anchor_text().to_owned());
    let (loose, loose_formats) = finder(Format::first_letters);
    Table {
        anchors,
        formats,
        loose,
        loose_formats,
    }
});

/// Finds the texts that the formats have, as far as they have one.
fn finder(text: impl Fn(&Format) -> String) -> (AhoCorasick, Vec<Vec<&'static Format>>) {
    let mut texts: Vec<String> = all().map(&text).filter(|text| !text.is_empty()).collect();
    texts.sort_unstable();
    texts.dedup();
    let formats = texts
        .iter()
        .map(|one| all().filter(|format| text(format) == *one).collect())
        .collect();
    let anchors = AhoCorasick::builder()
        .kind(Some(AhoCorasickKind::DFA))
        .build(&texts)
        // The table is part of the program; a test builds it.
        .expect("a few hundred short texts make an automaton");
    (anchors, formats)
}

/// Adds every place where a format stands.
pub(crate) fn find(bytes: &[u8], hits: &mut Vec<Hit>) {
    for place in TABLE.anchors.find_overlapping_iter(bytes) {
        for format in &TABLE.formats[place.pattern().as_usize()] {
            hits.extend(matches(format, bytes, place.start()));
        }
    }
}

/// The same for a text of letters and digits only, out of which all else was taken.
pub(crate) fn find_loose(bytes: &[u8], hits: &mut Vec<Hit>) {
    for place in TABLE.loose.find_overlapping_iter(bytes) {
        for format in &TABLE.loose_formats[place.pattern().as_usize()] {
            if let Some(end) = loose_end(format, bytes, place.start()) {
                hits.push(Hit::new(format.kind, place.start()..end, Rank::Format));
            }
        }
    }
}

fn matches(format: &Format, bytes: &[u8], anchor: usize) -> Option<Hit> {
    let start = backward(&format.parts[..format.anchor], bytes, anchor)?;
    let mut runs = Vec::new();
    let end = forward(format.parts, bytes, start, &mut runs)?;
    if !begins_here(format, bytes, start) {
        return None;
    }
    let random: Vec<u8> = runs.concat();
    let certain = format.kind.as_str() == "github_token" && ends_with_crc32(&random);
    (certain || convinces(format, &random)).then(|| Hit::new(format.kind, start..end, Rank::Format))
}

fn convinces(format: &Format, random: &[u8]) -> bool {
    let letters = || random.iter().all(u8::is_ascii_alphabetic) && nobody_says(random);
    !is_made_up(random) && (format.fixed() >= WEAK || is_random(random) || letters())
}

/// The parts before the anchor, from it to the left.
fn backward(parts: &[Part], bytes: &[u8], mut at: usize) -> Option<usize> {
    for part in parts.iter().rev() {
        match part {
            Part::Lit(text) => {
                let before = bytes[..at].strip_suffix(text.as_bytes())?;
                at = before.len();
            }
            Part::Run(alphabet, least, most) => {
                let run = bytes[..at]
                    .iter()
                    .rev()
                    .take(*most)
                    .take_while(|byte| alphabet.has(**byte))
                    .count();
                if run < *least {
                    return None;
                }
                at -= run;
            }
        }
    }
    Some(at)
}

/// All parts, from the left; each run takes what it can.
fn forward<'a>(
    parts: &[Part],
    bytes: &'a [u8],
    mut at: usize,
    runs: &mut Vec<&'a [u8]>,
) -> Option<usize> {
    for (index, part) in parts.iter().enumerate() {
        match part {
            Part::Lit(text) => {
                let rest = bytes[at..].strip_prefix(text.as_bytes())?;
                at = bytes.len() - rest.len();
            }
            Part::Run(alphabet, least, most) => {
                let is_last = index + 1 == parts.len();
                let mut run = bytes[at..]
                    .iter()
                    .take(most + usize::from(is_last))
                    .take_while(|byte| alphabet.has(**byte))
                    .count();
                if is_last {
                    run -= trailing(&bytes[at..at + run], run - (*least).min(run));
                }
                if run < *least || run > *most {
                    return None;
                }
                runs.push(&bytes[at..at + run]);
                at += run;
            }
        }
    }
    Some(at)
}

/// Signs at the end of a run that rather end the sentence.
fn trailing(run: &[u8], most: usize) -> usize {
    run.iter()
        .rev()
        .take(most)
        .take_while(|byte| matches!(byte, b'.' | b'~' | b'-'))
        .count()
}

/// Whether a token begins here, and not in the middle of a longer one.
fn begins_here(format: &Format, bytes: &[u8], start: usize) -> bool {
    let Some(before) = start.checked_sub(1).map(|at| bytes[at]) else {
        return true;
    };
    match format.parts[0] {
        Part::Lit(text) => {
            let border = !ALNUM.has(before) || !ALNUM.has(bytes[start]);
            text.len() >= DISTINCT || (border && !is_within_base64(bytes, start))
        }
        Part::Run(alphabet, ..) => !alphabet.has(before),
    }
}

/// Whether so much base64 stands before it that short texts are in it by chance.
fn is_within_base64(bytes: &[u8], start: usize) -> bool {
    const MUCH: usize = 256;
    let before = start.checked_sub(MUCH).map(|from| &bytes[from..start]);
    let is_of_it = |byte: &u8| BASE64.has(*byte) || matches!(byte, b'\r' | b'\n');
    before.is_some_and(|before| before.iter().all(is_of_it))
}

/// The end of a format whose signs other than letters and digits were lost.
fn loose_end(format: &Format, bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    let mut fixed = 0;
    let mut random = Vec::new();
    let parts = format.parts;
    for (index, part) in parts.iter().enumerate() {
        match part {
            Part::Lit(text) => {
                for byte in text.bytes().filter(u8::is_ascii_alphanumeric) {
                    if bytes.get(at) != Some(&byte) {
                        return None;
                    }
                    at += 1;
                    fixed += 1;
                }
            }
            Part::Run(alphabet, least, most) => {
                // Of 64 signs two are neither a letter nor a digit.
                let least = if alphabet.has(b'-') || alphabet.has(b'/') {
                    least - least / 8
                } else {
                    *least
                };
                let is_last = index + 1 == parts.len();
                let take = if is_last { most + 1 } else { *most };
                let run = bytes[at..]
                    .iter()
                    .take(take)
                    .take_while(|byte| alphabet.has(**byte))
                    .count();
                if run < least || run > *most {
                    return None;
                }
                random.extend_from_slice(&bytes[at..at + run]);
                at += run;
            }
        }
    }
    // In the middle of something else only what is told from it by itself.
    let begins = start == 0 || bytes[start - 1] == 0;
    let distinct = if begins { 3 } else { 6 };
    (fixed >= distinct && is_random(&random) && !is_made_up(&random)).then_some(at)
}
