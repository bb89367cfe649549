//! Where an answer sends a request on.

use crate::url::{self, BadUrl, Scheme, Url};

/// The most redirects that are followed.
pub const MAX_REDIRECTS: usize = 5;

/// The next address, which is judged as if it were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The address.
    pub url: Url,
    /// What becomes of the credential.
    pub credential: AfterRedirect,
}

/// What becomes of a credential at a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRedirect {
    /// Scheme, host and port are as before, and so is whom it goes to.
    Kept,
    /// It is another server, which gets none.
    Dropped,
}

/// Why a redirect is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRedirect {
    /// Where it leads cannot be asked for.
    #[error("it leads to no address: {0}")]
    Url(#[from] BadUrl),
    /// From TLS to none.
    #[error("it leads from {0} to {1} in the clear")]
    Downgrade(Scheme, Scheme),
    /// From a request to something else.
    #[error("it leads from {0} to {1}")]
    Scheme(Scheme, Scheme),
}

impl std::fmt::Display for Scheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads a Location field (RFC 9110, section 10.2.2) that came from this address.
pub fn redirect(from: &Url, location: &str) -> Result<Redirect, BadRedirect> {
    let url = joined(from, location)?;
    let (old, new) = (from.scheme(), url.scheme());
    if old.is_tls() && !new.is_tls() {
        return Err(BadRedirect::Downgrade(old, new));
    }
    if !new.is_http() {
        return Err(BadRedirect::Scheme(old, new));
    }
    let credential = match from.is_same_origin(&url) {
        true => AfterRedirect::Kept,
        false => AfterRedirect::Dropped,
    };
    Ok(Redirect { url, credential })
}

/// RFC 3986, section 5.2; what has a scheme is an address of its own.
fn joined(from: &Url, location: &str) -> Result<Url, BadUrl> {
    url::check_characters(location)?;
    let reference = location.split('#').next().unwrap_or_default();
    if reference.starts_with("//") {
        return Url::parse(&format!("{}:{reference}", from.scheme()));
    }
    let has_scheme = reference
        .split(['/', '?'])
        .next()
        .is_some_and(|first| first.contains(':'));
    if has_scheme {
        return Url::parse(reference);
    }
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    match path {
        "" => from.with_target(from.path(), query.or(from.query())),
        path if path.starts_with('/') => from.with_target(path, query),
        path => {
            let folder = from
                .path()
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder);
            from.with_target(&format!("{folder}/{path}"), query)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(location: &str) -> Result<Redirect, BadRedirect> {
        redirect(&Url::parse("https://a.com/x/y?z").unwrap(), location)
    }

    #[test]
    fn references_are_joined_and_other_servers_get_no_credential() {
        for (location, to, credential) in [
            ("/b?c#d", "https://a.com/b?c", AfterRedirect::Kept),
            ("b", "https://a.com/x/b", AfterRedirect::Kept),
            ("../b", "https://a.com/b", AfterRedirect::Kept),
            ("?c", "https://a.com/x/y?c", AfterRedirect::Kept),
            ("", "https://a.com/x/y?z", AfterRedirect::Kept),
            (
                "https://a.com:443/b",
                "https://a.com/b",
                AfterRedirect::Kept,
            ),
            ("//b.com/c", "https://b.com/c", AfterRedirect::Dropped),
            ("https://b.com/c", "https://b.com/c", AfterRedirect::Dropped),
            (
                "https://a.com:8443/",
                "https://a.com:8443/",
                AfterRedirect::Dropped,
            ),
        ] {
            let led = led(location).unwrap();
            assert_eq!(
                (led.url.to_string().as_str(), led.credential),
                (to, credential)
            );
        }
        let up = redirect(&Url::parse("http://a.com/").unwrap(), "https://a.com/").unwrap();
        assert_eq!(up.credential, AfterRedirect::Dropped, "another scheme");
    }

    #[test]
    fn what_leads_down_or_nowhere_is_not_followed() {
        assert!(matches!(
            led("http://a.com/"),
            Err(BadRedirect::Downgrade(..))
        ));
        assert!(matches!(led("wss://a.com/"), Err(BadRedirect::Scheme(..))));
        for bad in [
            "file:///etc/passwd",
            "javascript:x",
            "https:b",
            "\\\\b.com/x",
            "/a b",
            "//a@b.com/",
            "http:///x",
            "/../x",
            "gopher://a",
        ] {
            assert!(matches!(led(bad), Err(BadRedirect::Url(_))), "{bad}");
        }
    }
}
