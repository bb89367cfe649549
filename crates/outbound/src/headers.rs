//! Which headers whoever asks for a request may write.
//!
//! SECURITY: a request is judged by its method and its address, and a yes is to these. So whatever
//! says where a request goes, where it ends, on whose behalf it is, or that it is another one, is
//! not the asker's. Clouds have too many such headers to list them: of theirs, only a few are.

use protocol::ids::SecretName;

/// The longest name, in bytes.
const MAX_NAME: usize = 64;

/// Framing, routing, and what says who asks.
const OWN: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "origin",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];

/// Beginnings of names that are likewise.
const OWN_PREFIXES: &[&str] = &["proxy-", "sec-"];

/// What names another method, place, source or asker than the line that was judged.
const ANOTHER: &[&str] = &[
    "base-url",
    "client-ip",
    "destination",
    "forwarded",
    "request-uri",
    "sudo",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-object-manifest",
    "x-real-ip",
];

/// Beginnings of names that are likewise.
const ANOTHER_PREFIXES: &[&str] = &[
    "impersonate-",
    "x-accel-",
    "x-amz-copy-source",
    "x-copy-from",
    "x-forwarded-",
    "x-goog-copy-source",
    "x-http-method",
    "x-method",
    "x-ms-copy-source",
    "x-ms-rename-source",
    "x-original-",
    "x-rewrite-",
    "x-symlink-target",
];

/// Beginnings of the names of clouds, by which one request is turned into any other.
const CLOUDS: &[&str] = &[
    "dropbox-api-",
    "x-amz-",
    "x-bz-",
    "x-cos-",
    "x-goog-",
    "x-ms-",
    "x-obs-",
    "x-oss-",
    "x-qs-",
    "x-upyun-",
];

/// Those of clouds that do no more than to say how a body is kept, and what is kept beside it.
const HARMLESS: &[&str] = &["x-ms-blob-type", "x-ms-version"];
const HARMLESS_PREFIXES: &[&str] = &["x-amz-meta-", "x-goog-meta-", "x-ms-meta-"];

/// What a name holds that says on whose behalf a request is made.
const CREDENTIAL_WORDS: &[&str] = &[
    "apikey",
    "api-key",
    "auth",
    "cookie",
    "credential",
    "passw",
    "secret",
    "session",
    "token",
];

/// What asks for a piece of an answer: a secret that comes back could be cut out of reach of the scan.
const OF_A_RANGE: &[&str] = &["if-range", "range"];

/// What says in which form something is wanted or sent, or as of when, and nothing of what is done.
const PLAIN: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-language",
    "cache-control",
    "content-language",
    "content-type",
    "date",
    "dnt",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "pragma",
    "range",
];

/// Why a header is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// An underscore passes for a hyphen where requests are handed on by CGI's rules (RFC 3875 4.1.18).
    #[error("a header's name has letters, digits and hyphens, at most {MAX_NAME}")]
    Name,
    /// Egress writes it.
    #[error("the header `{0}` is set by Bulkhead itself; leave it out")]
    Own(String),
    /// It counts for more than the line that was judged.
    #[error(
        "the header `{0}` can make another request of it than the one that is judged; leave it out"
    )]
    Another(String),
    /// It says for whom the request is.
    #[error("the header `{0}` is for credentials, which a rule attaches; name the secret instead")]
    Credential(String),
    /// A piece, with a secret.
    #[error("the header `{0}` does not go together with a secret; ask for the whole answer")]
    Range(String),
}

/// Checks the name of a header of a request with or without a secret. Case makes no other name.
pub fn check(name: &str, secret: Option<&SecretName>) -> Result<(), BadHeader> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
        return Err(BadHeader::Name);
    }
    let name = name.to_ascii_lowercase();
    if is_one(&name, OWN, OWN_PREFIXES) {
        return Err(BadHeader::Own(name));
    }
    let of_a_cloud = is_one(&name, &[], CLOUDS) && !is_one(&name, HARMLESS, HARMLESS_PREFIXES);
    if says_another(&name) || of_a_cloud {
        return Err(BadHeader::Another(name));
    }
    if CREDENTIAL_WORDS.iter().any(|word| name.contains(word)) {
        return Err(BadHeader::Credential(name));
    }
    if secret.is_some() && OF_A_RANGE.contains(&name.as_str()) {
        return Err(BadHeader::Range(name));
    }
    Ok(())
}

/// Whether a header makes another request of one than that which was judged by its first line.
/// Programs behind CGI read `_` in a name as `-`.
#[must_use]
pub fn says_another(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    is_one(&name, ANOTHER, ANOTHER_PREFIXES)
}

/// Whether a header, in lower case, leaves open nothing about what is done. A yes that is
/// remembered holds for other requests with other such headers.
#[must_use]
pub fn is_plain(name: &str) -> bool {
    PLAIN.contains(&name)
}

/// The bytes of the headers that whoever asks wrote, with the two signs between name and value.
#[must_use]
pub fn bytes(headers: &[(String, String)]) -> usize {
    let each = headers.iter();
    each.map(|(name, value)| name.len() + value.len() + 2).sum()
}

fn is_one(name: &str, names: &[&str], prefixes: &[&str]) -> bool {
    names.contains(&name) || prefixes.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_another_request_of_one_is_refused_and_little_of_a_cloud_is_not() {
        for name in [
            "X-Amz-Copy-Source",
            "x-amz-copy-source-range",
            "x-amz-acl",
            "X-Amz-Target",
            "x-amz-website-redirect-location",
            "x-amz-content-sha256",
            "x-goog-copy-source",
            "x-goog-user-project",
            "x-ms-copy-source",
            "x-ms-rename-source",
            "x-ms-date",
            "x-oss-copy-source",
            "Dropbox-API-Arg",
            "X-Copy-From",
            "X-Object-Manifest",
            "Destination",
            "X-HTTP-Method-Override",
            "X-HTTP-Method",
            "X-Method-Override",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-Forwarded-Prefix",
            "Forwarded",
            "Impersonate-User",
        ] {
            let refused = check(name, None);
            assert!(matches!(refused, Err(BadHeader::Another(_))), "{name}");
        }
        for name in ["X-Amz-Meta-Note", "x-ms-blob-type", "x-ms-version", "Range"] {
            assert_eq!(check(name, None), Ok(()), "{name}");
        }
        for name in ["Destination", "X_HTTP_Method_Override", "x-amz-copy-source"] {
            assert!(says_another(name), "{name}");
        }
        assert!(
            !says_another("x-amz-date"),
            "programs in boxes sign by themselves"
        );
    }

    #[test]
    fn with_a_secret_nothing_asks_for_a_piece_of_an_answer() {
        let secret: SecretName = "key".parse().expect("a name");
        for name in ["Range", "If-Range"] {
            assert_eq!(
                check(name, Some(&secret)),
                Err(BadHeader::Range(name.to_ascii_lowercase()))
            );
        }
        assert_eq!(check("Accept", Some(&secret)), Ok(()));
    }
}
