//! How much, as people write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::as_text;

/// Bytes: `100 MiB`. At least one, at most 1024 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteCount(u64);

/// Why a text is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount: write \"100 MiB\", with B, KiB, MiB or GiB, up to 1024 GiB")]
pub struct BadByteCount(String);

const UNITS: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

const MOST: u64 = 1 << 40;

impl ByteCount {
    /// So many times 2^20; no more than the most there can be.
    pub const fn mib(count: u32) -> Self {
        let bytes = (count as u64) << 20;
        match bytes {
            0 => Self(1),
            bytes if bytes > MOST => Self(MOST),
            bytes => Self(bytes),
        }
    }

    /// As a number.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteCount {
    type Err = BadByteCount;
    fn from_str(text: &str) -> Result<Self, BadByteCount> {
        let bad = || BadByteCount(text.chars().take(40).collect());
        let (number, unit) = text.split_once(' ').ok_or_else(bad)?;
        let (_, shift) = (UNITS.iter())
            .find(|(name, _)| *name == unit)
            .ok_or_else(bad)?;
        let plain = !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit());
        let number: u64 = match plain {
            true => number.parse().map_err(|_| bad())?,
            false => return Err(bad()),
        };
        let bytes = number.checked_mul(1 << shift).ok_or_else(bad)?;
        let fits = (1..=MOST).contains(&bytes);
        fits.then_some(Self(bytes)).ok_or_else(bad)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, shift): &&(&str, u32)| self.0.is_multiple_of(1 << shift);
        let (unit, shift) = UNITS.iter().find(whole).unwrap_or(&("B", 0));
        write!(f, "{} {unit}", self.0 >> shift)
    }
}

as_text! {
    ByteCount: BadByteCount,
}
