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

/// Over which time new links are counted.
const LINK_WINDOW: Duration = Duration::from_secs(10);

/// So many new links within [`LINK_WINDOW`], and the program that asks is out of order. The
/// gateway asks at most twice a second for each of its peers.
const MOST_LINKS: u32 = 100;

/// The new links that one program asked for.
#[derive(Debug, Default)]
pub(super) struct Relinks {
    since: Option<Instant>,
    count: u32,
}

impl Relinks {
    /// Counts one more; whether it may be made.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        let over = |since: Instant| now.duration_since(since) >= LINK_WINDOW;
        if self.since.is_none_or(over) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count = self.count.saturating_add(1);
        self.count <= MOST_LINKS
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

    #[test]
    fn links_are_not_made_anew_without_end() {
        let (mut relinks, now) = (Relinks::default(), Instant::now());
        let made = (0..1000).filter(|_| relinks.allow(now)).count();
        assert_eq!(made, 100);
        assert!(relinks.allow(now + Duration::from_secs(10)));
    }
}
