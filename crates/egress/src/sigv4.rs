//! AWS Signature Version 4 in headers: pure, so that the published test suite can be run on it.
//!
//! Source: "Signature Version 4 signing process" in the AWS General Reference.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use protocol::ids::hex;
use protocol::time::Millis;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Whose key signs: what a secret of this kind holds, `KEY_ID:SECRET` or `KEY_ID:SECRET:SESSION_TOKEN`.
pub(crate) struct Keys<'a> {
    pub(crate) id: &'a str,
    secret: &'a str,
    pub(crate) token: Option<&'a str>,
}

impl<'a> Keys<'a> {
    /// Reads the text of a secret. None of the three parts holds a colon.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.trim().split(':');
        let (id, secret, token) = (parts.next()?, parts.next()?, parts.next());
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
        let whole = parts.next().is_none() && plain(id) && plain(secret);
        (whole && token.is_none_or(plain)).then_some(Self { id, secret, token })
    }
}

/// Where and when a signature counts.
pub(crate) struct Scope<'a> {
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    pub(crate) at: Millis,
}

impl Scope<'_> {
    /// `20150830T123600Z`, the value of `x-amz-date`.
    pub(crate) fn date_time(&self) -> String {
        let whole = self.at.rfc3339();
        let seconds = whole.split('.').next().unwrap_or(&whole);
        let plain: String = seconds
            .chars()
            .filter(|c| !matches!(c, '-' | ':'))
            .collect();
        plain + "Z"
    }

    fn text(&self) -> String {
        let date: String = self.date_time().chars().take(8).collect();
        format!("{date}/{}/{}/aws4_request", self.region, self.service)
    }

    /// Only S3 takes a path as it is sent; for all else each part of it is encoded once more.
    pub(crate) fn path(&self, sent: &str) -> String {
        if self.service == "s3" {
            sent.to_owned()
        } else {
            encode(sent.as_bytes(), Slash::Kept)
        }
    }
}

/// What is signed.
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    /// As [`Scope::path`] gives it.
    pub(crate) path: &'a str,
    /// As it is sent, without `?`.
    pub(crate) query: &'a str,
    /// All headers that are signed, `host` and `x-amz-date` among them.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// SHA-256 of the body in hexadecimal.
    pub(crate) body: &'a str,
}

/// The value of the `Authorization` header.
pub(crate) fn authorization(signed: &Signed<'_>, scope: &Scope<'_>, keys: &Keys<'_>) -> String {
    let (canonical, names) = canonical(signed);
    let to_sign = format!(
        "{ALGORITHM}\n{}\n{}\n{}",
        scope.date_time(),
        scope.text(),
        hex(&Sha256::digest(canonical))
    );
    let scope_text = scope.text();
    let mut key = Zeroizing::new(format!("AWS4{}", keys.secret).into_bytes());
    for part in scope_text.split('/') {
        key = Zeroizing::new(mac(&key, part));
    }
    let signature = hex(&mac(&key, &to_sign));
    format!(
        "{ALGORITHM} Credential={}/{scope_text}, SignedHeaders={names}, Signature={signature}",
        keys.id
    )
}

/// The canonical request, and the names of what is signed.
fn canonical(signed: &Signed<'_>) -> (String, String) {
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in signed.headers {
        let words: Vec<&str> = value.split_ascii_whitespace().collect();
        let values = headers.entry(name.to_ascii_lowercase()).or_default();
        values.push(words.join(" "));
    }
    let names: Vec<&str> = headers.keys().map(String::as_str).collect();
    let names = names.join(";");
    let lines: String = headers
        .iter()
        .map(|(name, values)| format!("{name}:{}\n", values.join(",")))
        .collect();
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{}",
        signed.method,
        signed.path,
        canonical_query(signed.query),
        signed.body
    );
    (canonical, names)
}

fn canonical_query(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (again(name), again(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

/// Decodes what is encoded and encodes it as this scheme has it.
fn again(text: &str) -> String {
    encode(&decode(text), Slash::Encoded)
}

/// Undoes percent-encoding; what is not encoded is left.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3);
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[at], byte) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (other, _) => {
                decoded.push(other);
                at += 1;
            }
        }
    }
    decoded
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Kept,
    Encoded,
}

