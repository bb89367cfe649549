//! Whether a request comes from our own page: by its names, since any page in any browser on
//! this machine can reach a loopback port, and any host name can be made to point to it.

use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, ORIGIN, UPGRADE};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names under which the page is served.
#[derive(Debug)]
pub(super) struct Guard {
    hosts: [String; 2],
}

/// Why a request is refused before anything is looked up for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("This page is served as 127.0.0.1 and localhost only.")]
    Host,
    #[error("This server is not a proxy.")]
    Target,
    #[error("This server has no other protocol to change to.")]
    Upgrade,
    #[error("This method is not used here.")]
    Method,
    #[error("This request comes from another page.")]
    ForeignOrigin,
    #[error("This request does not say which page it comes from.")]
    NoOrigin,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Target | Self::Upgrade => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ForeignOrigin | Self::NoOrigin => StatusCode::FORBIDDEN,
        }
    }
}

impl Guard {
    pub(super) fn new(port: u16) -> Self {
        Self {
            hosts: [format!("127.0.0.1:{port}"), format!("localhost:{port}")],
        }
    }

    /// What holds for every request, the page and its files included.
    pub(super) fn check(&self, request: &Parts) -> Result<(), Refusal> {
        if request.uri.scheme().is_some() || request.uri.authority().is_some() {
            return Err(Refusal::Target);
        }
        let host = self.host(&request.headers)?;
        if request.headers.contains_key(UPGRADE) || names_upgrade(&request.headers) {
            return Err(Refusal::Upgrade);
        }
        match request.method {
            Method::GET => origin_is(&request.headers, host).map(|_| ()),
            Method::POST => match origin_is(&request.headers, host)? {
                Stated::Ours => Ok(()),
                Stated::Nothing => Err(Refusal::NoOrigin),
            },
            _ => Err(Refusal::Method),
        }
    }

    /// What holds besides for requests that read or change something: the browser itself says
    /// that our own page makes them.
    pub(super) fn check_own_page(&self, request: &Parts) -> Result<(), Refusal> {
        let host = self.host(&request.headers)?;
        let origin = origin_is(&request.headers, host)?;
        match (origin, only(&request.headers, &SEC_FETCH_SITE)) {
            (_, Some(Some("same-origin"))) | (Stated::Ours, None) => Ok(()),
            (_, Some(_)) => Err(Refusal::ForeignOrigin),
            (Stated::Nothing, None) => Err(Refusal::NoOrigin),
        }
    }

    /// Whether a request is for `localhost` by name; browsers have no passkeys for numbers.
    pub(super) fn is_by_name(&self, request: &Parts) -> bool {
        let [_, name] = &self.hosts;
        self.host(&request.headers) == Ok(name)
    }

    /// The same path under that name. A fragment stays with it (RFC 9110, section 10.2.2).
    pub(super) fn by_name(&self, path: &str) -> String {
        let [_, name] = &self.hosts;
        format!("http://{name}{path}")
    }

    fn host<'a>(&'a self, headers: &HeaderMap) -> Result<&'a str, Refusal> {
        let Some(Some(host)) = only(headers, &HOST) else {
            return Err(Refusal::Host);
        };
        self.hosts
            .iter()
            .find(|known| *known == host)
            .map(String::as_str)
            .ok_or(Refusal::Host)
    }
}

/// What a request says about its origin.
enum Stated {
    Ours,
    Nothing,
}

fn origin_is(headers: &HeaderMap, host: &str) -> Result<Stated, Refusal> {
    match only(headers, &ORIGIN) {
        None => Ok(Stated::Nothing),
        Some(Some(origin)) if origin.strip_prefix("http://") == Some(host) => Ok(Stated::Ours),
        Some(_) => Err(Refusal::ForeignOrigin),
    }
}

