//! Which places on a host a rule is about.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::as_text;

/// The longest pattern in bytes.
const MAX: usize = 1024;

/// A path in its normal form, in which a segment `*` stands for any one segment and, as the last,
/// for at least one and all that follow. `/repos/me/notes/*` is not about `/repos/me/notes`.
///
/// The normal form is that of RFC 3986, section 6.2.2: what need not be encoded is not, the
/// digits of what is are capitals, and no segment is `.` or `..`. `{name}` stands for a secret
/// that egress puts there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPattern(String);

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPathPattern {
    /// It does not begin with `/`, or is too long.
    #[error("a path begins with / and has at most {MAX} bytes")]
    Form,
    /// A character that a path does not have as such.
    #[error("a path has no {0:?} as such; other characters are written as %XX, of their UTF-8")]
    Character(char),
    /// Not in the form in which paths are compared.
    #[error(
        "{0:?} is not how a path is compared: write what need not be encoded as it is, and %XX with capitals"
    )]
    Encoding(String),
    /// `.`, `..` or nothing between slashes.
    #[error("a path has no segment that is \".\", \"..\" or empty")]
    Segment,
    /// A star that is not a whole segment.
    #[error(
        "a star stands between slashes or at the end behind one: \"notes*\" would also be \"notes-of-somebody-else\""
    )]
    Star,
    /// A name in braces that is none, or braces that do not fit together.
    #[error("braces hold the name of what is put there, in lower case: {{bot}}")]
    Brace,
}

/// The characters that a path has as they are, beside letters and digits: unreserved and those
/// that a segment may have (RFC 3986, section 3.3).
const PLAIN: &[u8] = b"-._~!$&'()+,;=:@";

impl PathPattern {
    /// Every path.
    pub fn all() -> Self {
        Self("/*".to_owned())
    }

    /// Whether it is every path.
    pub fn is_all(&self) -> bool {
        self.0 == "/*"
    }

    /// What stands between its slashes; at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0[1..].split('/')
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PathPattern {
    type Err = BadPathPattern;
    fn from_str(text: &str) -> Result<Self, BadPathPattern> {
        let rest = text
            .strip_prefix('/')
            .filter(|_| text.len() <= MAX)
            .ok_or(BadPathPattern::Form)?;
        let count = rest.split('/').count();
        for (at, segment) in rest.split('/').enumerate() {
            check(segment)?;
            let is_last = at + 1 == count;
            if matches!(segment, "." | "..") || segment.is_empty() && !is_last {
                return Err(BadPathPattern::Segment);
            }
        }
        Ok(Self(text.to_owned()))
    }
}

fn check(segment: &str) -> Result<(), BadPathPattern> {
    if segment == "*" {
        return Ok(());
    }
    let mut rest = segment;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '*' => return Err(BadPathPattern::Star),
            '%' => encoded(rest)?,
            '{' => braced(rest)?,
            '}' => return Err(BadPathPattern::Brace),
            c if c.is_ascii_alphanumeric() => 1,
            c if c.is_ascii() && PLAIN.contains(&(c as u8)) => 1,
            c => return Err(BadPathPattern::Character(c)),
        };
        rest = &rest[length..];
    }
    Ok(())
}

/// The length of an encoded byte that has to be encoded.
fn encoded(text: &str) -> Result<usize, BadPathPattern> {
    let bad = || BadPathPattern::Encoding(text.chars().take(3).collect());
    let digits = text.get(1..3).ok_or_else(bad)?;
    let capital = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
    let byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
    let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match digits.bytes().all(capital) && !unreserved && !byte.is_ascii_control() {
        true => Ok(3),
        false => Err(bad()),
    }
}

fn braced(text: &str) -> Result<usize, BadPathPattern> {
    let end = text.find('}').ok_or(BadPathPattern::Brace)?;
    let name = &text[1..end];
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    match (1..=64).contains(&name.len()) && name.bytes().all(inside) {
        true => Ok(end + 1),
        false => Err(BadPathPattern::Brace),
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

as_text! {
    PathPattern: BadPathPattern,
}
