//! Where a link leads, read as leniently as any client reads it.

use crate::decode::html_text;
use crate::decode::plain::{Read, read};
use crate::placeholder::looks_generated;

/// Where a link leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The address in the plainest form.
    pub(super) address: String,
    /// Lower case, without user, port and trailing dot; of an address of mail, what is behind its `@`.
    /// Empty for what is no host's.
    pub(super) host: String,
    pub(super) leads: Leads,
}

/// To what kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// To a host.
    Out,
    /// To something that runs where it is followed.
    Code,
}

/// Where an address of a link, an image or an attribute leads; `None` if it stays where it is.
pub(super) fn target(raw: &str) -> Option<Target> {
    let address = plainest(raw);
    let lower = address.to_ascii_lowercase();
    let scheme = lower
        .find(':')
        .map(|colon| &lower[..colon])
        .filter(|scheme| is_scheme(scheme));
    let rest = scheme.map_or(lower.as_str(), |scheme| &lower[scheme.len() + 1..]);
    if lower.starts_with("www.") {
        let host = host(&lower);
        return Some(out(address, host));
    }
    match scheme {
        Some("javascript" | "vbscript") => Some(code(address)),
        Some("data") if is_harmless_data(rest) => None,
        Some("data") => Some(code(address)),
        Some("mailto" | "sms" | "tel" | "sip" | "xmpp") => {
            let host = rest.split(['?', '#']).next().unwrap_or_default();
            let host = host.rsplit('@').next().unwrap_or_default().to_owned();
            Some(out(address, host))
        }
        Some(scheme) if scheme.starts_with("hxxp") => None,
        Some("http" | "https" | "ftp" | "ws" | "wss") => {
            // With something that is no host in its place, it is no link to one that is allowed.
            let rest = rest.trim_start_matches('/');
            (!rest.is_empty()).then(|| out(address, host(rest)))
        }
        Some(_) => rest
            .strip_prefix("//")
            .map(host)
            .filter(|h| !h.is_empty())
            .map(|host| out(address, host)),
        None if rest.starts_with("//") => {
            let host = host(rest.trim_start_matches('/'));
            (!host.is_empty()).then(|| out(address, host))
        }
        None => None,
    }
}

fn out(address: String, host: String) -> Target {
    Target {
        address,
        host,
        leads: Leads::Out,
    }
}

fn code(address: String) -> Target {
    Target {
        address,
        host: String::new(),
        leads: Leads::Code,
    }
}

