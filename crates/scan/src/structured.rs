//! Secrets that have a structure and not only letters: private keys, signed tokens, addresses with a
//! password in them.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use crate::alphabet::{ALNUM, BASE64, HEX, QUERY, URL};
use crate::finding::Kind;
use crate::hit::{Hit, Rank};
use crate::manifest::manifest;
use crate::placeholder::{is_made_up, is_random, is_stand_in};

const PRIVATE_KEY: Kind = Kind("private_key");
const OPENSSH_KEY: Kind = Kind("openssh_private_key");
const PGP_KEY: Kind = Kind("pgp_private_key");
const SERVICE_ACCOUNT: Kind = Kind("gcp_service_account");
const PUTTY_KEY: Kind = Kind("putty_private_key");
const JWK: Kind = Kind("jwk_private_key");
const JWT: Kind = Kind("jwt");
const URL_PASSWORD: Kind = Kind("url_credentials");
const AZURE_SAS: Kind = Kind("azure_sas_token");
const SIGNED_URL: Kind = Kind("signed_url");

/// The longest private key that is looked for as one, in bytes.
const LONGEST_KEY: usize = 64 * 1024;

/// Base 64 signs in the shortest one: an Ed25519 key (RFC 8410) has 64.
const SHORTEST_KEY: usize = 40;

/// What each of them is found by.
const BEGINNINGS: [(&str, Reader); 9] = [
    ("-----BEGIN ", private_key),
    ("PuTTY-User-Key-File-", putty_key),
    ("eyJ", jwt),
    ("sig=", azure_sas),
    ("X-Amz-Signature=", signature),
    ("X-Goog-Signature=", signature),
    ("\"d\"", jwk),
    ("ewo", jwt),
    ("kind", manifest),
];

/// Reads what begins at the first place and was found up to the second.
type Reader = fn(&[u8], usize, usize) -> Option<Hit>;

static FINDER: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .kind(Some(AhoCorasickKind::DFA))
        .build(BEGINNINGS.iter().map(|(text, _)| text))
        // The list is part of the program; a test builds it.
        .expect("a few short texts make an automaton")
});

/// Those that can be longer than the pieces that a text is looked through in.
pub(crate) fn long(bytes: &[u8], hits: &mut Vec<Hit>) {
    if position(bytes, "-----BEGIN ").is_some() || position(bytes, "PuTTY-").is_some() {
        find(bytes, &BEGINNINGS[..2], hits);
    }
}

/// All of them, in a piece or in something decoded.
pub(crate) fn short(bytes: &[u8], hits: &mut Vec<Hit>) {
    find(bytes, &BEGINNINGS, hits);
}

fn find(bytes: &[u8], beginnings: &[(&str, Reader)], hits: &mut Vec<Hit>) {
    for place in FINDER.find_overlapping_iter(bytes) {
        if let Some((_, read)) = beginnings.get(place.pattern().as_usize()) {
            hits.extend(read(bytes, place.start(), place.end()));
        }
    }
}

/// Passwords in addresses, of which only reading tells whether they are words.
pub(crate) fn passwords(bytes: &[u8], hits: &mut Vec<Hit>) {
    for start in places(bytes, "://") {
        if let Some(user) = url_password(bytes, start) {
            hits.push(Hit::new(URL_PASSWORD, user, Rank::Context));
        }
    }
}

/// Where a text begins in bytes, each place once.
pub(crate) fn places<'a>(bytes: &'a [u8], text: &'a str) -> impl Iterator<Item = usize> + 'a {
    let text = text.as_bytes();
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let next = bytes[from..].iter().position(|byte| *byte == text[0])? + from;
            from = next + 1;
            if bytes[next..].starts_with(text) {
                return Some(next);
            }
        }
    })
}

/// The first of them.
pub(crate) fn position(bytes: &[u8], text: &str) -> Option<usize> {
    places(bytes, text).next()
}