/// The header's value: the outer `None` if it is absent, the inner one if it is there more than
/// once or is not text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(if values.next().is_some() {
        None
    } else {
        first.to_str().ok()
    })
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    let values = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn parts(method: Method, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn get(headers: &[(&str, &str)]) -> Result<(), Refusal> {
        Guard::new(4880).check(&parts(Method::GET, "/", headers))
    }

    fn post(headers: &[(&str, &str)]) -> Result<(), Refusal> {
        Guard::new(4880).check(&parts(Method::POST, "/", headers))
    }

    #[test]
    fn only_our_own_names_are_served() {
        for host in ["127.0.0.1:4880", "localhost:4880"] {
            assert_eq!(get(&[("host", host)]), Ok(()));
        }
        let foreign = [
            "127.0.0.1",
            "localhost",
            "127.0.0.1:4881",
            "evil.example:4880",
            "localhost.evil.example:4880",
            "[::1]:4880",
            "0.0.0.0:4880",
            "LOCALHOST:4880",
            "localhost:4880 ",
            "a@localhost:4880",
            "127.1:4880",
        ];
        for host in foreign {
            assert_eq!(get(&[("host", host)]), Err(Refusal::Host), "{host:?}");
        }
        assert_eq!(get(&[]), Err(Refusal::Host));
        assert_eq!(
            get(&[("host", "localhost:4880"), ("host", "localhost:4880")]),
            Err(Refusal::Host)
        );
    }

    #[test]
    fn a_stated_origin_has_to_be_the_page_s_own() {
        let host = ("host", "127.0.0.1:4880");
        assert_eq!(post(&[host, ("origin", "http://127.0.0.1:4880")]), Ok(()));
        for origin in [
            "null",
            "",
            "https://127.0.0.1:4880",
            "http://localhost:4880",
            "http://evil.example",
            "http://127.0.0.1:48800",
        ] {
            assert_eq!(
                post(&[host, ("origin", origin)]),
                Err(Refusal::ForeignOrigin),
                "{origin:?}"
            );
            assert_eq!(
                get(&[host, ("origin", origin)]),
                Err(Refusal::ForeignOrigin),
                "{origin:?}"
            );
        }
        let ours = ("origin", "http://127.0.0.1:4880");
        assert_eq!(post(&[host, ours, ours]), Err(Refusal::ForeignOrigin));
        assert_eq!(post(&[host]), Err(Refusal::NoOrigin));
        assert_eq!(
            post(&[host, ("sec-fetch-site", "same-origin")]),
            Err(Refusal::NoOrigin)
        );
    }

    #[test]
    fn upgrades_proxy_requests_and_other_methods_are_refused() {
        let host = ("host", "127.0.0.1:4880");
        assert_eq!(
            get(&[host, ("upgrade", "websocket")]),
            Err(Refusal::Upgrade)
        );
        assert_eq!(
            get(&[host, ("connection", "keep-alive, Upgrade")]),
            Err(Refusal::Upgrade)
        );
        let guard = Guard::new(4880);
        assert_eq!(
            guard.check(&parts(Method::GET, "http://127.0.0.1:4880/", &[host])),
            Err(Refusal::Target)
        );
        for method in [
            Method::OPTIONS,
            Method::HEAD,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
            Method::TRACE,
        ] {
            assert_eq!(
                guard.check(&parts(method, "/", &[host])),
                Err(Refusal::Method)
            );
        }
    }

    #[test]
    fn what_reads_or_changes_something_has_to_come_from_our_page() {
        let guard = Guard::new(4880);
        let check = |headers: &[(&str, &str)]| {
            let mut all = vec![("host", "localhost:4880")];
            all.extend_from_slice(headers);
            guard.check_own_page(&parts(Method::GET, "/events", &all))
        };
        assert_eq!(check(&[("sec-fetch-site", "same-origin")]), Ok(()));
        assert_eq!(check(&[("origin", "http://localhost:4880")]), Ok(()));
        assert_eq!(check(&[]), Err(Refusal::NoOrigin));
        for site in ["same-site", "cross-site", "none", ""] {
            assert_eq!(
                check(&[("sec-fetch-site", site)]),
                Err(Refusal::ForeignOrigin),
                "{site:?}"
            );
            let both = [
                ("sec-fetch-site", site),
                ("origin", "http://localhost:4880"),
            ];
            assert_eq!(check(&both), Err(Refusal::ForeignOrigin), "{site:?}");
        }
    }
}
