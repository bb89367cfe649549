//! Paths and queries in the form in which they are compared and sent, and what a rule says of them.

use protocol::outbound::PathPattern;

/// Why a path or a query is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// A percent sign without two hexadecimal digits.
    #[error("a percent sign stands before two hexadecimal digits")]
    Percent,
    /// `%00`, `%0d%0a`.
    #[error("an address has no encoded control characters")]
    Control,
    /// `%c0%ae`: not UTF-8, and a dot to some readers.
    #[error("what is encoded in a path is UTF-8")]
    NotUtf8,
    /// A character that stands there only encoded.
    #[error("{0:?} stands in an address only as %XX, since readers disagree about it")]
    Character(char),
    /// More `..` than there are folders.
    #[error("a path does not lead above the root of its host")]
    AboveRoot,
    /// `..;x`, or `..` beside nothing: servers disagree about what these mean.
    #[error("servers disagree about where {0:?} leads")]
    OddDots(String),
    /// Braces that hold no name of a secret.
    #[error("braces stand in a path around the name of a secret's place, and nowhere else")]
    Brace,
}

/// Path and query of what stands behind the host. The fragment stays here.
pub(crate) fn split(rest: &str) -> (&str, Option<&str>) {
    let rest = rest.split('#').next().unwrap_or_default();
    match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    }
}

/// The characters that need no encoding (RFC 3986, section 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// A path in its normal form.
pub(crate) fn normal(path: &str) -> Result<String, BadPath> {
    let path = match path {
        "" => "/",
        path => path,
    };
    let written = encoded(path, b"!$&'()*+,;=:@/{}")?;
    check_braces(&written)?;
    resolved(&written)
}

/// A query in its normal form.
pub(crate) fn normal_query(query: &str) -> Result<String, BadPath> {
    encoded(query, b"!$&'()*+,;=:@/?[]")
}

/// Each byte as it is or as `%XX`, in the one way that there is.
fn encoded(text: &str, plain: &[u8]) -> Result<String, BadPath> {
    let mut out = String::with_capacity(text.len());
    let mut bytes: Vec<u8> = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '%' {
            let digits = rest.get(1..3).ok_or(BadPath::Percent)?;
            let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
            let byte = u8::from_str_radix(digits, 16).map_err(|_| BadPath::Percent)?;
            if !plain {
                return Err(BadPath::Percent);
            }
            // A line feed or a tab is something that forms hold; a carriage return is there to
            // end a field of the head.
            if byte == 0x7f || byte < 0x20 && !matches!(byte, b'\n' | b'\t') {
                return Err(BadPath::Control);
            }
            bytes.push(byte);
            match is_unreserved(byte) {
                true => out.push(char::from(byte)),
                false => out.push_str(&format!("%{byte:02X}")),
            }
            rest = &rest[3..];
            continue;
        }
        if c.is_ascii() && !is_unreserved(c as u8) && !plain.contains(&(c as u8)) {
            return Err(BadPath::Character(c));
        }
        let mut buffer = [0; 4];
        for byte in c.encode_utf8(&mut buffer).bytes() {
            bytes.push(byte);
            match byte.is_ascii() {
                true => out.push(char::from(byte)),
                false => out.push_str(&format!("%{byte:02X}")),
            }
        }
        rest = &rest[c.len_utf8()..];
    }
    match std::str::from_utf8(&bytes) {
        Ok(_) => Ok(out),
        Err(_) => Err(BadPath::NotUtf8),
    }
}

fn check_braces(path: &str) -> Result<(), BadPath> {
    let mut rest = path;
    while let Some(at) = rest.find(['{', '}']) {
        let inside = rest[at..].strip_prefix('{').ok_or(BadPath::Brace)?;
        let (name, after) = inside.split_once('}').ok_or(BadPath::Brace)?;
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            return Err(BadPath::Brace);
        }
        rest = after;
    }
    Ok(())
}