/// RFC 7468, RFC 4880 and what OpenSSH writes: from the first dash to the last one.
fn private_key(bytes: &[u8], begin: usize, label: usize) -> Option<Hit> {
    let rest = &bytes[label..bytes.len().min(label + LONGEST_KEY)];
    let dashes = position(&rest[..rest.len().min(120)], "-----")?;
    let name = std::str::from_utf8(&rest[..dashes]).ok()?;
    if !name.contains("PRIVATE KEY") {
        return None;
    }
    let body = &rest[dashes + 5..];
    let begins = label + dashes + 5;
    // What begins again before it ends is not one key; and so nothing is read twice.
    let body = &body[..position(body, "-----BEGIN").unwrap_or(body.len())];
    let (body, end) = match position(body, "-----END") {
        Some(at) => {
            let footer = &body[at + 8..];
            let line = footer
                .iter()
                .take(120)
                .position(|b| matches!(b, b'\n' | b'"' | b'\''));
            let dashes = position(&footer[..footer.len().min(120)], "-----");
            let length = dashes.map(|at| at + 5).or(line).unwrap_or(0);
            (&body[..at], begins + at + 8 + length)
        }
        None => {
            let length = body.iter().take_while(|b| is_armour(**b)).count();
            (&body[..length], begins + length)
        }
    };
    let digits: Vec<u8> = body.iter().copied().filter(|b| BASE64.has(*b)).collect();
    let cut = position(body, "...").is_some() && digits.len() < 400;
    if digits.len() < SHORTEST_KEY || cut || is_made_up(&digits[digits.len() / 3..]) {
        return None;
    }
    let before = &bytes[begin.saturating_sub(2_000)..begin];
    let kind = if name.starts_with("PGP") {
        PGP_KEY
    } else if name.starts_with("OPENSSH") {
        OPENSSH_KEY
    } else if position(before, "service_account").is_some() {
        SERVICE_ACCOUNT
    } else {
        PRIVATE_KEY
    };
    Some(Hit::new(kind, begin..end, Rank::Document))
}

/// What stands between the two lines of a key, also as a JSON string.
fn is_armour(byte: u8) -> bool {
    BASE64.has(byte)
        || matches!(
            byte,
            b'=' | b'\\' | b'\n' | b'\r' | b' ' | b'\t' | b'"' | b',' | b':' | b'-'
        )
}

fn putty_key(bytes: &[u8], start: usize, _: usize) -> Option<Hit> {
    let rest = &bytes[start..bytes.len().min(start + LONGEST_KEY)];
    let private = position(rest, "Private-Lines:")?;
    let body = &rest[private..];
    let length = position(body, "Private-MAC:").unwrap_or(body.len());
    let digits = body[..length].iter().filter(|b| BASE64.has(**b)).count();
    let place = start..start + private + length;
    (digits >= SHORTEST_KEY).then(|| Hit::new(PUTTY_KEY, place, Rank::Document))
}

/// RFC 7519: three parts in base 64, of which the first is JSON with an algorithm, on one line or on
/// several. RFC 7516's have five.
fn jwt(bytes: &[u8], start: usize, _: usize) -> Option<Hit> {
    if start > 0 && URL.has(bytes[start - 1]) {
        return None;
    }
    let part = |from: usize| bytes[from..].iter().take_while(|b| URL.has(**b)).count();
    let header = start..start + part(start);
    let mut end = header.end;
    let mut parts = 1;
    let mut last = header.clone();
    while parts < 5 && bytes.get(end) == Some(&b'.') {
        last = end + 1..end + 1 + part(end + 1);
        end = last.end;
        parts += 1;
    }
    let enough = parts >= 3 && header.len() >= 16 && end - header.end > 20;
    let read: serde_json::Value = serde_json::from_slice(&base64(&bytes[header])?).ok()?;
    let signed = last.len() >= 20 && !is_made_up(&bytes[last]);
    let algorithm = read.get("alg")?.as_str()?;
    let real = enough && (signed || algorithm.eq_ignore_ascii_case("none"));
    real.then(|| Hit::new(JWT, start..end, Rank::Document))
}

/// The bytes of a whole text in base 64, of either alphabet.
pub(crate) fn base64(digits: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut number, mut have) = (0_u32, 0);
    for digit in digits.iter().take_while(|digit| **digit != b'=') {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        number = number << 6 | u32::from(value);
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((number >> have) as u8);
        }
    }
    Some(bytes)
}

