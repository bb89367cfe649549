//! Names of files by a pattern, as a shell finds them. POSIX.1-2024, 2.14 Pattern Matching Notation.
//!
//! What comes out is the pattern itself, if nothing fits, or names that are there: never `.` or
//! `..`, and nothing that a program could take for an option.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::str::Chars;

/// The most names that one pattern may stand for.
const MAX_NAMES: usize = 10_000;

/// The names that fit, in the order of their bytes.
pub(super) fn expand(pattern: &str) -> io::Result<Vec<OsString>> {
    let mut found = vec![OsString::new()];
    for (at, part) in pattern.split('/').enumerate() {
        let mut longer = Vec::new();
        for before in found {
            let mut before = before.into_vec();
            if at > 0 {
                before.push(b'/');
            }
            let before = OsString::from_vec(before);
            match part.contains(['*', '?', '[']) {
                true => longer.extend(names_in(&before, part)),
                false => longer.push(joined(&before, OsStr::new(part))),
            }
            if longer.len() > MAX_NAMES {
                let message = format!("{pattern} fits more than {MAX_NAMES} names");
                return Err(io::Error::other(message));
            }
        }
        found = longer;
    }
    found.retain(|path| fs::symlink_metadata(path).is_ok());
    if found.is_empty() {
        return Ok(vec![pattern.into()]);
    }
    found.sort();
    Ok(found.into_iter().map(no_option).collect())
}

fn joined(before: &OsStr, name: &OsStr) -> OsString {
    let mut path = before.to_owned();
    path.push(name);
    path
}

/// A path that cannot be read as an option, or as the name of a file of them.
fn no_option(path: OsString) -> OsString {
    match path.as_bytes().first() {
        Some(b'-' | b'+' | b'@') => joined(OsStr::new("./"), &path),
        _ => path,
    }
}

/// A folder that cannot be read has no names.
fn names_in(folder: &OsStr, pattern: &str) -> Vec<OsString> {
    let place = match folder.is_empty() {
        true => Path::new("."),
        false => Path::new(folder),
    };
    let names = fs::read_dir(place).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name()).filter(|name| {
        // A name that begins with a dot is found by a pattern that does, too.
        let hidden = name.as_bytes().starts_with(b".") && !pattern.starts_with('.');
        !hidden && fits(pattern.chars(), name.to_string_lossy().chars())
    });
    names
        .take(MAX_NAMES + 1)
        .map(|name| joined(folder, &name))
        .collect()
}

/// Whether all of a name fits all of a pattern. A star is tried again from where it stood last,
/// which is enough: of several stars only the last one can still be wrong.
fn fits(mut pattern: Chars<'_>, mut name: Chars<'_>) -> bool {
    let mut retry: Option<(Chars<'_>, Chars<'_>)> = None;
    loop {
        let mut ahead = pattern.clone();
        let fit = match (ahead.next(), name.clone().next()) {
            (Some('*'), _) => {
                retry = Some((ahead.clone(), name.clone()));
                pattern = ahead;
                continue;
            }
            (None, None) => return true,
            (Some(one), Some(c)) => one_fits(one, &mut ahead, c),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if fit {
            pattern = ahead;
            name.next();
        } else {
            let Some((star, at)) = &mut retry else {
                return false;
            };
            if at.next().is_none() {
                return false;
            }
            (pattern, name) = (star.clone(), at.clone());
        }
    }
}

/// Whether one character fits one sign of the pattern, which `rest` goes on behind.
fn one_fits(sign: char, rest: &mut Chars<'_>, c: char) -> bool {
    match sign {
        '?' => true,
        '[' => match set_fits(rest.clone(), c) {
            Some((behind, fit)) => {
                *rest = behind;
                fit
            }
            // Without its end it is a bracket.
            None => c == '[',
        },
        sign => sign == c,
    }
}

/// Whether a character is in a set, and what stands behind the set; none if it has no end.
fn set_fits(mut rest: Chars<'_>, c: char) -> Option<(Chars<'_>, bool)> {
    let mut ahead = rest.clone();
    let negated = matches!(ahead.next(), Some('!' | '^'));
    if negated {
        rest = ahead;
    }
    let (mut fit, mut first) = (false, true);
    loop {
        let member = rest.next()?;
        if member == ']' && !first {
            return Some((rest, fit != negated));
        }
        first = false;
        if member == '['
            && let Some((behind, within)) = class(rest.clone(), c)
        {
            rest = behind;
            fit |= within;
            continue;
        }
        let mut ahead = rest.clone();
        match (ahead.next(), ahead.next()) {
            (Some('-'), Some(last)) if last != ']' => {
                fit |= (member..=last).contains(&c);
                rest = ahead;
            }
            _ => fit |= member == c,
        }
    }
}

/// `[:digit:]` and its like, for ASCII.
fn class(mut rest: Chars<'_>, c: char) -> Option<(Chars<'_>, bool)> {
    let (name, behind) = rest.as_str().strip_prefix(':')?.split_once(":]")?;
    let within = match name {
        "alnum" => c.is_ascii_alphanumeric(),
        "alpha" => c.is_ascii_alphabetic(),
        "digit" => c.is_ascii_digit(),
        "lower" => c.is_ascii_lowercase(),
        "upper" => c.is_ascii_uppercase(),
        "punct" => c.is_ascii_punctuation(),
        "space" => c.is_ascii_whitespace(),
        "xdigit" => c.is_ascii_hexdigit(),
        _ => return None,
    };
    rest = behind.chars();
    Some((rest, within))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(pattern: &str, name: &str) -> bool {
        fits(pattern.chars(), name.chars())
    }

    #[test]
    fn names_fit_as_in_a_shell() {
        for (pattern, name) in [
            ("*", "a"),
            ("*.rs", "a.rs"),
            ("a*b*c", "axxbxbxc"),
            ("??", "é日"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[^a]", "b"),
            ("[]a]", "]"),
            ("[[:digit:]x]", "7"),
            ("[a-]", "-"),
            ("[a", "[a"),
            ("a]", "a]"),
            ("*a", "aaa"),
        ] {
            assert!(fit(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.rs", "a.rst"),
            ("?", ""),
            ("[a-c]", "d"),
            ("[!a-c]", "b"),
            ("[[:digit:]]", "x"),
            ("a*b", "axc"),
            ("", "a"),
            ("[a]", ""),
        ] {
            assert!(!fit(pattern, name), "{pattern} {name}");
        }
        // Many stars over a long name that does not fit take no time to speak of.
        assert!(!fit(
            &"*a".repeat(100),
            &"a".repeat(3000).replacen('a', "b", 2990)
        ));
    }
}
