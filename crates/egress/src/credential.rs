//! Putting a credential into a request: pure.
//!
//! SECURITY: what is returned and what is put into the request is wiped when it is dropped. The
//! buffers that HTTP and TLS write it through are not ours; they end with the connection.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use protocol::ids::hex;
use protocol::outbound::Attach;
use protocol::time::Millis;
use protocol::vault::SecretText;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

use crate::sigv4::{self, Keys, Scope, Signed};

/// A request that is being made, before and after something is put into it.
pub(crate) struct Draft {
    pub(crate) method: &'static str,
    /// As in the `Host` header.
    pub(crate) authority: String,
    /// As it is sent; `{name}` stands for a credential.
    pub(crate) path: String,
    /// As it is sent, without `?`.
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Text that is wiped when the last handle on its bytes is dropped.
struct Wiped(SecretText);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.expose().as_bytes()
    }
}

/// Bytes that are wiped.
pub(crate) fn wiped(text: String) -> Bytes {
    Bytes::from_owner(Wiped(SecretText::new(text)))
}

/// A header's value that is wiped, and that HTTP/2 keeps out of its tables.
pub(crate) fn secret_value(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(wiped(text)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `Bearer SECRET` (RFC 6750).
pub(crate) fn bearer(secret: &SecretText) -> Option<HeaderValue> {
    secret_value(format!("Bearer {}", secret.expose()))
}

impl Draft {
    /// Path and query in one.
    pub(crate) fn target(&self) -> Result<PathAndQuery, String> {
        let text = match &self.query {
            None => self.path.clone(),
            Some(query) => format!("{}?{query}", self.path),
        };
        PathAndQuery::from_maybe_shared(wiped(text))
            .map_err(|_| "the URL cannot be sent in a request".to_owned())
    }

    /// Puts the secret where `attach` says. What can be wrong is said without the secret.
    pub(crate) fn attach(
        &mut self,
        attach: &Attach,
        secret: &SecretText,
        at: Millis,
    ) -> Result<(), String> {
        let text = secret.expose();
        match attach {
            // What a refresh token is exchanged for is a bearer token.
            Attach::Bearer | Attach::OAuth2(_) => self.header(AUTHORIZATION, bearer(secret)),
            Attach::Basic if !text.contains(':') => {
                Err("for `basic` the secret has to be user:password".to_owned())
            }
            Attach::Basic => {
                let value = secret_value(format!("Basic {}", STANDARD.encode(text)));
                self.header(AUTHORIZATION, value)
            }
            Attach::Header(name) => {
                let name = HeaderName::from_bytes(name.as_str().as_bytes());
                let name = name.map_err(|_| "the rule's header has no name".to_owned())?;
                self.header(name, secret_value(text.to_owned()))
            }
            Attach::Query(name) => self.query(name.as_str(), text),
            Attach::Path(name) => self.path(name.as_str(), text),
            Attach::Field(pointer) => self.field(pointer.as_str(), text),
            Attach::SigV4 { region, service } => {
                let scope = Scope {
                    region: region.as_str(),
                    service: service.as_str(),
                    at,
                };
                self.sign(&scope, text)
            }
        }
    }

    fn header(&mut self, name: HeaderName, value: Option<HeaderValue>) -> Result<(), String> {
        let value = value.ok_or_else(|| "the secret cannot stand in a header".to_owned())?;
        match self.headers.insert(&name, value) {
            None => Ok(()),
            Some(_) => Err(format!(
                "the request has a header `{name}` already; leave it out"
            )),
        }
    }

    fn query(&mut self, name: &str, secret: &str) -> Result<(), String> {
        let query = self.query.take().unwrap_or_default();
        let taken = query.split('&').any(|pair| {
            let key = pair.split_once('=').map_or(pair, |(key, _)| key);
            sigv4::decode(key) == name.as_bytes()
        });
        if taken {
            return Err(format!("the query has a `{name}` already; leave it out"));
        }
        let between = if query.is_empty() { "" } else { "&" };
        self.query = Some(format!("{query}{between}{name}={}", encoded(secret, b"")));
        Ok(())
    }

    fn path(&mut self, name: &str, secret: &str) -> Result<(), String> {
        let place = format!("{{{name}}}");
        if self.path.matches(&place).count() != 1 {
            return Err(format!(
                "the path has to hold {place} once, where the secret goes"
            ));
        }
        // What a segment may hold besides (RFC 3986, section 3.3); a slash is not among it.
        self.path = self
            .path
            .replace(&place, &encoded(secret, b"!$&'()*+,;=:@"));
        Ok(())
    }

    fn field(&mut self, pointer: &str, secret: &str) -> Result<(), String> {
        let mut body: Value = serde_json::from_slice(&self.body)
            .map_err(|_| "the body has to be JSON, since the secret goes into a field of it")?;
        let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
        let key = key.replace("~1", "/").replace("~0", "~");
        let parent = body.pointer_mut(parent).and_then(Value::as_object_mut);
        let parent = parent.ok_or_else(|| {
            format!("the body has no object for the field `{pointer}`, where the secret goes")
        })?;
        if parent.contains_key(&key) {
            return Err(format!("the body has `{pointer}` already; leave it out"));
        }
        parent.insert(key, Value::String(secret.to_owned()));
        // Large enough that nothing is moved while it is written.
        let mut text = Vec::with_capacity(self.body.len() * 6 + secret.len() * 6 + 1024);
        let written = serde_json::to_writer(&mut text, &body);
        if let Some(Value::String(copy)) = body.pointer_mut(pointer) {
            copy.zeroize();
        }
        let text = written.ok().and_then(|()| String::from_utf8(text).ok());
        let text = text.ok_or_else(|| "the body cannot be written".to_owned())?;
        self.body = wiped(text);
        Ok(())
    }

    fn sign(&mut self, scope: &Scope<'_>, secret: &str) -> Result<(), String> {
        let keys = Keys::parse(secret).ok_or_else(|| {
            "for `sigv4` the secret has to be KEY_ID:KEY or KEY_ID:KEY:SESSION_TOKEN".to_owned()
        })?;
        let body = hex(&Sha256::digest(&self.body));
        let date = scope.date_time();
        self.header(
            HeaderName::from_static("x-amz-content-sha256"),
            HeaderValue::from_str(&body).ok(),
        )?;
        self.header(
            HeaderName::from_static("x-amz-date"),
            HeaderValue::from_str(&date).ok(),
        )?;
        if let Some(token) = keys.token {
            self.header(
                HeaderName::from_static("x-amz-security-token"),
                secret_value(token.to_owned()),
            )?;
        }
        let signed = |name: &str| name == "content-type" || name.starts_with("x-amz-");
        let mut headers = vec![("host", self.authority.as_str())];
        for (name, value) in &self.headers {
            if signed(name.as_str()) {
                let value = value.to_str().map_err(|_| "a header cannot be signed")?;
                headers.push((name.as_str(), value));
            }
        }
        let value = sigv4::authorization(
            &Signed {
                method: self.method,
                path: &scope.path(&self.path),
                query: self.query.as_deref().unwrap_or_default(),
                headers: &headers,
                body: &body,
            },
            scope,
            &keys,
        );
        self.header(AUTHORIZATION, secret_value(value))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.path.zeroize();
        self.query.zeroize();
    }
}

/// Percent-encoded but for the unreserved characters of RFC 3986 and `others`.
pub(crate) fn encoded(text: &str, others: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain || others.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex(&[byte]).to_ascii_uppercase());
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft {
            method: "POST",
            authority: "api.example.com".to_owned(),
            path: "/bot{bot}/send".to_owned(),
            query: Some("a=1".to_owned()),
            headers: HeaderMap::new(),
            body: Bytes::from_static(br#"{"auth":{"u":"x"},"n":1}"#),
        }
    }

    fn attached(attach: &str, secret: &str) -> Result<Draft, String> {
        let mut draft = draft();
        let secret = SecretText::new(secret.to_owned());
        draft.attach(&attach.parse().unwrap(), &secret, Millis(0))?;
        Ok(draft)
    }

    #[test]
    fn each_kind_stands_where_it_belongs_and_nowhere_else() {
        let value = |draft: &Draft, name: &str| draft.headers[name].to_str().unwrap().to_owned();
        let bearer = attached("bearer", "s3").unwrap();
        assert_eq!(value(&bearer, "authorization"), "Bearer s3");
        assert!(bearer.headers["authorization"].is_sensitive());
        // The example of RFC 7617, section 2.
        let basic = attached("basic", "Aladdin:open sesame").unwrap();
        assert_eq!(
            value(&basic, "authorization"),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        let header = attached("header X-Api-Key", "s3").unwrap();
        assert_eq!(value(&header, "x-api-key"), "s3");
        let query = attached("query key", "a&b=c /\u{e9}").unwrap();
        assert_eq!(
            query.query.as_deref(),
            Some("a=1&key=a%26b%3Dc%20%2F%C3%A9")
        );
        let path = attached("path bot", "12:a/../b").unwrap();
        assert_eq!(path.path, "/bot12:a%2F..%2Fb/send");
        let field = attached("field /auth/token", "\"s\u{1}").unwrap();
        let body: Value = serde_json::from_slice(&field.body).unwrap();
        assert_eq!(body["auth"]["token"], "\"s\u{1}");
        assert_eq!((&body["auth"]["u"], &body["n"]), (&"x".into(), &1.into()));
        for draft in [bearer, basic, header] {
            assert_eq!(
                (draft.path.as_str(), draft.query.as_deref()),
                ("/bot{bot}/send", Some("a=1"))
            );
            assert_eq!(draft.headers.len(), 1);
        }
    }

    #[test]
    fn a_signature_covers_what_is_sent() {
        let signed = attached("sigv4 eu-west-1 s3", "AKIDEXAMPLE:key:session").unwrap();
        let value = signed.headers["authorization"].to_str().unwrap();
        let names = "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,";
        assert!(
            value.contains("AKIDEXAMPLE/19700101/eu-west-1/s3/aws4_request"),
            "{value}"
        );
        assert!(value.contains(names), "{value}");
        assert!(signed.headers["x-amz-security-token"].is_sensitive());
    }

    #[test]
    fn a_secret_that_does_not_fit_its_place_is_refused_without_being_told() {
        let cases = [
            ("bearer", "hush\r\nX-Evil: 1"),
            ("basic", "hush"),
            ("header X-Api-Key", "hush\n"),
            ("query a", "hush"),
            ("path chat", "hush"),
            ("field /none/token", "hush"),
            ("field /auth/u", "hush"),
            ("field /n/x", "hush"),
            ("sigv4 r s", "hush"),
        ];
        for (attach, secret) in cases {
            let refused = attached(attach, secret).err().unwrap();
            assert!(!refused.contains("hush"), "{refused}");
        }
        let mut twice = draft();
        let secret = SecretText::new("hush".to_owned());
        let bearer: Attach = "bearer".parse().unwrap();
        twice.attach(&bearer, &secret, Millis(0)).unwrap();
        assert!(twice.attach(&bearer, &secret, Millis(0)).is_err());
    }
}