/// Without `.` and `..` (RFC 3986, section 5.2.4), and without what some servers take for these.
fn resolved(path: &str) -> Result<String, BadPath> {
    if path.contains("%0A") || path.contains("%09") {
        return Err(BadPath::Control);
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let is_dots = |segment: &&str| matches!(*segment, "." | "..");
    let odd = segments
        .iter()
        .find(|segment| segment.starts_with(".;") || segment.starts_with("..;"));
    if let Some(odd) = odd {
        return Err(BadPath::OddDots((*odd).to_owned()));
    }
    let last = segments.len().saturating_sub(1);
    let empty_inside = segments[..last].contains(&"");
    if empty_inside && segments.iter().any(is_dots) {
        return Err(BadPath::OddDots("//".to_owned()));
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in &segments {
        match *segment {
            "." => {}
            ".." => drop(kept.pop().ok_or(BadPath::AboveRoot)?),
            segment => kept.push(segment),
        }
    }
    let mut out = format!("/{}", kept.join("/"));
    // What ends with dots is a folder.
    if segments.last().is_some_and(is_dots) && !out.ends_with('/') {
        out.push('/');
    }
    Ok(out)
}

/// Whether a path in its normal form is one of those that a pattern is about. What a star stands
/// for has nothing in it that a server may take for a slash or for dots.
pub(crate) fn fits(pattern: &PathPattern, path: &str) -> bool {
    let mut segments = path[1..].split('/');
    let mut patterns = pattern.segments().peekable();
    while let Some(expected) = patterns.next() {
        let Some(segment) = segments.next() else {
            return false;
        };
        match expected {
            "*" if patterns.peek().is_none() => {
                let all: Vec<&str> = std::iter::once(segment).chain(segments).collect();
                let (last, before) = all.split_last().unwrap_or((&"", &[]));
                let whole = before
                    .iter()
                    .all(|segment| !segment.is_empty() && is_plain(segment));
                return pattern.is_all() && all.len() == 1 && last.is_empty()
                    || whole && is_plain(last);
            }
            "*" if segment.is_empty() || !is_plain(segment) => return false,
            "*" => {}
            expected if expected != segment => return false,
            _ => {}
        }
    }
    segments.next().is_none()
}

/// Whether a segment is one for every server: no encoded slash, backslash or percent sign, no
/// parameters behind a semicolon, no dots alone.
fn is_plain(segment: &str) -> bool {
    let odd = ["%2F", "%5C", "%25", ";", "%3B"];
    !odd.iter().any(|odd| segment.contains(odd)) && !matches!(segment, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(pattern: &str, path: &str) -> bool {
        fits(&pattern.parse().unwrap(), &normal(path).unwrap())
    }

    #[test]
    fn a_pattern_is_about_its_paths_and_no_others() {
        for (pattern, fitting, others) in [
            (
                "/*",
                vec!["/", "/a", "/a/b/", "/%20", "/a.b"],
                vec!["/a%2Fb", "/a//b"],
            ),
            ("/", vec!["/"], vec!["/a"]),
            (
                "/repos/me/notes/*",
                vec![
                    "/repos/me/notes/x",
                    "/repos/me/notes/x/y",
                    "/repos/you/../me/notes/x",
                    "/repos/me/notes/",
                ],
                vec![
                    "/repos/me/notes",
                    "/repos/me/notes-of-evil/x",
                    "/repos/evil/notes/x",
                    "/repos/me/notes/../../evil/x",
                    "/repos/me/notes/%2e%2e/evil/x",
                    "/repos/me/notes/..%2fevil",
                    "/repos/me/notes/%252e%252e/x",
                    "/Repos/me/notes/x",
                    "/repos/me/notes/..%5cevil",
                    "/repos/me/notes/a;b",
                    "/repos/me/notes//x",
                    "//repos/me/notes/x",
                    "/x/repos/me/notes/x",
                ],
            ),
            (
                "/a/*/b",
                vec!["/a/x/b"],
                vec!["/a/b", "/a/x/y/b", "/a//b", "/a/x%2Fy/b", "/a/x/b/c"],
            ),
            (
                "/projects/me%2Fnotes/*",
                vec!["/projects/me%2fnotes/x"],
                vec!["/projects/me/notes/x", "/projects/me%2Fnotes/a%2Fb"],
            ),
            (
                "/bot{bot}/*",
                vec!["/bot{bot}/sendMessage"],
                vec!["/bot123:abc/sendMessage", "/bot/sendMessage"],
            ),
        ] {
            for path in fitting {
                assert!(fit(pattern, path), "{pattern} {path}");
            }
            for path in others {
                assert!(!fit(pattern, path), "{pattern} {path}");
            }
        }
    }
}
