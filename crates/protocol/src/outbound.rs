//! Egress rules: who may reach what, as the configuration says it and as it goes to whoever
//! decides by it. What a request is under them is judged in `bulkhead-outbound`.
//!
//! All values are parsed where they are read, and what they are written as reads back as the same.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{ChannelId, RuleName, ToolName};
use crate::time::{Day, Millis};

mod attach;
mod bytes;
mod path;

pub use attach::{Attach, BadAttach, Credential, FieldName, Placeholder, Pointer, Token, TokenUrl};
pub use bytes::{BadByteCount, ByteCount};
pub use path::{BadPathPattern, PathPattern};

/// The most rules.
pub const MAX_EGRESS_RULES: usize = 200;

/// The most ports, methods or paths in one rule.
pub const MAX_LISTED: usize = 64;

/// Everything that one rule allows, to one subject on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// Shown wherever it decides; unique.
    pub name: RuleName,
    /// Whom it is for.
    pub subject: Subject,
    /// Which host.
    pub host: HostPattern,
    /// At least one.
    pub ports: Vec<NonZeroU16>,
    /// At least one.
    pub methods: Vec<Method>,
    /// At least one; which places on the host.
    pub paths: Vec<PathPattern>,
    /// Who answers for it.
    pub owner: RuleOwner,
    /// The first day (UTC) on which it counts no more.
    pub expires: Day,
    /// Who is asked before something goes out.
    pub ask: Asks,
    /// What egress attaches where a request asks for it by name.
    pub credential: Option<Credential>,
    /// How much.
    pub budgets: Budgets,
    /// Whether something may go out in the clear.
    pub cleartext: Cleartext,
    /// Which addresses.
    pub reach: RuleReach,
    /// Whether egress looks into what a box sends.
    pub inspect: Inspect,
}

impl EgressRule {
    /// Whether it counts at this time.
    pub fn is_in_force(&self, now: Millis) -> bool {
        now < self.expires.begins()
    }
}

/// For whom a rule is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// A tool, whose request egress makes.
    Tool(ToolName),
    /// A program in a box.
    Exec(ProgramName),
    /// A channel's program.
    Channel(ChannelId),
    /// The model's link. Where it leads is said in `[model]`, by no rule.
    Model,
}

/// Why a text is no subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a subject: write tool:NAME, exec:PROGRAM or channel:NAME")]
pub struct BadSubject(String);

impl FromStr for Subject {
    type Err = BadSubject;
    fn from_str(text: &str) -> Result<Self, BadSubject> {
        let bad = || BadSubject(text.chars().take(80).collect());
        match text.split_once(':') {
            Some(("tool", name)) => ToolName::parse(name).map(Self::Tool).map_err(|_| bad()),
            Some(("exec", name)) => ProgramName::parse(name).map(Self::Exec).ok_or_else(bad),
            Some(("channel", name)) => ChannelId::parse(name).map(Self::Channel).map_err(|_| bad()),
            None if text == "model" => Ok(Self::Model),
            Some(_) | None => Err(bad()),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool(name) => write!(f, "tool:{name}"),
            Self::Exec(name) => write!(f, "exec:{name}"),
            Self::Channel(name) => write!(f, "channel:{name}"),
            Self::Model => f.write_str("model"),
        }
    }
}

/// The name of a program without its folder: `git`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramName(String);

impl ProgramName {
    /// 1 to 64 letters, digits, and `.`, `_`, `+`, `-`, but not first.
    pub fn parse(text: &str) -> Option<Self> {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
        let first = text.bytes().next()?;
        let fits = first.is_ascii_alphanumeric() && text.len() <= 64 && text.bytes().all(inside);
        fits.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProgramName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which host a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// `api.example.com`: this name, in lower case, with its punycode.
    Name(HostName),
    /// `*.example.com`: all names below it, and not the name itself.
    Below(HostName),
    /// An address; only loopback and private ones are of use in a rule.
    Address(IpAddr),
}

impl HostPattern {
    /// Whether it stands for this host, a name in lower case or an address, as a text. That a rule stands
    /// for it says nothing of what may be sent there.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            Self::Name(name) => name.as_str() == host,
            Self::Below(name) => host
                .strip_suffix(name.as_str())
                .is_some_and(|below| below.len() > 1 && below.ends_with('.')),
            Self::Address(address) => host.parse() == Ok(*address),
        }
    }
}

/// A host's name in the form of the resolver: lower-case letters, digits and hyphens in at least
/// two labels of at most 63 bytes, at most 253 bytes in all, the last label not a number
/// (RFC 1123, section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

