//! Addresses of the web, read in one way only. What is read is what is judged, shown and sent.

use std::fmt;

use crate::host::{BadHost, Host};
use crate::path::{self, BadPath};

/// The longest address in bytes.
pub const MAX_URL: usize = 8 * 1024;

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP in the clear.
    Http,
    /// HTTP over TLS.
    Https,
    /// WebSockets in the clear (RFC 6455); for channels only.
    Ws,
    /// WebSockets over TLS; for channels only.
    Wss,
}

impl Scheme {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// The port where none is written.
    pub fn usual_port(self) -> u16 {
        match self {
            Self::Http | Self::Ws => 80,
            Self::Https | Self::Wss => 443,
        }
    }

    /// Whether it goes over TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Wss)
    }

    /// Whether it is a request with its answer.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

/// An address: scheme, host, port, path and query. No user, no fragment.
///
/// The path is in its normal form (RFC 3986, section 6.2.2): `.` and `..`, also as `%2e`, are
/// resolved, what need not be encoded is not, other characters than ASCII are the `%XX` of their
/// UTF-8. `{name}` is left for a secret that is put there when it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    host: Host,
    port: u16,
    path: String,
    query: Option<String>,
}

/// Why a text is no address that something could be sent to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Longer than [`MAX_URL`].
    #[error("an address has at most {MAX_URL} bytes")]
    TooLong,
    /// A blank, a control character or something invisible.
    #[error("an address has no {0:?}; some readers leave it out and read another address")]
    Invisible(char),
    /// Readers disagree whether it is a slash.
    #[error("an address has no backslash; some readers take it for a slash")]
    Backslash,
    /// No scheme that is spoken here.
    #[error("{0:?} is not spoken here: an address begins with https:// or http://")]
    Scheme(String),
    /// `https:/example.com`, `https:///example.com`.
    #[error("two slashes and a host stand behind the scheme")]
    Slashes,
    /// `https://user:password@host`, and `https://good.example@evil.example`.
    #[error("an address has no user; what stands before an @ is not the host")]
    User,
    /// The host.
    #[error(transparent)]
    Host(#[from] BadHost),
    /// Not a number from 1 to 65535, written without zeros before it.
    #[error("{0:?} is not a port: a number from 1 to 65535")]
    Port(String),
    /// The path or the query.
    #[error(transparent)]
    Path(#[from] BadPath),
}

impl Url {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        check_characters(text)?;
        let (scheme, rest) = split_scheme(text)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if authority.contains('@') {
            return Err(BadUrl::User);
        }
        if authority.is_empty() {
            return Err(BadUrl::Slashes);
        }
        let (host, port) = split_port(authority);
        let host = Host::parse(host)?;
        let port = match port {
            Some(digits) => port_of(digits)?,
            None => scheme.usual_port(),
        };
        let (path, query) = path::split(rest);
        Ok(Self {
            scheme,
            host,
            port,
            path: path::normal(path)?,
            query: query.map(path::normal_query).transpose()?,
        })
    }

    /// How the host is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, written or not.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path in its normal form, beginning with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What stands behind `?`.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Path and query, as they are sent.
    pub fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// Host and port, as they are sent in the Host field.
    pub fn authority(&self) -> String {
        match self.port == self.scheme.usual_port() {
            true => self.host.to_string(),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Whether scheme, host and port are the same.
    pub fn is_same_origin(&self, other: &Self) -> bool {
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
    }

    /// The names in braces in its path, where secrets are to be put.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.path
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
    }

    /// The address with another path and query on the same host.
    pub(crate) fn with_target(&self, path: &str, query: Option<&str>) -> Result<Self, BadUrl> {
        Ok(Self {
            path: path::normal(path)?,
            query: query.map(path::normal_query).transpose()?,
            ..self.clone()
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = (self.scheme.as_str(), self.authority());
        write!(f, "{scheme}://{authority}{}", self.target())
    }
}

/// Refuses what readers leave out, or take for something else.
pub(crate) fn check_characters(text: &str) -> Result<(), BadUrl> {
    if text.len() > MAX_URL {
        return Err(BadUrl::TooLong);
    }
    let invisible = |c: &char| c.is_control() || c.is_whitespace();
    if let Some(c) = text.chars().find(invisible) {
        return Err(BadUrl::Invisible(c));
    }
    match text.contains('\\') {
        true => Err(BadUrl::Backslash),
        false => Ok(()),
    }
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), BadUrl> {
    let (name, rest) = text
        .split_once(':')
        .ok_or_else(|| BadUrl::Scheme(text.chars().take(40).collect()))?;
    let schemes = [Scheme::Https, Scheme::Http, Scheme::Wss, Scheme::Ws];
    let scheme = (schemes.into_iter())
        .find(|scheme| scheme.as_str().eq_ignore_ascii_case(name))
        .ok_or_else(|| BadUrl::Scheme(name.chars().take(40).collect()))?;
    match rest.strip_prefix("//") {
        Some(rest) => Ok((scheme, rest)),
        None => Err(BadUrl::Slashes),
    }
}

/// The host as it is written, and the digits behind it.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    // Colons within brackets belong to the address.
    let from = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[from..].find(':') {
        Some(at) => (&authority[..from + at], Some(&authority[from + at + 1..])),
        None => (authority, None),
    }
}

fn port_of(digits: &str) -> Result<u16, BadUrl> {
    let bad = || BadUrl::Port(digits.chars().take(40).collect());
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    let port = digits.parse().map_err(|_| bad())?;
    match plain {
        true => Ok(port),
        false => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        Url::parse(text).unwrap().to_string()
    }

    #[test]
    fn an_address_has_one_form() {
        for (text, form) in [
            ("https://example.com", "https://example.com/"),
            ("HTTPS://Example.COM:443/", "https://example.com/"),
            ("http://example.com:80?x#y", "http://example.com/?x"),
            ("http://example.com:443/a", "http://example.com:443/a"),
            ("https://example.com#a@b", "https://example.com/"),
            ("https://example.com/a?b@c", "https://example.com/a?b@c"),
            ("https://example.com/a/../b/./c", "https://example.com/b/c"),
            ("https://example.com/a/%2e%2E/b", "https://example.com/b"),
            ("https://example.com/a/..", "https://example.com/"),
            ("https://example.com/a/.", "https://example.com/a/"),
            (
                "https://example.com/%7Eme/%c3%bc",
                "https://example.com/~me/%C3%BC",
            ),
            (
                "https://example.com/ü?q=ü",
                "https://example.com/%C3%BC?q=%C3%BC",
            ),
            (
                "https://example.com/bot{bot}/x",
                "https://example.com/bot{bot}/x",
            ),
            ("https://[::1]:8080/", "https://[::1]:8080/"),
            ("wss://example.com/", "wss://example.com/"),
            ("https://example.com/a//b", "https://example.com/a//b"),
            ("https://example.com/?", "https://example.com/?"),
        ] {
            assert_eq!(read(text), form);
            assert_eq!(read(form), form, "it reads back");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        type Row<'a> = (fn(&BadUrl) -> bool, &'a [&'a str]);
        let table: &[Row<'_>] = &[
            (
                |bad| matches!(bad, BadUrl::Scheme(_)),
                &[
                    "",
                    "example.com",
                    "//example.com/",
                    "/etc/passwd",
                    "file:///etc/passwd",
                    "gopher://x/_",
                    "dict://x",
                    "ftp://x",
                    "ldap://x",
                    "jar:http://x!/",
                    "data:text/html,x",
                    "javascript:alert(1)",
                    "blob:https://x",
                    "unix:/run/x",
                    "view-source:https://x",
                    "https",
                    "h\u{74}tps+x://a",
                    "netdoc:///x",
                    "tftp://x",
                    "phar://x",
                    "localhost:80/",
                ],
            ),
            (
                |bad| *bad == BadUrl::Slashes,
                &[
                    "http:example.com",
                    "http:/example.com",
                    "http:///example.com",
                    "https://",
                    "https://?x",
                    "http:////x",
                ],
            ),
            (
                |bad| *bad == BadUrl::User,
                &[
                    "http://good@evil.com",
                    "http://a:b@evil.com/",
                    "http://@evil.com",
                    "http://good.com:80@evil.com",
                    "http://good%40evil@x.com",
                ],
            ),
            (
                |bad| *bad == BadUrl::Backslash,
                &[
                    "http:\\\\evil.com",
                    "http://good\\@evil.com",
                    "https://a.com\\b",
                    "https://a.com/x\\y",
                    "https:/\\a.com",
                ],
            ),
            (
                |bad| matches!(bad, BadUrl::Invisible(_)),
                &[
                    " http://a.com",
                    "http://a.com ",
                    "http://a.com/a b",
                    "ht\ntp://a.com",
                    "http://a\t.com",
                    "http://a.com/\r\nHost: b",
                    "http://a.com/\0",
                    "http://a.com/\u{a0}",
                    "http://a.com/\u{2028}",
                ],
            ),
            (
                |bad| matches!(bad, BadUrl::Port(_)),
                &[
                    "http://a.com:0",
                    "http://a.com:65536",
                    "http://a.com:-1",
                    "http://a.com:",
                    "http://a.com:080",
                    "http://a.com:80x",
                    "http://a.com:+80",
                    "http://a.com:80:90",
                ],
            ),
            (
                |bad| matches!(bad, BadUrl::Host(_)),
                &[
                    "http://127.1/",
                    "http://[::1/",
                    "http://a..com",
                    "http://:80",
                    "http://exa%6dple.com",
                    "http://[::1]x/",
                ],
            ),
            (
                |bad| matches!(bad, BadUrl::Path(_)),
                &[
                    "http://a.com/%",
                    "http://a.com/%2",
                    "http://a.com/%zz",
                    "http://a.com/%00",
                    "http://a.com/../x",
                    "http://a.com/%2e%2e/x",
                    "http://a.com/a/../../x",
                    "http://a.com/a//../b",
                    "http://a.com/..;/x",
                    "http://a.com/a/..;x=1/b",
                    "http://a.com/<x>",
                    "http://a.com/\"",
                    "http://a.com/{",
                    "http://a.com/{A}",
                    "http://a.com/a|b",
                    "http://a.com/%0d%0aHost:%20b",
                    "http://a.com/?a=%0D%0Ab",
                    "http://a.com/?%",
                    "http://a.com/%c0%ae%c0%ae/x",
                    "http://a.com/?x=\"",
                    "http://a.com/a^b",
                ],
            ),
        ];
        for (is, texts) in table {
            for text in *texts {
                let bad = Url::parse(text).unwrap_err();
                assert!(is(&bad), "{text:?}: {bad:?}");
            }
        }
        let long = format!("http://a.com/{}", "x".repeat(MAX_URL));
        assert_eq!(Url::parse(&long), Err(BadUrl::TooLong));
    }

    #[test]
    fn the_names_in_braces_are_known() {
        let url = Url::parse("https://a.com/bot{bot}/{x-y}").unwrap();
        assert_eq!(url.placeholders().collect::<Vec<_>>(), ["bot", "x-y"]);
    }
}