/// `scheme://user:password@host`; the place of user and password.
fn url_password(bytes: &[u8], colon: usize) -> Option<Range<usize>> {
    let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let scheme = bytes[..colon]
        .iter()
        .rev()
        .take(20)
        .take_while(|b| is_scheme(b))
        .count();
    let start = colon + 3;
    let ends = |byte: &u8| {
        !byte.is_ascii_graphic()
            || matches!(
                byte,
                b'/' | b'?' | b'#' | b'"' | b'<' | b'>' | b'`' | b'\'' | b'\\'
            )
    };
    let authority = bytes[start..]
        .iter()
        .take(400)
        .take_while(|b| !ends(b))
        .count();
    let authority = &bytes[start..start + authority];
    let at = authority.iter().rposition(|byte| *byte == b'@')?;
    let host = authority[at + 1..]
        .first()
        .is_some_and(u8::is_ascii_graphic);
    if scheme < 2 || !host {
        return None;
    }
    let user = &authority[..at];
    let secret = match user.iter().position(|byte| *byte == b':') {
        Some(colon) => &user[colon + 1..],
        None if user.len() >= 20 && is_random(user) => user,
        None => return None,
    };
    let text = std::str::from_utf8(secret).ok()?;
    let long_enough = secret.len() >= 4 && !text.bytes().all(|b| b == b'*');
    (long_enough && !is_stand_in(text)).then(|| start..start + at)
}

/// A signature of Azure storage, with the version or the expiry that stand beside it.
fn azure_sas(bytes: &[u8], start: usize, value: usize) -> Option<Hit> {
    let begins = start == 0 || !ALNUM.has(bytes[start - 1]);
    let length = bytes[value..]
        .iter()
        .take_while(|b| QUERY.has(**b) || **b == b'=')
        .count();
    let is_part =
        |byte: &&u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'<' | b'>');
    let before = bytes[..start]
        .iter()
        .rev()
        .take(600)
        .take_while(is_part)
        .count();
    let after = bytes[value + length..]
        .iter()
        .take(600)
        .take_while(is_part)
        .count();
    let token = &bytes[start - before..value + length + after];
    let dated = position(token, "se=").is_some() || position(token, "sv=").is_some();
    let secret = &bytes[value..value + length];
    (begins && dated && length >= 40 && !is_made_up(secret))
        .then(|| Hit::new(AZURE_SAS, value..value + length, Rank::Format))
}

fn signature(bytes: &[u8], _: usize, start: usize) -> Option<Hit> {
    let length = bytes[start..].iter().take_while(|b| HEX.has(**b)).count();
    let secret = &bytes[start..start + length];
    (length >= 64 && !is_made_up(secret))
        .then(|| Hit::new(SIGNED_URL, start..start + length, Rank::Format))
}

