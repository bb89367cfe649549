//! Waits between tries.

use std::time::Duration;

use protocol::ids::random;

/// The wait after the first failure; it doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(500);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure: between half and all of what the count asks for, so that
    /// many who failed together do not come back together.
    pub(super) fn failed(&mut self) -> Duration {
        let wait = FIRST
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Without random bytes the whole wait will do.
        let share = random::<1>().map_or(255, |[byte]| byte);
        wait / 2 + (wait / 2) * u32::from(share) / 255
    }

    /// Whether the last failure was the first in a row: the one to write down.
    pub(super) fn is_first(&self) -> bool {
        self.failures == 1
    }

    /// How many failures there were in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// It worked.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        let mut backoff = Backoff::default();
        for n in 0..40 {
            let wait = backoff.failed();
            let full = FIRST.saturating_mul(2_u32.saturating_pow(n)).min(LONGEST);
            assert!(wait >= full / 2 && wait <= full, "{n}: {wait:?}");
        }
        backoff.worked();
        assert!(backoff.failed() <= FIRST);
    }
}
