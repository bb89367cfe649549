//! Hosts as they stand in an address. What two readers could take for two hosts is refused.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use unicode_normalization::is_nfc;
use unicode_security::{GeneralSecurityProfile as _, MixedScript as _, skeleton};

use crate::punycode;

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name: lower-case ASCII, without a dot at its end. What it means is another question.
    Name(String),
    /// An address, written in the one way that has no other reading.
    Address(IpAddr),
}

/// Why a text is no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// Nothing.
    #[error("it names no host")]
    Empty,
    /// Characters that no name has.
    #[error("a host has no {0:?}")]
    Character(char),
    /// `%41.example.com`.
    #[error("a host is not percent-encoded; some readers would decode it")]
    Encoded,
    /// `localhost.`
    #[error("a host that ends with a dot is another one to some readers")]
    TrailingDot,
    /// A label that is empty, longer than 63 bytes, or has a hyphen at its end.
    #[error("a label of a host has 1 to 63 letters, digits and hyphens, and no hyphen at its ends")]
    Label,
    /// Longer than 253 bytes.
    #[error("a host has at most 253 bytes")]
    TooLong,
    /// `2130706433`, `0x7f.1`, `0177.0.0.1`, `127.1`: the C library reads these as addresses.
    #[error("{0:?} is an address in an odd form")]
    OddAddress(String),
    /// `[::1`, `[1.2.3.4]`.
    #[error("brackets hold an IPv6 address and nothing else")]
    Brackets,
    /// `[fe80::1%eth0]`.
    #[error("an address with a zone leads to a wire of this machine")]
    Zone,
    /// Letters that are written in several ways, or that are none.
    #[error("{0:?} is written with characters that readers turn into others")]
    OddLetters(String),
    /// Letters of several scripts in one label.
    #[error("{0:?} mixes scripts, as names do that want to be taken for others")]
    MixedScripts(String),
    /// All letters look like those of another script.
    #[error("{shown:?} looks like {like:?} and is another name")]
    Lookalike {
        /// The label, as a person would see it.
        shown: String,
        /// What it looks like.
        like: String,
    },
    /// `xn--` and something that is not the one encoding of a name.
    #[error("{0:?} is not the encoding of a name")]
    BadPunycode(String),
}

impl Host {
    /// Reads the host of an address, brackets included.
    pub fn parse(text: &str) -> Result<Self, BadHost> {
        if text.is_empty() {
            return Err(BadHost::Empty);
        }
        if let Some(rest) = text.strip_prefix('[') {
            return bracketed(rest);
        }
        if text.contains('%') {
            return Err(BadHost::Encoded);
        }
        if let Some(odd) = text.chars().find(|c| !(is_name_character(*c) || *c == '.')) {
            return Err(match is_in_a_name(odd) {
                true => BadHost::OddLetters(text.to_owned()),
                false => BadHost::Character(odd),
            });
        }
        if text.ends_with('.') {
            return Err(BadHost::TrailingDot);
        }
        let labels: Vec<String> = text
            .split('.')
            .map(|text| label(&text.to_ascii_lowercase()))
            .collect::<Result<_, _>>()?;
        let name = labels.join(".");
        if name.len() > 253 {
            return Err(BadHost::TooLong);
        }
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        match labels.last() {
            Some(last) if reads_as_number(last) => Err(BadHost::OddAddress(name)),
            Some(_) | None => Ok(Self::Name(name)),
        }
    }