/// RFC 7517: the private member of a key that says its type.
fn jwk(bytes: &[u8], start: usize, end: usize) -> Option<Hit> {
    let around = &bytes[start.saturating_sub(1_500)..bytes.len().min(start + 3_000)];
    position(around, "\"kty\"")?;
    let rest = &bytes[end..];
    let skipped = rest
        .iter()
        .take_while(|b| matches!(b, b' ' | b':' | b'\n' | b'\t' | b'\r'))
        .count();
    let value = rest[skipped..].strip_prefix(b"\"")?;
    let length = value.iter().take_while(|b| URL.has(**b)).count();
    let from = bytes.len() - value.len();
    (length >= 40 && !is_made_up(&value[..length]))
        .then(|| Hit::new(JWK, from..from + length, Rank::Format))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&'static str, &str)> {
        let mut hits = Vec::new();
        short(text.as_bytes(), &mut hits);
        passwords(text.as_bytes(), &mut hits);
        hits.iter()
            .map(|hit| (hit.kind.as_str(), &text[hit.start..hit.end]))
            .collect()
    }

    const BODY: &str = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtz\nc2gtZWQyNTUxOQAAACDk2jHb8JxW0qYv7uR";

    fn key(label: &str) -> String {
        format!(
            "-----{} {label}-----\n{BODY}\n-----{} {label}-----",
            "BEGIN", "END"
        )
    }

    #[test]
    fn private_keys_are_found_whole_and_public_ones_are_not() {
        for (label, kind) in [
            ("RSA PRIVATE KEY", "private_key"),
            ("ENCRYPTED PRIVATE KEY", "private_key"),
            ("OPENSSH PRIVATE KEY", "openssh_private_key"),
            ("PGP PRIVATE KEY BLOCK", "pgp_private_key"),
        ] {
            let key = key(label);
            assert_eq!(found(&format!("it is\n{key}\nso")), [(kind, key.as_str())]);
        }
        assert_eq!(found(&key("PUBLIC KEY")), []);
        assert_eq!(found(&key("CERTIFICATE")), []);
    }

    #[test]
    fn a_key_in_json_is_found_and_one_that_is_cut_short_is_too() {
        let json = key("PRIVATE KEY").replace('\n', "\\n");
        assert_eq!(
            found(&format!("{{\"private_key\": \"{json}\"}}")),
            [("private_key", json.as_str())]
        );
        let account = format!("{{\"type\": \"service_account\", \"private_key\": \"{json}\"}}");
        assert_eq!(found(&account)[0].0, "gcp_service_account");
        let cut = key("PRIVATE KEY");
        let cut = cut.split("-----END").next().expect("the first part");
        assert_eq!(found(cut).len(), 1);
    }

    #[test]
    fn the_keys_of_manuals_are_not_keys() {
        for body in [
            "...",
            "MIIEpAIBAAKCAQEA...",
            "<your key here>",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        ] {
            let text = format!(
                "-----{} PRIVATE KEY-----\n{body}\n-----{} PRIVATE KEY-----",
                "BEGIN", "END"
            );
            assert_eq!(found(&text), [], "{text}");
        }
    }

    #[test]
    fn signed_tokens_are_read_and_not_only_recognised() {
        let header = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
        let token = format!(
            "{header}.eyJzdWIiOiI0Nzc0IiwiZXhwIjoxNzk5OTk5OTk5fQ.q2Vt8Zs1Lk0Xo5Jh7Gd3Fa9Rb6Nc4Me2Wy1Ux8Pv5Q"
        );
        assert_eq!(found(&format!("a {token} b")), [("jwt", token.as_str())]);
        assert_eq!(found(&token.replace("eyJhbGci", "eyJhbGcX")), []);
        assert_eq!(found(&format!("{header}.short")), []);
    }

    #[test]
    fn addresses_with_a_password_are_found_and_examples_are_not() {
        let text = "postgres://app:{}@db.internal:5432/app".replace("{}", "k8Wq2-zz71");
        assert_eq!(found(&text), [("url_credentials", "app:k8Wq2-zz71")]);
        for text in [
            "https://user:password@example.com/",
            "postgres://user:${PASSWORD}@host/db",
            "ftp://name:<password>@host",
            "https://example.com/@someone:thing",
            "mongodb://localhost:27017/x",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn shared_signatures_are_found() {
        let signature = "p4Zk2vXw8Qm1Lr7Ys5Tn3Hc9Jb6Gd0Fe%2FUa4Ri2Ko8%3D";
        let text = format!(
            "https://box.blob.core.windows.net/a?sv=2022-11-02&se=2027-01-01&sr=b&sig={signature}"
        );
        assert_eq!(found(&text), [("azure_sas_token", signature)]);
        assert_eq!(found("sig=short&sv=2022"), []);
    }

    #[test]
    fn the_private_part_of_a_key_in_json_is_found() {
        let secret = "q2Vt8Zs1Lk0Xo5Jh7Gd3Fa9Rb6Nc4Me2Wy1Ux8Pv5Qs";
        let text = format!("{{\"kty\":\"EC\",\"crv\":\"P-256\",\"d\":\"{secret}\"}}");
        assert_eq!(found(&text), [("jwk_private_key", secret)]);
    }
}
