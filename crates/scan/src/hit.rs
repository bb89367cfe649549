//! A place that was found, before it is one of the text that was given.

use std::ops::Range;

use protocol::ids::SecretName;

use crate::finding::Kind;

/// What prevails where two things are found at one place, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// By its name and its randomness.
    Context,
    /// By its form.
    Format,
    /// By its form, and it holds others.
    Document,
    /// One of the vault's.
    Vault,
}

/// A place in a view of a text.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub(crate) kind: Kind,
    pub(crate) name: Option<SecretName>,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) rank: Rank,
}

impl Hit {
    pub(crate) fn new(kind: Kind, place: Range<usize>, rank: Rank) -> Self {
        Self {
            kind,
            name: None,
            start: place.start,
            end: place.end,
            rank,
        }
    }
}
