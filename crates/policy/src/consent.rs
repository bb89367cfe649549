//! What a yes rests on: the word of a channel's program, or a signature over the approval's
//! digest that no such program can make.

use protocol::event::Signer;
use protocol::identity;
use protocol::ids::{Digest, PublicKey, Signature};

/// What a yes rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consent {
    /// A channel's program says that somebody said yes. Not enough for tier 3.
    Unsigned,
    /// Somebody signed it.
    Signed(Signed),
}

/// A signature over the digest of one approval, verified. Made by [`Signed::by_operator`] and
/// [`crate::passkey::verify`] and by nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    digest: Digest,
    by: Signer,
}

/// The operator key did not sign this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operator key did not sign this call; approve it with `bulkhead approvals approve`")]
pub struct NotSigned;

impl Signed {
    pub(crate) fn new(digest: Digest, by: Signer) -> Self {
        Self { digest, by }
    }

    /// If the owner of the operator key signed the approval with this digest.
    pub fn by_operator(
        key: &PublicKey,
        digest: Digest,
        signature: &Signature,
    ) -> Result<Self, NotSigned> {
        match identity::approves(key, digest, signature) {
            true => Ok(Self::new(digest, Signer::Operator)),
            false => Err(NotSigned),
        }
    }

    /// What it is over.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What made it.
    pub fn by(&self) -> Signer {
        self.by
    }
}
