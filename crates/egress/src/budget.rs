//! How often and how much a rule still allows, to tools and to boxes.
//!
//! Counted in memory: egress has no file, so a restart begins anew. What bounds one tunnel or one request
//! holds whatever was counted before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::outbound::Budgets;
use protocol::time::Millis;

const MINUTE: f64 = 60_000.0;
const DAY: u64 = 24 * 60 * 60_000;

/// What was used of each rule.
#[derive(Clone, Default)]
pub(crate) struct Spent(Arc<Mutex<HashMap<String, Counter>>>);

struct Counter {
    /// Requests that may be made at once.
    left: f64,
    at: Millis,
    /// Days since 1970 (UTC), and bytes on that day.
    day: u64,
    bytes: u64,
}

/// A limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Over {
    /// Of requests.
    #[error("{0} requests a minute")]
    Often(u32),
    /// Of bytes.
    #[error("{0} bytes a day, until midnight UTC")]
    Day(u64),
    /// Of bytes that go up.
    #[error("{0} bytes up")]
    Up(u64),
    /// Of bytes that come down.
    #[error("{0} bytes down")]
    Down(u64),
}

impl Spent {
    /// Counts a request or a tunnel by this rule, and gives what is then to be counted of it. So many as are
    /// allowed in a minute may come at once.
    pub(crate) fn begin(&self, rule: &str, most: &Budgets, now: Millis) -> Result<Meter, Over> {
        let meter = self.uncounted(rule, most, now)?;
        let rate = f64::from(most.per_minute.get());
        self.with(rule, now, |counter| {
            // A clock that was set back fills nothing.
            let passed = now.0.saturating_sub(counter.at.0) as f64;
            let filled = counter.left + passed * rate / MINUTE;
            (counter.left, counter.at) = (filled.min(rate), now);
            if counter.left < 1.0 {
                return Err(Over::Often(most.per_minute.get()));
            }
            counter.left -= 1.0;
            Ok(meter)
        })
    }

    /// The same for what is counted by the requests that come over it.
    pub(crate) fn uncounted(&self, rule: &str, most: &Budgets, now: Millis) -> Result<Meter, Over> {
        let per_day = most.per_day.bytes();
        if self.with(rule, now, |counter| counter.bytes) >= per_day {
            return Err(Over::Day(per_day));
        }
        Ok(Meter {
            spent: self.clone(),
            rule: rule.to_owned(),
            most: (most.upload.bytes(), most.download.bytes()),
            per_day,
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        })
    }

    fn with<T>(&self, rule: &str, now: Millis, change: impl FnOnce(&mut Counter) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let today = now.0 / DAY;
        let counter = all.entry(rule.to_owned()).or_insert(Counter {
            // More than any rule allows, so that the first request finds all of it.
            left: f64::MAX,
            at: now,
            day: today,
            bytes: 0,
        });
        if counter.day != today {
            (counter.day, counter.bytes) = (today, 0);
        }
        change(counter)
    }
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the server.
    Up,
    /// From it.
    Down,
}

/// What one tunnel or one request carries.
pub(crate) struct Meter {
    spent: Spent,
    rule: String,
    /// Up and down.
    most: (u64, u64),
    per_day: u64,
    up: AtomicU64,
    down: AtomicU64,
}

impl Meter {
    /// Counts bytes that are about to be passed on: all of them, or none.
    pub(crate) fn count(&self, way: Direction, bytes: u64, now: Millis) -> Result<(), Over> {
        self.pass(way, now, |left, over| match bytes <= left {
            true => Ok(bytes),
            false => Err(over),
        })
        .map(drop)
    }

    /// Counts as many of these bytes as may be passed on, and says how many that are.
    pub(crate) fn take(&self, way: Direction, wanted: u64, now: Millis) -> u64 {
        self.pass(way, now, |left, _| Ok(wanted.min(left)))
            .unwrap_or(0)
    }

