//! A passphrase made into a key by Argon2id (RFC 9106), so that each try costs time and memory.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use protocol::ids::{NoRandom, hex, random, unhex};
use protocol::vault::{MIN_PASSPHRASE, SecretText};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::fault::StoreError;

/// The longest passphrase in bytes.
const MAX_PASSPHRASE: usize = 1024;

/// How a passphrase is stretched; kept with what it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stretch {
    /// Memory in KiB.
    memory: u32,
    /// Passes over it.
    passes: u32,
    /// Lanes.
    lanes: u32,
    /// 16 random bytes in hexadecimal.
    salt: String,
}

/// Bounds of what is taken from a file: nobody makes it cheaper, or so dear that it never ends.
const MEMORY: std::ops::RangeInclusive<u32> = 64 * 1024..=1024 * 1024;
const PASSES: std::ops::RangeInclusive<u32> = 3..=16;
const LANES: std::ops::RangeInclusive<u32> = 1..=4;

impl Stretch {
    /// RFC 9106, section 4, the second recommended option: 64 MiB, three passes, four lanes; a new salt.
    pub(crate) fn new() -> Result<Self, NoRandom> {
        Ok(Self {
            memory: 64 * 1024,
            passes: 3,
            lanes: 4,
            salt: hex(&random::<16>()?),
        })
    }

    /// The key. Takes about 0.2 s and the memory, which is wiped; `None` where the numbers are not within
    /// what is taken.
    pub(crate) fn key(
        &self,
        passphrase: &SecretText,
    ) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError> {
        let within = MEMORY.contains(&self.memory)
            && PASSES.contains(&self.passes)
            && LANES.contains(&self.lanes);
        let salt = unhex(&self.salt).filter(|salt| salt.len() == 16);
        let params = Params::new(self.memory, self.passes, self.lanes, Some(32));
        let (true, Some(salt), Ok(params)) = (within, salt, params) else {
            return Ok(None);
        };
        let mut blocks = Vec::new();
        blocks
            .try_reserve_exact(params.block_count())
            .map_err(|_| StoreError::NoMemory(self.memory))?;
        blocks.resize(params.block_count(), Block::new());
        let mut key = Zeroizing::new([0; 32]);
        let made = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(
                passphrase.expose().as_bytes(),
                &salt,
                key.as_mut_slice(),
                &mut blocks[..],
            );
        blocks.zeroize();
        Ok(made.is_ok().then_some(key))
    }
}

/// Whether it is one that can be taken.
pub(crate) fn check(passphrase: &SecretText) -> Result<(), StoreError> {
    match (MIN_PASSPHRASE..=MAX_PASSPHRASE).contains(&passphrase.expose().len()) {
        true => Ok(()),
        false => Err(StoreError::BadPassphrase),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    #[test]
    fn the_key_is_that_of_another_implementation() {
        // The reference implementation's command line, argon2(1) of Debian 12:
        // echo -n 'correct horse battery' | argon2 0123456789abcdef -id -t 3 -k 65536 -p 4 -l 32 -r
        let stretch = Stretch {
            memory: 64 * 1024,
            passes: 3,
            lanes: 4,
            salt: hex(b"0123456789abcdef"),
        };
        let key = stretch.key(&passphrase("correct horse battery")).unwrap();
        assert_eq!(
            hex(key.unwrap().as_slice()),
            "5220483d4ba1637c5d5df43b377a7f6aed39a6159693d0029a3e4f76d50669ab"
        );
    }

    #[test]
    fn each_salt_gives_another_key_and_cheaper_numbers_are_not_taken() {
        let (one, two) = (Stretch::new().unwrap(), Stretch::new().unwrap());
        let word = passphrase("correct horse battery");
        assert!(one.key(&word).unwrap() != two.key(&word).unwrap());
        for change in [
            |s: &mut Stretch| s.memory = 64 * 1024 - 1,
            |s: &mut Stretch| s.memory = u32::MAX,
            |s: &mut Stretch| s.passes = 2,
            |s: &mut Stretch| s.passes = u32::MAX,
            |s: &mut Stretch| s.lanes = 0,
            |s: &mut Stretch| s.lanes = 5,
            |s: &mut Stretch| s.salt = "00".to_owned(),
        ] {
            let mut cheap = one.clone();
            change(&mut cheap);
            assert!(cheap.key(&word).unwrap().is_none(), "{cheap:?}");
        }
    }

    #[test]
    fn short_and_endless_passphrases_are_refused() {
        assert!(check(&passphrase("1234567")).is_err());
        assert!(check(&passphrase("12345678")).is_ok());
        assert!(check(&passphrase(&"x".repeat(1025))).is_err());
    }
}