    /// The name, if it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

fn bracketed(rest: &str) -> Result<Host, BadHost> {
    let inside = rest.strip_suffix(']').ok_or(BadHost::Brackets)?;
    if inside.contains('%') {
        return Err(BadHost::Zone);
    }
    let address = inside.parse::<Ipv6Addr>().map_err(|_| BadHost::Brackets)?;
    Ok(Host::Address(IpAddr::V6(address)))
}

fn is_name_character(c: char) -> bool {
    c == '-' || c.is_ascii_alphanumeric() || !c.is_ascii() && is_settled(c)
}

/// Whether a letter beyond ASCII is written in one way only and read as itself by all: allowed
/// in identifiers (UTS 39), in lower case, no digit, and none of those on which the two versions
/// of IDNA disagree (UTS 46, section 4).
fn is_settled(c: char) -> bool {
    c.identifier_allowed()
        && c.to_lowercase().eq([c])
        && !c.is_numeric()
        && !matches!(c, 'ß' | 'ς' | '\u{200c}' | '\u{200d}' | '·' | '・')
}

/// Whether a character is there to be taken for one of a name, or for none at all.
fn is_in_a_name(c: char) -> bool {
    !c.is_ascii() && !c.is_control() && !c.is_whitespace()
}

/// One label, in lower case as to ASCII, in its ASCII form.
fn label(text: &str) -> Result<String, BadHost> {
    let ascii = match text.is_ascii() {
        true => text.to_owned(),
        false => {
            if !is_nfc(text) {
                return Err(BadHost::OddLetters(text.to_owned()));
            }
            let code = punycode::encode(text).ok_or(BadHost::Label)?;
            format!("xn--{code}")
        }
    };
    let fits = (1..=63).contains(&ascii.len()) && !ascii.starts_with('-') && !ascii.ends_with('-');
    if !fits {
        return Err(BadHost::Label);
    }
    if let Some(code) = ascii.strip_prefix("xn--") {
        check_letters(&ascii, code)?;
    }
    Ok(ascii)
}

/// What a person would see of an encoded label is looked at.
fn check_letters(ascii: &str, code: &str) -> Result<(), BadHost> {
    let bad = || BadHost::BadPunycode(ascii.to_owned());
    let shown = punycode::decode(code).ok_or_else(bad)?;
    let again = punycode::encode(&shown).ok_or_else(bad)?;
    if shown.is_ascii() || again != code {
        return Err(bad());
    }
    let allowed = |c: char| is_name_character(c) || c == 'ß' || c == 'ς';
    if !is_nfc(&shown) || !shown.chars().all(allowed) {
        return Err(BadHost::OddLetters(shown));
    }
    if !shown.as_str().is_single_script() {
        return Err(BadHost::MixedScripts(shown));
    }
    let like: String = skeleton(&shown).collect();
    match like.is_ascii() {
        true => Err(BadHost::Lookalike { shown, like }),
        false => Ok(()),
    }
}

/// What a person may take a name for: lookalikes as what they look like, without accents.
pub(crate) fn seen_as(name: &str) -> String {
    let shown = |label: &str| {
        let code = label.strip_prefix("xn--");
        code.and_then(punycode::decode)
            .unwrap_or_else(|| label.to_owned())
    };
    let text: Vec<String> = name.split('.').map(shown).collect();
    let text = text.join(".");
    let seen: String = skeleton(&text)
        .filter(|c| !matches!(u32::from(*c), 0x300..=0x36f))
        .collect();
    // One sees no difference between these either.
    let seen = seen.to_lowercase().replace("rn", "m").replace("vv", "w");
    skeleton(&seen.replace('i', "l")).collect()
}

/// Whether the last label makes a resolver take the name for an address.
fn reads_as_number(last: &str) -> bool {
    let hex = last.strip_prefix("0x");
    last.bytes().all(|b| b.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        Host::parse(text).unwrap().to_string()
    }

    #[test]
    fn names_are_read_in_one_form() {
        assert_eq!(read("API.Example.COM"), "api.example.com");
        assert_eq!(read("münchen.de"), "xn--mnchen-3ya.de");
        assert_eq!(read("例え.jp"), "xn--r8jz45g.jp");
        assert_eq!(read("xn--strae-oqa.de"), "xn--strae-oqa.de");
        assert_eq!(
            read("r3---sn-4g5e.googlevideo.com"),
            "r3---sn-4g5e.googlevideo.com"
        );
        assert_eq!(read("127.0.0.1"), "127.0.0.1");
        assert_eq!(read("[::1]"), "[::1]");
        assert_eq!(read("localhost"), "localhost");
    }

    #[test]
    fn each_odd_form_is_refused_by_name() {
        type Row<'a> = (fn(&BadHost) -> bool, &'a [&'a str]);
        let table: &[Row<'_>] = &[
            (|bad| *bad == BadHost::Empty, &[""]),
            (
                |bad| matches!(bad, BadHost::OddAddress(_)),
                &[
                    "2130706433",
                    "017700000001",
                    "0177.0.0.1",
                    "0x7f.1",
                    "0x7f000001",
                    "0x7F.0.0.0x1",
                    "127.1",
                    "127.0.1",
                    "127.0.0.01",
                    "1.2.3.4.5",
                    "999.1.1.1",
                    "example.1",
                    "example.0x",
                    "0",
                ],
            ),
            (
                |bad| *bad == BadHost::TrailingDot,
                &["localhost.", "169.254.169.254.", "example.com.", "."],
            ),
            (
                |bad| *bad == BadHost::Label,
                &["a..com", ".com", "-a.com", "a-.com", &"a".repeat(64)],
            ),
            (
                |bad| matches!(bad, BadHost::Character(_)),
                &[
                    "a b.com",
                    "a_b.com",
                    "a\tb.com",
                    "a\n.com",
                    "a\\b",
                    "a,b",
                    "a;b",
                    "a!b",
                    "a'b",
                    "a\u{a0}b.com",
                    "a]",
                ],
            ),
            (
                |bad| *bad == BadHost::Encoded,
                &["%31%32%37.0.0.1", "ex%61mple.com"],
            ),
            (
                |bad| *bad == BadHost::Zone,
                &["[fe80::1%25eth0]", "[fe80::1%eth0]"],
            ),
            (
                |bad| *bad == BadHost::Brackets,
                &[
                    "[::1",
                    "[127.0.0.1]",
                    "[example.com]",
                    "[]",
                    "[::1].com",
                    "[[::1]]",
                    "[0:0:0:0:0:0:0:0:1]",
                ],
            ),
            (
                |bad| matches!(bad, BadHost::OddLetters(_)),
                &[
                    "①②⑦.⓪.⓪.①",
                    "１２７.0.0.1",
                    "exam\u{ad}ple.com",
                    "exam\u{200b}ple.com",
                    "example。com",
                    "example．com",
                    "ＥＸＡＭＰＬＥ.com",
                    "ⓔxample.com",
                    "straße.de",
                    "mu\u{308}nchen.de",
                    "MÜNCHEN.de",
                    "١٢٧.com",
                    "a\u{202e}b.com",
                    "ﬁle.com",
                    "℡.com",
                    "xn--n3h.com",
                ],
            ),
            (
                |bad| matches!(bad, BadHost::MixedScripts(_)),
                &["pаypal.com", "gοogle.com", "xn--pypal-4ve.com"],
            ),
            (
                |bad| matches!(bad, BadHost::Lookalike { .. }),
                &["аррӏе.com", "xn--80ak6aa92e.com", "ѕсоре.com"],
            ),
            (
                |bad| matches!(bad, BadHost::BadPunycode(_)),
                &["xn--abc-a1.com", "xn--99999999999.com"],
            ),
        ];
        for (is, texts) in table {
            for text in *texts {
                let bad = Host::parse(text).unwrap_err();
                assert!(is(&bad), "{text:?}: {bad:?}");
            }
        }
        let long = [
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(63),
        ]
        .join(".");
        assert_eq!(Host::parse(&long), Err(BadHost::TooLong));
    }

    #[test]
    fn what_looks_alike_is_seen_as_the_same() {
        for other in ["xn--gthub-n4a.com", "g1thub.com", "githud.com"] {
            let same = seen_as(other) == seen_as("github.com");
            assert_eq!(same, other != "githud.com", "{other}");
        }
        assert_eq!(seen_as("rnicrosoft.com"), seen_as("microsoft.com"));
        assert_eq!(seen_as("g00gle.com"), seen_as("google.com"));
    }
}
