//! How one side of a link proves who it is, and how the operator says yes: Ed25519 (RFC 8032)
//! over a challenge, and over the digest of an approval.

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use crate::ids::{ChannelId, Digest, NoRandom, Nonce, PublicKey, Signature, random};
use crate::time::Millis;

/// Separates these signatures from all others that such a key could make.
const DOMAIN: &[u8] = b"bulkhead/link-proof/v1";

/// Likewise, for a yes to an approval.
const APPROVAL_DOMAIN: &[u8] = b"bulkhead/approval/v1";

/// Likewise, for the end of a freeze.
const RESUME_DOMAIN: &[u8] = b"bulkhead/resume/v1";

/// The private half of an identity. Has no Debug, Display, Clone or Serialize; wiped when dropped.
pub struct IdentityKey(SigningKey);

impl IdentityKey {
    /// From the 32 secret bytes of RFC 8032.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// A new one from the kernel's random bytes, with the seed that has to be kept.
    pub fn generate() -> Result<(Self, [u8; 32]), NoRandom> {
        let seed = random()?;
        Ok((Self::from_seed(&seed), seed))
    }

    /// The half that others may know.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Proof for this challenge, as this channel.
    pub fn prove(&self, channel: &ChannelId, nonce: Nonce) -> Signature {
        Signature(self.0.sign(&statement(channel, nonce)).to_bytes())
    }

    /// A yes to the approval with this digest, which holds its call, nonce and expiry.
    pub fn approve(&self, digest: Digest) -> Signature {
        Signature(self.0.sign(&yes(digest)).to_bytes())
    }

    /// The end of the freeze that began at `since`, for this challenge.
    pub fn resume(&self, nonce: Nonce, since: Millis) -> Signature {
        Signature(self.0.sign(&end_of_freeze(nonce, since)).to_bytes())
    }
}

/// Whether `signature` proves that the owner of `key` answered this challenge as this channel.
#[must_use]
pub fn proves(key: &PublicKey, channel: &ChannelId, nonce: Nonce, signature: &Signature) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(&key.0) else {
        return false;
    };
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    key.verify_strict(&statement(channel, nonce), &signature)
        .is_ok()
}

/// Whether `signature` is a yes of the owner of `key` to the approval with this digest.
#[must_use]
pub fn approves(key: &PublicKey, digest: Digest, signature: &Signature) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(&key.0) else {
        return false;
    };
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    key.verify_strict(&yes(digest), &signature).is_ok()
}

/// Whether `signature` is the owner of `key` ending the freeze that began at `since`, for this challenge.
#[must_use]
pub fn resumes(key: &PublicKey, nonce: Nonce, since: Millis, signature: &Signature) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(&key.0) else {
        return false;
    };
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    key.verify_strict(&end_of_freeze(nonce, since), &signature)
        .is_ok()
}

fn end_of_freeze(nonce: Nonce, since: Millis) -> Vec<u8> {
    [RESUME_DOMAIN, &nonce.0, &since.0.to_be_bytes()].concat()
}

fn yes(digest: Digest) -> Vec<u8> {
    [APPROVAL_DOMAIN, &digest.0].concat()
}

/// What is signed: every field has a fixed length or carries its length.
fn statement(channel: &ChannelId, nonce: Nonce) -> Vec<u8> {
    let name = channel.as_str().as_bytes();
    let mut bytes = DOMAIN.to_vec();
    // A channel id has at most 32 bytes.
    bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    bytes.extend(name);
    bytes.extend(nonce.0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_key_channel_and_nonce_only() {
        let (key, _) = IdentityKey::generate().unwrap();
        let (other, _) = IdentityKey::generate().unwrap();
        let (web, tg) = (
            ChannelId::parse("web").unwrap(),
            ChannelId::parse("telegram").unwrap(),
        );
        let proof = key.prove(&web, Nonce([1; 16]));
        assert!(proves(&key.public(), &web, Nonce([1; 16]), &proof));
        assert!(!proves(&other.public(), &web, Nonce([1; 16]), &proof));
        assert!(!proves(&key.public(), &tg, Nonce([1; 16]), &proof));
        assert!(!proves(&key.public(), &web, Nonce([2; 16]), &proof));
    }

    #[test]
    fn the_end_of_a_freeze_is_signed_for_one_challenge_of_one_freeze_by_its_key() {
        let (key, _) = IdentityKey::generate().unwrap();
        let (other, _) = IdentityKey::generate().unwrap();
        let (nonce, since) = (Nonce([7; 16]), Millis(5));
        let signed = key.resume(nonce, since);
        assert!(resumes(&key.public(), nonce, since, &signed));
        assert!(!resumes(&other.public(), nonce, since, &signed));
        assert!(!resumes(&key.public(), Nonce([8; 16]), since, &signed));
        assert!(!resumes(&key.public(), nonce, Millis(6), &signed));
        let mut altered = signed;
        altered.0[40] ^= 1;
        assert!(!resumes(&key.public(), nonce, since, &altered));
        // What the same key signs for a link or an approval ends no freeze.
        let operator = ChannelId::parse("operator").unwrap();
        let proof = key.prove(&operator, nonce);
        assert!(!resumes(&key.public(), nonce, since, &proof));
        assert!(!proves(&key.public(), &operator, nonce, &signed));
        let yes = key.approve(Digest([7; 32]));
        assert!(!resumes(&key.public(), nonce, since, &yes));
        assert!(!approves(&key.public(), Digest([7; 32]), &signed));
    }

    #[test]
    fn a_yes_holds_for_its_key_and_digest_only_and_is_no_proof_for_a_link() {
        let (key, _) = IdentityKey::generate().unwrap();
        let (other, _) = IdentityKey::generate().unwrap();
        let (digest, changed) = (Digest([1; 32]), Digest([2; 32]));
        let yes = key.approve(digest);
        assert!(approves(&key.public(), digest, &yes));
        assert!(!approves(&other.public(), digest, &yes));
        assert!(!approves(&key.public(), changed, &yes));
        let mut altered = yes;
        altered.0[9] ^= 1;
        assert!(!approves(&key.public(), digest, &altered));
        let operator = ChannelId::parse("operator").unwrap();
        let proof = key.prove(&operator, Nonce([1; 16]));
        assert!(!approves(&key.public(), digest, &proof));
        assert!(!proves(&key.public(), &operator, Nonce([1; 16]), &yes));
    }
}
