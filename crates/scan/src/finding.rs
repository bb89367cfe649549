//! What a scan says.

use std::fmt;

use protocol::ids::SecretName;
use serde::{Serialize, Serializer};

/// What was found: the stable name of a key's format, [`Kind::SECRET`] or [`Kind::HONEYTOKEN`]
/// for what is the vault's own, [`Kind::IMAGE`] or [`Kind::LINK`] for a way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub(crate) &'static str);

impl Kind {
    /// A secret of the vault.
    pub const SECRET: Self = Self("vault_secret");
    /// A decoy of the vault.
    pub const HONEYTOKEN: Self = Self("honeytoken");
    /// More was encoded within one another than a scan looks through.
    pub const TOO_ENCODED: Self = Self("too_encoded");
    /// Something that a client would load by itself from a host that is not allowed.
    pub const IMAGE: Self = Self("image");
    /// A link with data in it to a host that is not allowed.
    pub const LINK: Self = Self("link");

    /// The name, as it stands in output and in the record.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

/// One place of a text. Never what stands there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// Which of the vault's, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<SecretName>,
    /// Byte of the text as it was given, UTF-8, where it begins; on a character's border.
    pub start: usize,
    /// Byte after its end; on a character's border.
    pub end: usize,
}

/// The text with `[redacted: KIND]` in place of each finding. The findings are those of
/// [`crate::Scanner::scan`]: sorted, none over another.
pub fn redact(text: &str, findings: &[Finding]) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut done = 0;
    for finding in findings {
        clean.push_str(&text[done..finding.start]);
        clean.push_str("[redacted: ");
        clean.push_str(finding.kind.as_str());
        clean.push(']');
        done = finding.end;
    }
    clean.push_str(&text[done..]);
    clean
}
