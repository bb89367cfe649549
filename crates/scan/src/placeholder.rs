//! What stands for a secret and is none: examples of manuals, masks, words.

use crate::alphabet::{Mixture, entropy};

/// Words that a made-up value holds and a random one does not, in lower case.
const WORDS: [&str; 23] = [
    "example",
    "sample",
    "placeholder",
    "changeme",
    "change-me",
    "change_me",
    "change_this",
    "your",
    "dummy",
    "redacted",
    "insert",
    "replace",
    "notreal",
    "not-a-real",
    "not_a_real",
    "xxxx",
    "fakekey",
    "faketoken",
    "mysecret",
    "deadbeefdeadbeef",
    "goes-here",
    "goeshere",
    "goes_here",
];

/// Beyond this a value is no word any more, and any word may stand in it by chance.
const LONGEST_WITH_WORDS: usize = 120;

/// The documented examples that look random, without what their format begins with.
const DOCUMENTED: [&str; 12] = [
    // AWS, before EXAMPLE.
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCY",
    // Stripe's and Twilio's test keys on their pages.
    "4eC39HqLyjWDarjtT1zdp7dc",
    "BQokikJOvBiI2HlWgH4olfQ2",
    "26PHem9AhJZvU623DfE1x4sd",
    // The bots of Telegram's manual.
    "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
    "ABC-DEF1234ghIkl-zyx57W2v1u123ew11",
    // The well-known key of Azure's storage emulator.
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq",
    // The signature under the token that jwt.io shows.
    "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
    // Slack's manual.
    "pdFZKVeTuE8sk7oOcHrzqqgy",
    // GitHub's and GitLab's manuals.
    "16C7e42F292c6912E7710c838347Ae178B4a",
    // RFC 7519 and RFC 6750.
    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    "mF_9.B5f-4.1JqM",
];

/// Whether the random part of a token is not random: too few different signs, a sign over and over,
/// the alphabet in order, or a word that says so.
pub(crate) fn is_made_up(random: &[u8]) -> bool {
    says_so(random) || is_pattern(random)
}

/// Whether every class of signs that a random text of this length has stands in it, often changing.
pub(crate) fn is_random(random: &[u8]) -> bool {
    let mixture = Mixture::of(random);
    let hex = random
        .iter()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
        || random
            .iter()
            .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b));
    if hex {
        return random.len() >= 24 && mixture.digits >= 4 && mixture.lower + mixture.upper >= 4;
    }
    let one_case = mixture.lower == 0 || mixture.upper == 0;
    let varied = if one_case {
        mixture.digits >= 2
    } else {
        mixture.digits > 0 || random.len() >= 30
    };
    varied && mixture.changes * 6 >= random.len() && entropy(random) > 2.9
}

/// The same for whole values as they are assigned: also names, types, defaults and masks.
pub(crate) fn is_stand_in(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let template = [
        "${", "{{", "<", "$(", "%(", "#{", "...", "***", "%s", "{0}", "\u{2026}", "\u{2022}",
    ];
    let whole = WHOLE.contains(&lower.trim_matches(['"', '\'', '_', '-', '.', '!']));
    let mixed = value.len() >= 10 && Mixture::of(value.as_bytes()).classes() == 4;
    let spoken =
        SPOKEN.iter().any(|word| lower.contains(word)) && !has_random_part(value) && !mixed;
    whole
        || spoken
        || template.iter().any(|part| value.contains(part))
        || (value.starts_with('{') && value.ends_with('}'))
        || (value.starts_with('[') && value.ends_with(']'))
        || (value.starts_with('%') && value.ends_with('%'))
        || is_made_up(value.as_bytes())
}

/// What a value is as a whole when nobody has put one there.
const WHOLE: [&str; 44] = [
    "password",
    "passwd",
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "string",
    "str",
    "text",
    "null",
    "none",
    "nil",
    "true",
    "false",
    "undefined",
    "required",
    "optional",
    "empty",
    "hidden",
    "masked",
    "admin",
    "root",
    "user",
    "guest",
    "test",
    "testing",
    "demo",
    "default",
    "postgres",
    "mysql",
    "letmein",
    "qwerty",
    "qwerty123",
    "welcome1",
    "admin123",
    "test123",
    "test1234",
    "pass123",
    "abc123",
    "foobar",
    "hunter2",
    "passw0rd",
    "p@ssw0rd",
];

/// Words of values that somebody wrote to stand for others.
const SPOKEN: [&str; 16] = [
    "password", "passwd", "secret", "token", "api_key", "apikey", "api-key", "changeit", "default",
    "test", "demo", "hunter2", "foobar", "todo", "env.", "env_",
];

/// Whether there is a piece in it that nobody would say aloud.
fn has_random_part(value: &str) -> bool {
    value
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word.len() >= 12 && is_random(word.as_bytes()))
}

/// Whether letters are none of a language: few vowels, and many others in a row. Of random letters a
/// fifth are vowels, of words two fifths.
pub(crate) fn nobody_says(letters: &[u8]) -> bool {
    const IN_A_ROW: usize = 5;
    let is_vowel = |b: &u8| b"aeiou".contains(&b.to_ascii_lowercase());
    let vowels = letters.iter().filter(|b| is_vowel(b)).count();
    let others = letters
        .split(|b| is_vowel(b) || !b.is_ascii_alphabetic())
        .any(|run| run.len() >= IN_A_ROW);
    letters.len() >= 16 && vowels * 10 < letters.len() * 3 && others && entropy(letters) > 3.0
}

