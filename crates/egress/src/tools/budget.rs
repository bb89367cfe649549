//! How often and how much a rule still allows.
//!
//! Kept in memory: egress has no file, so a restart begins anew. The bounds of one request
//! hold whatever was counted before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Requests a minute, and as many at once.
    pub(crate) per_minute: u32,
    /// Bytes of a day (UTC), both ways.
    pub(crate) per_day: u64,
}

/// What was used of each rule.
#[derive(Clone, Default)]
pub(crate) struct Spent(Arc<Mutex<HashMap<String, Counter>>>);

struct Counter {
    /// Requests that may be made at once.
    left: f64,
    at: Instant,
    /// Days since 1970.
    day: u64,
    bytes: u64,
}

/// Bytes that are set aside for a request. What it did not use is given back when this is dropped.
pub(crate) struct Reservation {
    spent: Spent,
    rule: String,
    day: u64,
    reserved: u64,
    used: u64,
}

impl Spent {
    /// Counts a request, and sets bytes aside for it: all of `up`, and of `down` what there is
    /// left, but at least one. The words say which limit is reached.
    pub(crate) fn reserve(
        &self,
        rule: &str,
        budget: Budget,
        (up, down): (u64, u64),
        (now, day): (Instant, u64),
    ) -> Result<Reservation, String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = f64::from(budget.per_minute);
        let counter = all.entry(rule.to_owned()).or_insert(Counter {
            left: rate,
            at: now,
            day,
            bytes: 0,
        });
        if counter.day != day {
            (counter.day, counter.bytes) = (day, 0);
        }
        let filled = now.duration_since(counter.at).as_secs_f64() * rate / 60.0;
        (counter.left, counter.at) = ((counter.left + filled).min(rate), now);
        if counter.left < 1.0 {
            return Err(format!("{} requests a minute", budget.per_minute));
        }
        let left = budget.per_day.saturating_sub(counter.bytes);
        if left <= up {
            return Err(format!(
                "{} bytes a day, until midnight UTC",
                budget.per_day
            ));
        }
        counter.left -= 1.0;
        let reserved = up + down.min(left - up);
        counter.bytes += reserved;
        Ok(Reservation {
            spent: self.clone(),
            rule: rule.to_owned(),
            day,
            reserved,
            used: 0,
        })
    }
}

impl Reservation {
    /// How many bytes may still be used.
    pub(crate) fn left(&self) -> u64 {
        self.reserved.saturating_sub(self.used)
    }

    /// Counts bytes that went out or came in.
    pub(crate) fn used(&mut self, bytes: u64) {
        self.used = self.used.saturating_add(bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut all = self.spent.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = all.get_mut(&self.rule).filter(|it| it.day == self.day) {
            counter.bytes = counter.bytes.saturating_sub(self.reserved) + self.used;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const BUDGET: Budget = Budget {
        per_minute: 3,
        per_day: 1000,
    };

    #[test]
    fn a_rule_allows_so_many_requests_a_minute_and_others_are_not_held_up() {
        let (spent, now) = (Spent::default(), Instant::now());
        let ask = |rule, at| spent.reserve(rule, BUDGET, (1, 1), (at, 1)).map(drop);
        for _ in 0..3 {
            assert_eq!(ask("a", now), Ok(()));
        }
        assert_eq!(ask("a", now), Err("3 requests a minute".to_owned()));
        assert_eq!(ask("b", now), Ok(()));
        let later = now + Duration::from_secs(20);
        assert_eq!(ask("a", later), Ok(()));
        assert!(ask("a", later).is_err());
    }

    #[test]
    fn a_day_s_bytes_are_set_aside_before_and_what_was_not_used_is_given_back() {
        let spent = Spent::default();
        let budget = Budget {
            per_minute: 1000,
            ..BUDGET
        };
        let ask = |up, down, day| spent.reserve("a", budget, (up, down), (Instant::now(), day));
        let mut first = ask(100, 800, 1).unwrap();
        assert_eq!(first.left(), 900);
        let second = ask(50, 800, 1).unwrap();
        assert_eq!(second.left(), 100, "only what is left");
        assert!(ask(0, 1, 1).is_err());
        first.used(300);
        drop((first, second));
        assert_eq!(ask(0, 5000, 1).unwrap().left(), 700);
        assert!(ask(700, 1, 1).is_err());
        assert_eq!(ask(0, 5000, 2).unwrap().left(), 1000, "another day");
    }

    #[test]
    fn more_than_was_set_aside_counts_all_the_same() {
        let spent = Spent::default();
        let ask = || spent.reserve("a", BUDGET, (0, 10), (Instant::now(), 1));
        let mut one = ask().unwrap();
        one.used(5000);
        assert_eq!(one.left(), 0);
        drop(one);
        assert!(ask().is_err());
    }
}
