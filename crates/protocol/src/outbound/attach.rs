//! How egress attaches a secret to a request.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::as_text;
use crate::ids::SecretName;

/// A secret, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Its name in the vault.
    pub secret: SecretName,
    /// Where in a request it stands.
    #[serde(rename = "as")]
    pub attach: Attach,
}

/// Where in a request a secret stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Attach {
    /// `bearer`: `Authorization: Bearer SECRET` (RFC 6750).
    Bearer,
    /// `basic`: the secret is `user:password` (RFC 7617).
    Basic,
    /// `header X-Api-Key`: a header field of its own.
    Header(FieldName),
    /// `query key`: a parameter of the query.
    Query(Token),
    /// `path bot`: in the place of `{bot}` in the path.
    Path(Placeholder),
    /// `field /auth/token`: in a JSON body, where this pointer leads (RFC 6901).
    Field(Pointer),
    /// `sigv4 eu-west-1 s3`: signs the request as AWS wants it. The secret is `KEY_ID:KEY`.
    SigV4 {
        /// The region.
        region: Token,
        /// The service.
        service: Token,
    },
    /// `oauth2 https://auth.example.com/token`: as a bearer token that a refresh token gets there
    /// (RFC 6749, section 6).
    OAuth2(TokenUrl),
}

/// Why a text is no way to attach a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no way to attach a secret: bearer, basic, header NAME, query NAME, path PLACEHOLDER, \
     field /POINTER, sigv4 REGION SERVICE or oauth2 https://HOST/PATH"
)]
pub struct BadAttach(String);

/// The header fields that egress sets itself, or that say how a message is to be read.
const TAKEN: [&str; 11] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "proxy-authorization",
];

macro_rules! small_text {
    ($($(#[$doc:meta])* $name:ident($fits:expr),)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, Hash)]
            pub struct $name(String);

            impl $name {
                /// Checks the form.
                pub fn parse(text: &str) -> Option<Self> {
                    let fits: fn(&str) -> bool = $fits;
                    fits(text).then(|| Self(text.to_owned()))
                }

                /// As it is written.
                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }
        )*
    };
}

small_text! {
    /// The name of a header field, 1 to 64 letters, digits and hyphens, none that says how a
    /// message is read.
    FieldName(|text| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=64).contains(&text.len())
            && text.bytes().all(inside)
            && !TAKEN.iter().any(|taken| taken.eq_ignore_ascii_case(text))
    }),
    /// 1 to 64 letters, digits, `-`, `_`, `.`.
    Token(|text| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        (1..=64).contains(&text.len()) && text.bytes().all(inside)
    }),
    /// What stands between braces in a path: 1 to 64 lower-case letters, digits, `-`, `_`.
    Placeholder(|text| {
        let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        (1..=64).contains(&text.len()) && text.bytes().all(inside)
    }),
    /// A JSON pointer (RFC 6901) to a member, at most 256 visible ASCII characters.
    Pointer(|text| {
        let escapes = |text: &str| text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        (2..=256).contains(&text.len())
            && text.starts_with('/')
            && text.bytes().all(|b| b.is_ascii_graphic())
            && escapes(text)
    }),
    /// Where an access token is got: an address with https, a name and a path, without query. That
    /// it leads somewhere allowed is judged when it is used.
    TokenUrl(|text| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b"-._~/:".contains(&b);
        let rest = text.strip_prefix("https://").unwrap_or_default();
        text.len() <= 512 && rest.split_once('/').is_some_and(|(host, _)| !host.is_empty())
            && rest.bytes().all(inside)
    }),
}

impl FromStr for Attach {
    type Err = BadAttach;
    fn from_str(text: &str) -> Result<Self, BadAttach> {
        let words: Vec<&str> = text.split(' ').collect();
        let read = match words[..] {
            ["bearer"] => Some(Self::Bearer),
            ["basic"] => Some(Self::Basic),
            ["header", name] => FieldName::parse(name).map(Self::Header),
            ["query", name] => Token::parse(name).map(Self::Query),
            ["path", name] => Placeholder::parse(name).map(Self::Path),
            ["field", pointer] => Pointer::parse(pointer).map(Self::Field),
            ["sigv4", region, service] => Token::parse(region)
                .zip(Token::parse(service))
                .map(|(region, service)| Self::SigV4 { region, service }),
            ["oauth2", url] => TokenUrl::parse(url).map(Self::OAuth2),
            _ => None,
        };
        read.ok_or_else(|| BadAttach(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer => f.write_str("bearer"),
            Self::Basic => f.write_str("basic"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Query(name) => write!(f, "query {name}"),
            Self::Path(name) => write!(f, "path {name}"),
            Self::Field(pointer) => write!(f, "field {pointer}"),
            Self::SigV4 { region, service } => write!(f, "sigv4 {region} {service}"),
            Self::OAuth2(url) => write!(f, "oauth2 {url}"),
        }
    }
}

as_text! {
    Attach: BadAttach,
}