/// Whether a value looks like one that a machine made: no words, no name, no number.
pub(crate) fn looks_generated(value: &str) -> bool {
    let bytes = value.as_bytes();
    let core: Vec<u8> = bytes
        .iter()
        .copied()
        .filter(u8::is_ascii_alphanumeric)
        .collect();
    if core.len() * 10 < bytes.len() * 7 {
        return false;
    }
    let words = value
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() >= 3 && word.bytes().all(|b| b.is_ascii_alphabetic()))
        .map(str::len)
        .sum::<usize>();
    let mixture = Mixture::of(&core);
    let hex = core.iter().all(u8::is_ascii_hexdigit);
    if hex {
        return core.len() >= 16
            && mixture.digits >= 3
            && mixture.lower + mixture.upper >= 3
            && entropy(&core) > 2.5;
    }
    words * 2 < bytes.len()
        && mixture.digits > 0
        && mixture.changes * 7 >= core.len()
        && entropy(&core) > 2.8
        || core.len() >= 20
            && mixture.lower > 2
            && mixture.upper > 2
            && mixture.changes * 5 >= core.len()
            && entropy(&core) > 3.4
        || words == bytes.len() && core.len() >= 24 && nobody_says(&core)
        || mixture.digits > 0 && core.len() == bytes.len() && nobody_says(&core)
}

/// Whether a value can be nothing but random: no word, no number, no digest and no identifier.
pub(crate) fn is_only_random(value: &str) -> bool {
    let signs = value.bytes().all(|b| crate::alphabet::TOKEN.has(b));
    let digest = value.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let mixture = Mixture::of(value.as_bytes());
    (20..=200).contains(&value.len())
        && signs
        && !digest
        && mixture.digits >= 2
        && mixture.others * 8 < value.len()
        && looks_generated(value)
}

fn says_so(random: &[u8]) -> bool {
    if random.len() > LONGEST_WITH_WORDS {
        return false;
    }
    let text = String::from_utf8_lossy(random);
    if DOCUMENTED.iter().any(|known| text.contains(known)) {
        return true;
    }
    let text = text.to_ascii_lowercase();
    WORDS.iter().any(|word| text.contains(word))
}

/// One sign, or one step along the alphabet, over and over.
fn is_pattern(random: &[u8]) -> bool {
    let signs: Vec<u8> = random
        .iter()
        .copied()
        .filter(u8::is_ascii_alphanumeric)
        .collect();
    if signs.len() < 6 {
        return false;
    }
    let steps = signs
        .windows(2)
        .filter(|pair| {
            let [one, next] = [pair[0], pair[1]].map(|b| b.to_ascii_lowercase());
            one == next || next.wrapping_sub(one) == 1 || (one == b'9' && next == b'0')
        })
        .count();
    let mut seen = [false; 256];
    for sign in &signs {
        seen[usize::from(*sign)] = true;
    }
    let different = seen.iter().filter(|seen| **seen).count();
    steps * 2 > signs.len()
        || longest_run(&signs) * 3 > signs.len().max(15)
        || different < few(signs.len())
        || repeats(&signs)
}

/// A random text of so many signs has more different ones than this.
fn few(len: usize) -> usize {
    if len < 16 { 4 } else { 6 }
}

fn longest_run(signs: &[u8]) -> usize {
    signs
        .chunk_by(|one, next| one == next)
        .map(<[u8]>::len)
        .max()
        .unwrap_or(0)
}

/// Whether it is a short text, repeated.
fn repeats(signs: &[u8]) -> bool {
    signs.len() >= 12
        && (1..=signs.len() / 3).any(|period| signs[period..] == signs[..signs.len() - period])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_words_are_made_up() {
        for text in [
            "xxxxxxxxxxxxxxxxxxxx",
            "XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX",
            "IOSFODNN7EXAMPLE",
            "your-api-key-goes-here-please-1",
            "abcdefghijklmnopqrstuvwxyz0123456789",
            "0123456789abcdef0123456789abcdef",
            "1234567890123456789012345678901234567890",
            "abc123abc123abc123abc123",
            "00000000000000000000000000000000",
        ] {
            assert!(is_made_up(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn random_texts_are_not() {
        for text in [
            "fQHsbp6abXh5NCcfrj1nD3z1wHJU",
            "8f14e45fceea167a5a36dedd4bea2543",
            "Q9Z2M7K4X1B8V5C3",
        ] {
            assert!(!is_made_up(text.as_bytes()), "{text}");
            assert!(is_random(text.as_bytes()), "{text}");
        }
        assert!(!is_random(b"createElementNamespace12"));
        assert!(nobody_says(b"wdpqzcjxzcmhjtymyswqkmcydrqgpxmo"));
        assert!(!nobody_says(b"thequickbrownfoxjumpsoverthelazydog"));
        assert!(is_only_random("fetzvbe9vqaha57nxyg7o3i7lph9xjri"));
        for text in [
            "9f86d081884c7d659a2feaa0c55ad015",
            "7f1c9a52-3d80-4be6-a1f4-90c2d7e8b635",
            "users/by-name/2026/page-2",
            "AllowedSignatureTypes2",
        ] {
            assert!(!is_only_random(text), "{text}");
        }
    }
}
