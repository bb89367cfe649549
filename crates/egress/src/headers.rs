//! Which headers go out and which come back: pure.
//!
//! SECURITY: the headers of a request are what the model wrote; which names it may write is in
//! [`outbound::headers`].

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use outbound::headers::check;
use protocol::ids::SecretName;

/// The most headers of one request.
const MAX_HEADERS: usize = 32;

/// The longest value, in bytes.
const MAX_VALUE: usize = 4096;

/// The most headers that are passed on of an answer, and the longest value in bytes.
const MAX_PASSED: usize = 16;
const MAX_PASSED_VALUE: usize = 2048;

/// What is passed on of an answer.
const PASSED: &[&str] = &[
    "content-length",
    "content-type",
    "etag",
    "last-modified",
    "link",
    "location",
    "retry-after",
];

/// The headers that a tool may send, or what is wrong with them.
pub(crate) fn requested(
    wanted: &[(String, String)],
    secret: Option<&SecretName>,
) -> Result<HeaderMap, String> {
    if wanted.len() > MAX_HEADERS {
        return Err(format!("a request has at most {MAX_HEADERS} headers"));
    }
    let mut headers = HeaderMap::with_capacity(wanted.len() + 8);
    for (name, value) in wanted {
        let (name, value) = (self::name(name, secret)?, self::value(name, value)?);
        if headers.insert(&name, value).is_some() {
            return Err(format!("the header `{name}` stands there twice"));
        }
    }
    Ok(headers)
}

fn name(text: &str, secret: Option<&SecretName>) -> Result<HeaderName, String> {
    check(text, secret).map_err(|bad| bad.to_string())?;
    HeaderName::from_bytes(text.to_ascii_lowercase().as_bytes())
        .map_err(|_| "a header has no name".to_owned())
}

fn value(name: &str, text: &str) -> Result<HeaderValue, String> {
    let plain = |b: u8| b == b' ' || b == b'\t' || b.is_ascii_graphic();
    let fits = text.len() <= MAX_VALUE && text.bytes().all(plain) && text.trim() == text;
    let value = HeaderValue::from_str(text).ok().filter(|_| fits);
    value.ok_or_else(|| {
        format!(
            "the value of the header `{}` has visible ASCII characters only, at most {MAX_VALUE}",
            name.to_ascii_lowercase()
        )
    })
}

/// What is passed on of an answer's headers.
pub(crate) fn passed(headers: &HeaderMap) -> Vec<(String, String)> {
    let wanted = |name: &str| PASSED.contains(&name) || name.starts_with("x-ratelimit-");
    let fitting = headers
        .iter()
        .filter(|(name, value)| wanted(name.as_str()) && value.len() <= MAX_PASSED_VALUE);
    fitting
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        })
        .take(MAX_PASSED)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, value: &str) -> Result<HeaderMap, String> {
        requested(&[(name.to_owned(), value.to_owned())], None)
    }

    #[test]
    fn what_says_where_a_request_goes_or_for_whom_is_refused_in_any_spelling() {
        for name in [
            "Host",
            "TE",
            "Content-Length",
            "Transfer-Encoding",
            "Accept-Encoding",
            "Origin",
            "X-Amz-Date",
            "X-Amz-Copy-Source",
            "X-HTTP-Method-Override",
            "Authorization",
            "Proxy-Authorization",
            "Cookie",
            "Cookie2",
            "X-Api-Key",
            "X-Auth-Token",
            "PRIVATE-TOKEN",
            "x-amz-security-token",
            "x-goog-api-key",
            "X-Forwarded-Host",
            "Sec-WebSocket-Key",
            "Proxy-Connection",
        ] {
            assert!(ask(name, "x").is_err(), "{name}");
        }
        for name in [
            "Accept",
            "Content-Type",
            "If-None-Match",
            "Range",
            "X-GitHub-Api-Version",
        ] {
            assert!(ask(name, "x").is_ok(), "{name}");
        }
    }

    #[test]
    fn nothing_written_into_a_header_becomes_another_header_or_a_body() {
        for value in [
            "a\r\nX-Evil: 1",
            "a\nb",
            "a\r",
            "\0",
            "a\u{7f}",
            "\u{e9}",
            " a",
            "a ",
            "a\u{2028}b",
        ] {
            assert!(ask("accept", value).is_err(), "{value:?}");
        }
        for name in [
            "",
            "a b",
            "a:",
            ":path",
            "a\r\nb",
            "content_length",
            "a\u{212a}",
            &"a".repeat(65),
        ] {
            assert!(ask(name, "x").is_err(), "{name:?}");
        }
        let twice = [("accept", "a"), ("Accept", "b")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert!(requested(&twice, None).is_err());
        let many: Vec<_> = (0..33).map(|n| (format!("x-{n}"), String::new())).collect();
        assert!(requested(&many, None).is_err());
        assert!(requested(&many[..32], None).is_ok());
    }

    #[test]
    fn of_an_answer_only_what_is_listed_comes_back() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/html"),
            ("set-cookie", "a=b"),
            ("x-ratelimit-remaining", "3"),
            ("www-authenticate", "Basic"),
            ("server", "x"),
            ("location", "/there"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert("etag", HeaderValue::from_str(&"x".repeat(2049)).unwrap());
        headers.insert("link", HeaderValue::from_bytes(b"\xff").unwrap());
        let mut names: Vec<String> = passed(&headers).into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(names, ["content-type", "location", "x-ratelimit-remaining"]);
    }
}