impl HostName {
    /// Checks the form, and nothing about what the name means.
    pub fn parse(text: &str) -> Option<Self> {
        let label = |label: &str| {
            let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            (1..=63).contains(&label.len())
                && label.bytes().all(inside)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last = text.rsplit('.').next()?;
        let fits = text.len() <= 253
            && text.contains('.')
            && text.split('.').all(label)
            && !reads_as_number(last);
        fits.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a last label makes a name an address for some readers: `1`, `0x7f`.
fn reads_as_number(label: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let hex = label.strip_prefix("0x");
    digits(label) || hex.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no host of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a host for a rule: write a whole name in lower case (example.com; other letters \
     in their punycode), \"*.example.com\" for all names below one, or a loopback or private address"
)]
pub struct BadHostPattern(String);

impl FromStr for HostPattern {
    type Err = BadHostPattern;
    fn from_str(text: &str) -> Result<Self, BadHostPattern> {
        let bad = || BadHostPattern(text.chars().take(80).collect());
        if let Some(name) = text.strip_prefix("*.") {
            return HostName::parse(name).map(Self::Below).ok_or_else(bad);
        }
        let address = (text.parse::<Ipv4Addr>().map(IpAddr::V4))
            .or_else(|_| text.parse::<Ipv6Addr>().map(IpAddr::V6));
        match address {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => HostName::parse(text).map(Self::Name).ok_or_else(bad),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The methods that can be asked for (RFC 9110, RFC 5789). CONNECT and TRACE are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "they are their own words")]
pub enum Method {
    Get,
    Head,
    Options,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Get,
        Self::Head,
        Self::Options,
        Self::Post,
        Self::Put,
        Self::Patch,
        Self::Delete,
    ];

    /// As it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether it is only a look, by what it means (RFC 9110, section 9.2.1).
    pub fn only_reads(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }
}

/// Why a text is no method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a method: GET, HEAD, OPTIONS, POST, PUT, PATCH or DELETE, in capitals")]
pub struct BadMethod(String);

impl FromStr for Method {
    type Err = BadMethod;
    fn from_str(text: &str) -> Result<Self, BadMethod> {
        let fits = |method: &Self| method.as_str() == text;
        let found = Self::ALL.into_iter().find(fits);
        found.ok_or_else(|| BadMethod(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who answers for a rule, as people call them: 1 to 64 characters, none of them invisible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleOwner(String);

/// Why a text names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an owner is a name of 1 to 64 characters, in ASCII")]
pub struct BadOwner;

impl FromStr for RuleOwner {
    type Err = BadOwner;
    fn from_str(text: &str) -> Result<Self, BadOwner> {
        let visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        let fits = text.len() <= 64 && !text.trim().is_empty() && text.bytes().all(visible);
        fits.then(|| Self(text.to_owned())).ok_or(BadOwner)
    }
}

impl fmt::Display for RuleOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Before which requests of a rule somebody is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asks {
    /// Before none that only reads, and once before others.
    #[default]
    ByMethod,
    /// Before none.
    Never,
    /// Once; the answer is remembered.
    Once,
    /// Before each.
    Always,
}

/// How much a rule lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// Requests, or tunnels of a box.
    pub per_minute: NonZeroU32,
    /// Both ways.
    pub per_day: ByteCount,
    /// In the body of one request, or up one tunnel.
    pub upload: ByteCount,
    /// In one answer, or down one tunnel.
    pub download: ByteCount,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            per_minute: NonZeroU32::MIN.saturating_add(59),
            per_day: ByteCount::mib(1024),
            upload: ByteCount::mib(1),
            download: ByteCount::mib(10),
        }
    }
}

/// Whether something may go out without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleartext {
    /// https only.
    #[default]
    Refused,
    /// http as well.
    Allowed,
}

/// Which addresses a rule leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleReach {
    /// Public ones.
    #[default]
    Public,
    /// Exactly the loopback or private address that is its host.
    Private,
}

/// Whether egress ends the TLS of a box with a certificate authority of that box, so that methods
/// and paths hold there too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inspect {
    /// It sees the host only.
    #[default]
    No,
    /// It sees each request.
    Yes,
}

/// Values that are texts outside of the program.
macro_rules! as_text {
    ($($name:ident: $error:ty,)*) => {
        $(
            impl TryFrom<String> for $name {
                type Error = $error;
                fn try_from(text: String) -> Result<Self, $error> {
                    text.parse()
                }
            }

            impl From<$name> for String {
                fn from(value: $name) -> String {
                    value.to_string()
                }
            }
        )*
    };
}
use as_text;

as_text! {
    Subject: BadSubject,
    HostPattern: BadHostPattern,
    RuleOwner: BadOwner,
}

#[cfg(test)]
mod tests;
