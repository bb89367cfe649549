//! Addresses of servers, as the configuration writes them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use protocol::control::Scheme;

/// `scheme://host[:port][/path]`, without user, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// How to speak to it.
    pub scheme: Scheme,
    /// A name in lower case or an address, without brackets.
    pub host: String,
    /// The scheme's own if none was written.
    pub port: u16,
    /// Empty, or beginning with `/` and not ending with it.
    pub path: String,
}

/// Why a text is not such an address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadUrl {
    /// Neither http nor https.
    #[error("an address begins with http:// or https://")]
    Scheme,
    /// Empty, or with characters that a name does not have.
    #[error("{0:?} is not a host name or an address")]
    Host(String),
    /// Not a number from 1 to 65535.
    #[error("{0:?} is not a port")]
    Port(String),
    /// Credentials, query, fragment, spaces, or dots that lead up.
    #[error("an address here has no user, query or fragment, and a plain path")]
    Extra,
}

impl BaseUrl {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let (scheme, rest, default) =
            match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
                (Some(rest), _) => (Scheme::Http, rest, 80),
                (_, Some(rest)) => (Scheme::Https, rest, 443),
                (None, None) => return Err(BadUrl::Scheme),
            };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '~');
        if authority.contains('@')
            || !path.chars().all(plain)
            || path.split('/').any(|part| part == "..")
        {
            return Err(BadUrl::Extra);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest
                    .split_once(']')
                    .ok_or_else(|| BadUrl::Host(authority.to_owned()))?;
                if host.parse::<Ipv6Addr>().is_err() {
                    return Err(BadUrl::Host(host.to_owned()));
                }
                (
                    host,
                    after.strip_prefix(':').or(after.is_empty().then_some("")),
                )
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
                None => (authority, Some("")),
            },
        };
        let port = match port {
            Some("") => default,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|p| *p != 0)
                .ok_or_else(|| BadUrl::Port(digits.to_owned()))?,
            None => return Err(BadUrl::Port(authority.to_owned())),
        };
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let bad = host.is_empty()
            || host.len() > 253
            || !(host.chars().all(name) || host.parse::<IpAddr>().is_ok());
        if bad {
            return Err(BadUrl::Host(host.to_owned()));
        }
        Ok(Self {
            scheme,
            host: host.to_ascii_lowercase(),
            port,
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// Whether the host can only be this machine: `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        write!(
            f,
            "{scheme}://{open}{}{close}:{}{}",
            self.host, self.port, self.path
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        let shown = |text: &str| BaseUrl::parse(text).unwrap().to_string();
        assert_eq!(shown("http://127.0.0.1:11434"), "http://127.0.0.1:11434");
        assert_eq!(shown("http://LocalHost/v1/"), "http://localhost:80/v1");
        assert_eq!(shown("https://[::1]:8080"), "https://[::1]:8080");
        assert!(BaseUrl::parse("http://127.1.2.3").unwrap().is_loopback());
        assert!(BaseUrl::parse("http://[::1]").unwrap().is_loopback());
        assert!(
            !BaseUrl::parse("http://localhost.example.com")
                .unwrap()
                .is_loopback()
        );
        assert!(!BaseUrl::parse("http://0.0.0.0:1").unwrap().is_loopback());
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "ftp://x",
            "http://",
            "http://a:0",
            "http://a:b",
            "http://a:",
            "http://u@h",
            "http://h/?q",
            "http://h/../x",
            "http://h h",
            "http://[::1",
            "http://[x]:1",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad:?}");
        }
    }
}
