//! Which parts of a secret are secrets by themselves.

use serde_json::Value;
use zeroize::{Zeroize as _, Zeroizing};

use crate::marks::normal;

/// The most parts of one secret that are told; all of it together is looked for in any case.
pub const MOST_PARTS: usize = 64;

/// What the name of a field holds that keeps a secret.
const SECRET_WORDS: &[&str] = &["credential", "key", "pass", "pwd", "secret", "token"];

/// Ends of the names of fields that everybody may know, in the singular.
const PUBLIC_ENDS: &[&str] = &[
    "email", "expiry", "id", "scope", "type", "uri", "url", "user", "username",
];

/// The parts, without the whole. Of `user:password` and `KEY_ID:KEY:TOKEN` what stands behind the
/// first colon, and each part of that: a name in front of it may be an address that stands in
/// ordinary texts. Of an address (RFC 3986, section 3.2.1) the password in it. Of JSON each text
/// that its field's name says to be secret, or that looks like no words. Wiped when dropped.
#[must_use]
pub fn secret_parts(value: &str) -> Vec<Zeroizing<String>> {
    let mut parts = Vec::new();
    match serde_json::from_str::<Value>(value) {
        Ok(json @ (Value::Object(_) | Value::Array(_))) => {
            of_json(json, Field::Unnamed, &mut parts)
        }
        Ok(_) | Err(_) => of_line(value, &mut parts),
    }
    parts.truncate(MOST_PARTS);
    parts
}

/// What the name of a field says of what it keeps.
#[derive(Clone, Copy)]
enum Field {
    Secret,
    Public,
    Unnamed,
}

impl Field {
    /// Of a field within another one.
    fn within(self, name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let one = name.trim_end_matches('s');
        if PUBLIC_ENDS.iter().any(|end| one.ends_with(end)) {
            Self::Public
        } else if SECRET_WORDS.iter().any(|word| name.contains(word)) {
            Self::Secret
        } else {
            self
        }
    }
}

/// Texts are moved, so that none is left behind unwiped.
fn of_json(value: Value, field: Field, parts: &mut Vec<Zeroizing<String>>) {
    match value {
        Value::String(mut text) => {
            of_address(&text, parts);
            match field {
                Field::Secret => parts.push(Zeroizing::new(text)),
                Field::Unnamed if !text.contains("://") && is_odd(&text) => {
                    parts.push(Zeroizing::new(text));
                }
                Field::Public | Field::Unnamed => text.zeroize(),
            }
        }
        Value::Array(values) => {
            for value in values {
                of_json(value, field, parts);
            }
        }
        Value::Object(values) => {
            for (name, value) in values {
                of_json(value, field.within(&name), parts);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn of_line(value: &str, parts: &mut Vec<Zeroizing<String>>) {
    if value.contains("://") {
        return of_address(value, parts);
    }
    let line = value.trim();
    let Some((_, behind)) = line.split_once(':').filter(|_| !line.contains('\n')) else {
        return;
    };
    let each = behind.split(':').filter(|part| part.len() < behind.len());
    parts.extend(std::iter::once(behind).chain(each).map(owned));
}

fn of_address(value: &str, parts: &mut Vec<Zeroizing<String>>) {
    let rest = value.split_once("://").map(|(_, rest)| rest);
    let user = rest
        .and_then(|rest| rest.split('/').next())
        .and_then(|authority| authority.rsplit_once('@'))
        .map(|(user, _)| user);
    if let Some((_, password)) = user.and_then(|user| user.split_once(':')) {
        parts.push(owned(password));
    }
}

fn owned(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

/// Digits and letters change more often than they do in words.
fn is_odd(text: &str) -> bool {
    let letters = text.bytes().filter_map(normal).map(|b| b.is_ascii_digit());
    let next = letters.clone().skip(1);
    letters
        .zip(next)
        .filter(|(one, other)| one != other)
        .count()
        >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(value: &str) -> Vec<String> {
        let parts = secret_parts(value);
        parts.iter().map(|part| part.to_string()).collect()
    }

    #[test]
    fn what_stands_behind_a_colon_is_a_secret_and_the_name_before_it_is_none() {
        assert_eq!(
            parts("alice.smith@example.com:Tr0ub4dor&3xQ9"),
            ["Tr0ub4dor&3xQ9"]
        );
        assert_eq!(
            parts("AKIDEXAMPLE:Ky8:Tok3n\n"),
            ["Ky8:Tok3n", "Ky8", "Tok3n"]
        );
        assert_eq!(parts("Zq8hT2vXw91L"), [""; 0]);
        assert_eq!(parts("Proc-Type: 4\nDEK-Info: 5"), [""; 0]);
        assert_eq!(
            parts("postgres://me:h0rs3@db.example.com:5432/x"),
            ["h0rs3"]
        );
        assert_eq!(parts("https://hooks.example.com/x"), [""; 0]);
    }

    #[test]
    fn of_json_the_secret_texts_are_parts_and_names_and_addresses_are_none() {
        let client = r#"{"refresh_token": "wordsonly", "client_id": "a1b2c3d4.apps.example.com",
            "client_secret": "GX-9", "scope": "mail", "token_uri": "https://a.example.com/1/2/3"}"#;
        let mut found = parts(client);
        found.sort();
        assert_eq!(found, ["GX-9", "wordsonly"]);
        let nested = r#"{"tokens": [{"value": "plain", "email": "a1b2c3@example.com"}],
            "other": "Zq8hT2vX", "name": "some words", "dsn": "amqp://u:pw1@h", "n": 7}"#;
        let mut found = parts(nested);
        found.sort();
        assert_eq!(found, ["Zq8hT2vX", "plain", "pw1"]);
        let many: Vec<String> = (0..200).map(|n| format!("a{n}b{n}c")).collect();
        let many = serde_json::to_string(&many).expect("texts");
        assert_eq!(parts(&many).len(), MOST_PARTS);
    }
}
