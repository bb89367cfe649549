//! Names of objects, and tables of folders.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One name in a folder: any bytes but `/` and NUL, and neither `.` nor `..`.
///
/// Written as text in which every byte that is not printable ASCII, and `%`, is `%` with two
/// hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Name(Vec<u8>);

impl Name {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bad = bytes.is_empty()
            || bytes == b"."
            || bytes == b".."
            || bytes.iter().any(|b| matches!(b, b'/' | 0));
        (!bad).then(|| Self(bytes.to_vec()))
    }

    /// The name of a slot, a layer or an entry.
    pub(crate) fn number(number: u64) -> Self {
        Self(number.to_string().into_bytes())
    }

    /// A name that the code itself gives.
    pub(crate) fn of(text: &'static str) -> Self {
        debug_assert!(Self::parse(text.as_bytes()).is_some());
        Self(text.as_bytes().to_vec())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The number that this is, as [`Self::number`] writes it.
    pub(crate) fn as_number(&self) -> Option<u64> {
        let number = std::str::from_utf8(&self.0).ok()?.parse().ok()?;
        (Self::number(number) == *self).then_some(number)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        let mut text = String::with_capacity(name.0.len());
        for byte in name.0 {
            match byte {
                b'%' | 0..=b' ' | 0x7f.. => text.push_str(&format!("%{byte:02x}")),
                plain => text.push(char::from(plain)),
            }
        }
        text
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            if *first != b'%' {
                bytes.push(*first);
                continue;
            }
            let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
            let byte = digits.and_then(protocol::ids::unhex);
            bytes.extend(byte.ok_or("not an escaped byte")?);
            rest = &rest[2..];
        }
        Self::parse(&bytes).ok_or("not a name")
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

/// A path as it is shown; bytes that are not UTF-8 read as U+FFFD.
pub(crate) fn shown(path: &[Name]) -> String {
    let mut bytes = Vec::new();
    for name in path {
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(&name.0);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Folders of the workspace by number; 0 is the workspace itself. So a path that many objects
/// share is there once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Folders {
    table: Vec<(u32, Name)>,
    #[serde(skip)]
    known: HashMap<(u32, Name), u32>,
}

impl Folders {
    /// The number of the folder with this name in a folder.
    pub(crate) fn child(&mut self, parent: u32, name: &Name) -> u32 {
        let key = (parent, name.clone());
        if let Some(number) = self.known.get(&key) {
            return *number;
        }
        self.table.push(key.clone());
        // Far fewer than 2^32: a step is bounded.
        let number = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
        self.known.insert(key, number);
        number
    }

    pub(crate) fn intern(&mut self, path: &[Name]) -> u32 {
        path.iter().fold(0, |at, name| self.child(at, name))
    }

    /// The folder above; none of the workspace itself.
    pub(crate) fn parent(&self, number: u32) -> Option<u32> {
        let index = number.checked_sub(1)?;
        self.table
            .get(index as usize)
            .map(|(parent, _)| *parent)
            .filter(|parent| *parent < number)
    }

    /// The numbers by folder and name.
    pub(crate) fn lookup(&self) -> HashMap<(u32, Name), u32> {
        let numbered = self.table.iter().cloned().zip(1..);
        numbered.collect()
    }

    /// The path of a folder; none if there is no such number.
    pub(crate) fn path(&self, number: u32) -> Option<Vec<Name>> {
        let mut path = Vec::new();
        let mut at = number;
        while let Some(index) = at.checked_sub(1) {
            let (parent, name) = self.table.get(index as usize)?;
            // A parent comes before its children, so that this ends.
            if *parent >= at {
                return None;
            }
            path.push(name.clone());
            at = *parent;
        }
        path.reverse();
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back_whatever_their_bytes() {
        let all: Vec<u8> = (1..=255).filter(|b| *b != b'/').collect();
        for bytes in [&all[..], b"a", b"...", b"%41", b" ", b"\n\x1b[2J"] {
            let name = Name::parse(bytes).unwrap();
            let text = serde_json::to_string(&name).unwrap();
            assert!(text.bytes().all(|b| b.is_ascii_graphic()), "{text}");
            assert_eq!(serde_json::from_str::<Name>(&text).unwrap(), name);
        }
        for bad in [
            "\"\"", "\".\"", "\"..\"", "\"a/b\"", "\"%00\"", "\"%2f\"", "\"%4\"",
        ] {
            assert!(serde_json::from_str::<Name>(bad).is_err(), "{bad}");
        }
        assert_eq!(Name::parse(b"007").unwrap().as_number(), None);
        assert_eq!(Name::number(7).as_number(), Some(7));
    }

    #[test]
    fn folders_are_numbered_once_and_a_forged_table_ends() {
        let name = |text: &str| Name::parse(text.as_bytes()).unwrap();
        let mut folders = Folders::default();
        let deep = [name("a"), name("b")];
        let number = folders.intern(&deep);
        assert_eq!(folders.intern(&deep), number);
        assert_eq!(folders.path(number).unwrap(), deep);
        assert_eq!(folders.path(0).unwrap(), []);
        assert_eq!(folders.path(9), None);
        let forged: Folders = serde_json::from_str(r#"[[1,"a"]]"#).unwrap();
        assert_eq!(forged.path(1), None);
    }
}