    fn pass(
        &self,
        way: Direction,
        now: Millis,
        bytes: impl FnOnce(u64, Over) -> Result<u64, Over>,
    ) -> Result<u64, Over> {
        let (total, most, over) = match way {
            Direction::Up => (&self.up, self.most.0, Over::Up(self.most.0)),
            Direction::Down => (&self.down, self.most.1, Over::Down(self.most.1)),
        };
        self.spent.with(&self.rule, now, |counter| {
            let left = most.saturating_sub(total.load(Ordering::Relaxed));
            let today = self.per_day.saturating_sub(counter.bytes);
            let over = match left <= today {
                true => over,
                false => Over::Day(self.per_day),
            };
            let bytes = bytes(left.min(today), over)?;
            counter.bytes = counter.bytes.saturating_add(bytes);
            total.fetch_add(bytes, Ordering::Relaxed);
            Ok(bytes)
        })
    }

    /// Counts the bytes of a request's first line and headers: by the day alone, since what bounds one request is
    /// about its body.
    pub(crate) fn count_head(&self, bytes: u64, now: Millis) -> Result<(), Over> {
        self.spent.with(&self.rule, now, |counter| {
            let after = counter.bytes.saturating_add(bytes);
            if after > self.per_day {
                return Err(Over::Day(self.per_day));
            }
            counter.bytes = after;
            Ok(())
        })
    }

    /// What was counted elsewhere, so that this tells it.
    pub(crate) fn told(&self, (up, down): (u64, u64)) {
        self.up.fetch_add(up, Ordering::Relaxed);
        self.down.fetch_add(down, Ordering::Relaxed);
    }

    /// What was passed on, up and down.
    pub(crate) fn total(&self) -> (u64, u64) {
        (
            self.up.load(Ordering::Relaxed),
            self.down.load(Ordering::Relaxed),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(DAY);

    fn most(per_minute: u32) -> Budgets {
        Budgets {
            per_minute: per_minute.try_into().unwrap(),
            per_day: "1000 B".parse().unwrap(),
            upload: "100 B".parse().unwrap(),
            download: "900 B".parse().unwrap(),
        }
    }

    #[test]
    fn a_rule_allows_so_many_a_minute_whoever_asks_and_others_are_not_held_up() {
        let spent = Spent::default();
        let ask = |rule, at| spent.begin(rule, &most(3), at).map(drop);
        for _ in 0..3 {
            assert_eq!(ask("a", NOW), Ok(()));
        }
        assert_eq!(ask("a", NOW), Err(Over::Often(3)));
        assert_eq!(ask("b", NOW), Ok(()));
        assert_eq!(ask("a", Millis(0)), Err(Over::Often(3)), "set back");
        let later = Millis(20_000);
        assert_eq!(ask("a", later), Ok(()));
        assert_eq!(ask("a", later), Err(Over::Often(3)));
        for _ in 0..3 {
            assert_eq!(ask("a", Millis(10 * DAY)), Ok(()));
        }
        assert!(ask("a", Millis(10 * DAY)).is_err());
    }

    #[test]
    fn bytes_are_bounded_each_way_and_by_the_day() {
        let spent = Spent::default();
        let begin = |now| spent.begin("a", &most(60), now);
        let first = begin(NOW).ok().unwrap();
        assert_eq!(first.count(Direction::Up, 100, NOW), Ok(()));
        assert_eq!(first.count(Direction::Up, 1, NOW), Err(Over::Up(100)));
        assert_eq!(first.count(Direction::Down, 901, NOW), Err(Over::Down(900)));
        assert_eq!(first.count(Direction::Down, 900, NOW), Ok(()));
        assert_eq!(first.count(Direction::Down, 1, NOW), Err(Over::Down(900)));
        assert_eq!(first.total(), (100, 900));
        assert_eq!(begin(NOW).map(drop), Err(Over::Day(1000)));
        assert!(begin(Millis(2 * DAY)).is_ok());
    }

    #[test]
    fn two_that_run_at_once_share_the_day() {
        let spent = Spent::default();
        let begin = || spent.begin("a", &most(60), NOW).ok().unwrap();
        let (one, two) = (begin(), begin());
        assert_eq!(one.count(Direction::Down, 600, NOW), Ok(()));
        assert_eq!(two.count(Direction::Down, 600, NOW), Err(Over::Day(1000)));
        assert_eq!(two.take(Direction::Down, 600, NOW), 400, "what is left");
        assert_eq!(two.take(Direction::Down, 600, NOW), 0);
        assert_eq!((one.total(), two.total()), ((0, 600), (0, 400)));
    }
}