/// Percent-encoding of all but the unreserved characters of RFC 3986.
fn encode(bytes: &[u8], slash: Slash) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        let kept = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~')
            || (*byte == b'/' && slash == Slash::Kept);
        if kept {
            text.push(char::from(*byte));
        } else {
            text.push('%');
            text.push_str(&hex(&[*byte]).to_ascii_uppercase());
        }
    }
    text
}

fn mac(key: &[u8], data: &str) -> Vec<u8> {
    // HMAC takes keys of any length (RFC 2104).
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(data.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        request: String,
        token: Option<String>,
        sign_body: bool,
        canonical: String,
        signed_headers: String,
        signature: String,
    }

    /// Headers of a request of the suite, which folds lines as RFC 2616 allowed.
    fn headers(head: &str) -> Vec<(String, String)> {
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in head.lines().skip(1).take_while(|line| !line.is_empty()) {
            match (line.starts_with(' '), line.split_once(':')) {
                (false, Some((name, value))) => headers.push((name.to_owned(), value.to_owned())),
                _ => headers.last_mut().unwrap().1.push_str(line),
            }
        }
        headers
    }

    #[test]
    fn every_case_of_the_published_suite_is_signed_as_it_says() {
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../tests/sigv4/cases.json")).unwrap();
        assert_eq!(cases.len(), 31);
        // The suite's own example keys, which open nothing.
        let secret = ["wJalrXUtnFEMI", "K7MDENG+bPxRfiCYEXAMPLEKEY"].join("/");
        for case in cases {
            let (head, body) = case
                .request
                .split_once("\n\n")
                .unwrap_or((&case.request, ""));
            let line = head.lines().next().unwrap();
            let (method, target) = line.split_once(' ').unwrap();
            let target = target.rsplit_once(' ').unwrap().0;
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let scope = Scope {
                region: "us-east-1",
                service: "service",
                at: Millis(1_440_938_160_000),
            };
            let text = match &case.token {
                None => format!("AKIDEXAMPLE:{secret}"),
                Some(token) => format!("AKIDEXAMPLE:{secret}:{token}"),
            };
            let keys = Keys::parse(&text).unwrap();
            let body = hex(&Sha256::digest(body));
            let mut all = headers(head);
            all.push(("X-Amz-Date".to_owned(), scope.date_time()));
            if case.sign_body {
                all.push(("x-amz-content-sha256".to_owned(), body.clone()));
            }
            if let Some(token) = keys.token
                && !all.iter().any(|(name, _)| name == "X-Amz-Security-Token")
            {
                all.push(("X-Amz-Security-Token".to_owned(), token.to_owned()));
            }
            let all: Vec<(&str, &str)> = all.iter().map(|(n, v)| (&**n, &**v)).collect();
            // The suite gives the path before any encoding.
            let path = encode(path.as_bytes(), Slash::Kept);
            let signed = Signed {
                method,
                path: &path,
                query,
                headers: &all,
                body: &body,
            };
            let name = &case.name;
            assert_eq!(canonical(&signed).0, case.canonical, "{name}");
            let value = authorization(&signed, &scope, &keys);
            let rest = format!(
                "SignedHeaders={}, Signature={}",
                case.signed_headers, case.signature
            );
            assert!(value.ends_with(&rest), "{name}: {value}");
        }
    }

    #[test]
    fn a_path_is_encoded_again_but_for_s3_and_a_secret_has_two_or_three_parts() {
        let scope = |service| Scope {
            region: "r",
            service,
            at: Millis(0),
        };
        assert_eq!(scope("s3").path("/a%20b/c"), "/a%20b/c");
        assert_eq!(scope("sqs").path("/a%20b/c"), "/a%2520b/c");
        assert_eq!(scope("s3").date_time(), "19700101T000000Z");
        for bad in ["", "a", "a:", ":b", "a:b:c:d", "a:b c", "a:b:", "a:\u{e9}"] {
            assert!(Keys::parse(bad).is_none(), "{bad:?}");
        }
        assert_eq!(Keys::parse("a:b\n").unwrap().token, None);
        assert_eq!(Keys::parse("a:b:c").unwrap().token, Some("c"));
    }
}