fn is_scheme(text: &str) -> bool {
    let mut letters = text.bytes();
    letters.next().is_some_and(|b| b.is_ascii_alphabetic())
        && letters.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Pictures have their data with them and carry none out; a page in an address runs.
fn is_harmless_data(rest: &str) -> bool {
    [
        "image/png",
        "image/jpeg",
        "image/jpg",
        "image/gif",
        "image/webp",
        "image/bmp",
        "image/avif",
        "font/",
        "text/plain",
        "application/json",
    ]
    .iter()
    .any(|kind| rest.starts_with(kind))
}

/// Escapes read, blanks and invisible signs taken out, lookalikes as what they look like, backslashes
/// as slashes: what browsers do with an address (WHATWG URL), and somewhat more.
fn plainest(raw: &str) -> String {
    let read_out: String = html_text(raw)
        .chars()
        .filter_map(|sign| match read(sign) {
            Read::Same => Some(sign),
            Read::As(byte) => Some(char::from(byte)),
            Read::Hidden(_) => None,
        })
        .filter(|sign| !sign.is_control() && *sign != ' ')
        .collect();
    let slashes = read_out
        .replace("\\/", "/")
        .replace("\\:", ":")
        .replace('\\', "/");
    let schemes = ["%3a%2f%2f", "%3A%2F%2F", ":%2f%2f", ":%2F%2F"];
    schemes
        .iter()
        .fold(slashes, |text, encoded| text.replacen(encoded, "://", 1))
}

/// The host at the beginning of what is behind the slashes, in lower case.
pub(super) fn host(rest: &str) -> String {
    let authority = rest
        .split(['/', '?', '#', '"', '\'', '<', '>', ')', ' '])
        .next()
        .unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let host = percent(host).to_lowercase();
    host.trim_end_matches('.').to_owned()
}

fn percent(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let byte = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        rest = if byte.is_some() { &after[2..] } else { after };
        bytes.push(byte.unwrap_or(*first));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Target {
    /// Whether more goes out with it than the wish to see a page.
    pub(super) fn carries_data(&self) -> bool {
        if self.leads == Leads::Code {
            return true;
        }
        let rest = self
            .address
            .split_once("//")
            .map_or(self.address.as_str(), |(_, rest)| rest);
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (path, fragment) = path.split_once('#').unwrap_or((path, ""));
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        authority.contains('@') && !self.address.starts_with("mailto:")
            || !query.is_empty()
            || is_data_fragment(fragment)
            || self.host.split('.').any(is_data_label)
            || self.host.split('.').count() > 6
            || is_data_path(path)
    }

    /// As text that no client makes a link of.
    pub(super) fn inert(&self) -> String {
        let address: String = self
            .address
            .chars()
            .map(|sign| match sign {
                '[' | ']' | '<' | '>' | '(' | ')' | '`' | '"' => '_',
                sign => sign,
            })
            .collect();
        match self.leads {
            Leads::Code => address.replacen(':', "[:]", 1).replace('.', "[.]"),
            Leads::Out => inert_address(&address),
        }
    }
}

/// An address in plain form with its scheme and its host's dots broken.
fn inert_address(address: &str) -> String {
    let (scheme, rest) = match address.split_once("//") {
        Some((scheme, rest)) => (scheme, rest),
        None => match address.split_once(':') {
            Some((scheme, rest)) => {
                return format!(
                    "{scheme}[:]{}",
                    rest.replace('.', "[.]").replace('@', "[@]")
                );
            }
            None => ("", address),
        },
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = authority.replace('.', "[.]");
    let path = path.replace("://", "[:]//");
    match inert_scheme(scheme.trim_end_matches(':')) {
        scheme if scheme.is_empty() => format!("{authority}{path}"),
        scheme => format!("{scheme}//{authority}{path}"),
    }
}

/// A scheme that no client knows, with its colon.
pub(super) fn inert_scheme(scheme: &str) -> String {
    match scheme.to_ascii_lowercase().as_str() {
        "http" => "hxxp:".to_owned(),
        "https" => "hxxps:".to_owned(),
        "" => String::new(),
        _ => format!("{scheme}[:]"),
    }
}

fn is_data_fragment(fragment: &str) -> bool {
    fragment.len() >= 60
        || fragment.contains(['=', '%', '&'])
        || fragment.len() >= 12 && looks_generated(fragment)
}

fn is_data_label(label: &str) -> bool {
    label.len() >= 40 || (label.len() >= 16 && looks_generated(label))
}

fn is_data_path(path: &str) -> bool {
    let mut before = "";
    path.split('/').any(|segment| {
        let data = is_data_segment(before, segment);
        before = segment;
        data
    })
}

fn is_data_segment(before: &str, segment: &str) -> bool {
    let hex = segment.bytes().all(|b| b.is_ascii_hexdigit());
    if hex
        && segment.len() == 40
        && matches!(before, "commit" | "blob" | "tree" | "raw" | "commits")
    {
        return false;
    }
    let segment_words = segment.split(['-', '_', '.', '+', ',', '~', '@']);
    let longest = segment_words.clone().map(str::len).max().unwrap_or(0);
    segment.matches('%').count() >= 3
        || longest >= 32
        || segment.len() >= 150
        || segment_words
            .filter(|word| word.len() >= 16)
            .any(looks_generated)
        || segment.len() >= 20 && looks_generated(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host_of(raw: &str) -> String {
        target(raw).map_or(String::new(), |target| target.host)
    }

    #[test]
    fn every_spelling_of_an_address_leads_to_its_host() {
        for raw in [
            "https://evil.example/x",
            "HTTPS://EVIL.example./x",
            "//evil.example/x",
            "\\\\evil.example/x",
            "https:\\\\evil.example\\x",
            "https:/evil.example/x",
            "https:evil.example/x",
            " ht\ttps://ev\nil.example/x",
            "&#104;ttps&colon;//evil.example/x",
            "https://user:pass@evil.example:8443/x",
            "https://ｅｖｉｌ．example/x",
            "https://evil%2eexample/x",
            "https&#58;&#47;&#47;evil.example",
            "mailto:someone@evil.example?body=x",
        ] {
            assert_eq!(host_of(raw), "evil.example", "{raw}");
        }
        for raw in [
            "/local/path",
            "page.html",
            "#part",
            "",
            "data:image/png;base64,iVBORw0",
            "hxxps://evil[.]example",
        ] {
            assert_eq!(target(raw), None, "{raw}");
        }
        assert_eq!(
            target("javascript:alert(1)").map(|t| t.leads),
            Some(Leads::Code)
        );
        assert_eq!(
            target("data:text/html,x").map(|t| t.leads),
            Some(Leads::Code)
        );
    }

    #[test]
    fn what_carries_data_is_told_from_a_plain_link() {
        for raw in [
            "https://evil.example/?q=secret",
            "https://evil.example/#data=secret",
            "https://user@evil.example/",
            "https://evil.example/c2VjcmV0IGRhdGEgb2YgdGhlIHVzZXI",
            "https://evil.example/my%20secret%20data%20",
            "https://k8wq2zz71m4x9p3v7.evil.example/",
        ] {
            assert!(target(raw).is_some_and(|t| t.carries_data()), "{raw}");
        }
        for raw in [
            "https://docs.example/guide/getting-started",
            "https://docs.example/guide#installation",
            "https://code.example/a/b/commit/3f786850e387550fdab836ed7e6dc881de23001b",
            "https://news.example/2026/11/26/a-long-title-of-an-article-with-many-words-in-it",
            "https://docs.rs/serde/1.0.229/serde/trait.Serialize.html",
        ] {
            assert!(target(raw).is_some_and(|t| !t.carries_data()), "{raw}");
        }
    }

    #[test]
    fn what_is_inert_leads_nowhere() {
        for (raw, inert) in [
            ("https://evil.example/x.png", "hxxps://evil[.]example/x.png"),
            ("//evil.example/x", "evil[.]example/x"),
            ("ftp://evil.example/x", "ftp[:]//evil[.]example/x"),
            ("mailto:a@evil.example", "mailto[:]a[@]evil[.]example"),
            ("javascript:alert(1)", "javascript[:]alert_1_"),
        ] {
            let target = target(raw).expect("it leads somewhere");
            assert_eq!(target.inert(), inert);
        }
    }
}
