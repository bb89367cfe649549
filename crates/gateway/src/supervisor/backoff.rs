//! When a program that died is started again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over which time deaths are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// So many deaths within [`WINDOW`] and it is not started again.
const MOST_DEATHS: usize = 6;

/// The wait after the first death; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// What to do about a death.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Start it again after this time.
    Wait(Duration),
    /// Leave it.
    GiveUp,
}

/// The deaths of one program.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    deaths: VecDeque<Instant>,
}

impl Backoff {
    /// Counts a death.
    pub(super) fn died(&mut self, now: Instant) -> Verdict {
        self.deaths.push_back(now);
        while self
            .deaths
            .front()
            .is_some_and(|first| now.duration_since(*first) > WINDOW)
        {
            self.deaths.pop_front();
        }
        match self.deaths.len() {
            // At most five doublings: 1.6 s.
            deaths if deaths < MOST_DEATHS => Verdict::Wait(FIRST_WAIT * (1 << (deaths - 1))),
            _ => Verdict::GiveUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_a_program_that_keeps_dying_is_left() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let verdicts: Vec<_> = (0..6).map(|_| backoff.died(now)).collect();
        assert_eq!(verdicts[0], Verdict::Wait(Duration::from_millis(50)));
        assert_eq!(verdicts[4], Verdict::Wait(Duration::from_millis(800)));
        assert_eq!(verdicts[5], Verdict::GiveUp);
    }

    #[test]
    fn deaths_of_long_ago_do_not_count() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for minute in 0..20 {
            let verdict = backoff.died(now + Duration::from_secs(61 * minute));
            assert_eq!(verdict, Verdict::Wait(Duration::from_millis(50)));
        }
    }
}
