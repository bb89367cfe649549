//! `vault.attempts`: how often in a row it was tried to unlock the vault with something wrong.
//!
//! An attempt is counted before it is made, so that killing the vault in between saves nobody
//! the wait. The file is not sealed: who can write it can copy the vault as well, and try
//! elsewhere at the price of Argon2id.

use std::time::Duration;

use protocol::time::Millis;
use serde::{Deserialize, Serialize};

use crate::fault::StoreError;
use crate::place::Place;

const FILE: &str = "vault.attempts";

/// The longest file in bytes.
const MAX_FILE: u64 = 256;

/// So many wrong attempts cost nothing: everybody mistypes.
const FREE: u32 = 3;

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Wrong attempts since the last right one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attempts {
    /// How many.
    pub(crate) wrong: u32,
    /// When the last one was.
    last: Option<Millis>,
}

impl Attempts {
    /// As the file says. One that is not readable counts as the longest wait from now on.
    pub(crate) fn read(place: &Place, now: Millis) -> Result<Self, StoreError> {
        if !place.has(FILE)? {
            return Ok(Self::default());
        }
        let bytes = place.read(FILE, MAX_FILE)?;
        Ok(serde_json::from_slice(&bytes).unwrap_or(Self {
            wrong: u32::MAX,
            last: Some(now),
        }))
    }

    /// How long to wait yet.
    pub(crate) fn wait(&self, now: Millis) -> Option<Duration> {
        let (Some(last), true) = (self.last, self.wrong >= FREE) else {
            return None;
        };
        let whole = 1_u64
            .checked_shl(self.wrong - FREE)
            .map_or(LONGEST, |seconds| Duration::from_secs(seconds).min(LONGEST));
        // A clock that was ahead once does not make it longer than it is.
        let over = match last > now {
            true => whole,
            false => now.since(last),
        };
        (over < whole).then(|| whole - over)
    }

    /// Counts one that is about to be made; durable when this returns.
    pub(crate) fn count(&mut self, place: &Place, now: Millis) -> Result<(), StoreError> {
        let next = Self {
            wrong: self.wrong.saturating_add(1),
            last: Some(now),
        };
        next.write(place)?;
        *self = next;
        Ok(())
    }

    /// Forgets them: the last one was right.
    pub(crate) fn forget(&mut self, place: &Place) -> Result<(), StoreError> {
        *self = Self::default();
        self.write(place)
    }

    fn write(&self, place: &Place) -> Result<(), StoreError> {
        // A struct of two numbers always has a JSON form.
        place.replace(FILE, &serde_json::to_vec(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(wrong: u32) -> Attempts {
        Attempts {
            wrong,
            last: Some(Millis(1_000_000)),
        }
    }

    #[test]
    fn each_wrong_attempt_doubles_the_wait_up_to_the_longest() {
        let wait = |wrong| after(wrong).wait(Millis(1_000_000));
        assert_eq!(Attempts::default().wait(Millis(0)), None);
        assert_eq!(wait(2), None);
        for (wrong, seconds) in [
            (3, 1),
            (4, 2),
            (8, 32),
            (12, 512),
            (13, 900),
            (80, 900),
            (u32::MAX, 900),
        ] {
            assert_eq!(wait(wrong), Some(Duration::from_secs(seconds)), "{wrong}");
        }
    }

    #[test]
    fn time_that_passed_counts_and_a_clock_put_back_waits_no_longer() {
        assert_eq!(
            after(4).wait(Millis(1_001_500)),
            Some(Duration::from_millis(500))
        );
        assert_eq!(after(4).wait(Millis(1_002_000)), None);
        // One attempt, which is counted at the right time.
        assert_eq!(after(4).wait(Millis(0)), None);
    }
}
