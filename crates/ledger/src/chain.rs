//! What is hashed and what is signed: `docs/ledger.md`, as functions without I/O.

use ed25519_dalek::VerifyingKey;
use protocol::ids::{Digest, PublicKey, SessionId, Signature};
use protocol::time::Millis;

/// Where every chain begins: 32 zero bytes.
pub const GENESIS: Digest = Digest([0; 32]);

/// The longest event in bytes of JSON.
pub const MAX_EVENT: usize = 1024 * 1024;

/// The most rows that may follow the last signed head. The ledger signs when there are so many.
pub const MAX_UNSIGNED: u64 = 256;

/// A link of the two chains: a row as it is hashed.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// Its number, counted from 1 over all sessions.
    pub row: u64,
    /// When it was written.
    pub time: Millis,
    /// The name of its session.
    pub session: &'a [u8],
    /// Its number within its session, counted from 1.
    pub seq: u64,
    /// The hash of the session's row before it, or [`GENESIS`].
    pub prev: Digest,
    /// The event's JSON.
    pub event: &'a [u8],
}

impl Link<'_> {
    /// The row's hash.
    pub fn hash(&self) -> Digest {
        digest(&[
            b"bulkhead/ledger/row/v1",
            &self.row.to_be_bytes(),
            &self.time.0.to_be_bytes(),
            self.session,
            &self.seq.to_be_bytes(),
            &self.prev.0,
            self.event,
        ])
    }
}

/// The running hash over all rows up to this one, from that up to the row before it.
pub fn running(row: u64, before: Digest, hash: Digest) -> Digest {
    digest(&[
        b"bulkhead/ledger/running/v1",
        &row.to_be_bytes(),
        &before.0,
        &hash.0,
    ])
}

/// What a signature says: this was the newest row of that session when the record had so many rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of the signature, counted from 1.
    pub head: u64,
    /// Whose chain.
    pub session: SessionId,
    /// The sequence number of that session's newest row.
    pub seq: u64,
    /// Its row number.
    pub row: u64,
    /// Its hash.
    pub hash: Digest,
    /// How many rows the record had.
    pub rows: u64,
    /// The running hash over all of them.
    pub running: Digest,
    /// When it was signed.
    pub time: Millis,
}

impl Head {
    /// The bytes that are signed.
    pub fn statement(&self) -> Vec<u8> {
        fields(&[
            b"bulkhead/ledger/head/v1",
            &self.head.to_be_bytes(),
            self.session.as_str().as_bytes(),
            &self.seq.to_be_bytes(),
            &self.row.to_be_bytes(),
            &self.hash.0,
            &self.rows.to_be_bytes(),
            &self.running.0,
            &self.time.0.to_be_bytes(),
        ])
    }

    /// Whether the owner of `key` signed this. Strict: no small-order points, no second encoding.
    #[must_use]
    pub fn signed_by(&self, key: &PublicKey, signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&key.0) else {
            return false;
        };
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(&self.statement(), &signature).is_ok()
    }
}

/// Fields one after the other, each with its length in four bytes, big-endian, in front, so
/// that no two lists of fields have the same bytes.
fn fields(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        // No field is near 4 GiB: the longest is an event of at most `MAX_EVENT`.
        bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

fn digest(parts: &[&[u8]]) -> Digest {
    Digest::of(fields(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link<'a>() -> Link<'a> {
        Link {
            row: 7,
            time: Millis(9),
            session: b"s1",
            seq: 2,
            prev: GENESIS,
            event: b"{}",
        }
    }

    #[test]
    fn every_field_of_a_row_changes_its_hash() {
        let hashes = [
            link().hash(),
            Link { row: 8, ..link() }.hash(),
            Link {
                time: Millis(8),
                ..link()
            }
            .hash(),
            Link {
                session: b"s2",
                ..link()
            }
            .hash(),
            Link { seq: 3, ..link() }.hash(),
            Link {
                prev: Digest([1; 32]),
                ..link()
            }
            .hash(),
            Link {
                event: b"[]",
                ..link()
            }
            .hash(),
        ];
        for (i, a) in hashes.iter().enumerate() {
            assert!(hashes[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn the_hash_of_the_example_in_the_document_is_that_of_the_document() {
        let hash = link().hash();
        let document = include_str!("../../../docs/ledger.md");
        assert!(document.contains(&hash.to_string()), "row hash {hash}");
        let running = running(7, GENESIS, hash);
        assert!(
            document.contains(&running.to_string()),
            "running hash {running}"
        );
    }

    #[test]
    fn bytes_do_not_move_between_fields_unseen() {
        assert_ne!(fields(&[b"ab", b"c"]), fields(&[b"a", b"bc"]));
        assert_ne!(fields(&[b"ab"]), fields(&[b"ab", b""]));
    }
}
