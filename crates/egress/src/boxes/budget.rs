//! How often and how much the rules of boxes still allow.
//!
//! Counted in memory: egress has no file, so a restart begins anew. What bounds one tunnel or one request
//! holds whatever was counted before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::ids::RuleName;
use protocol::outbound::EgressRule;
use protocol::time::Millis;

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

/// What was used of each rule.
#[derive(Clone, Default)]
pub(crate) struct Budgets(Arc<Mutex<HashMap<RuleName, Used>>>);

#[derive(Default)]
struct Used {
    /// Minutes since 1970, and requests in that minute.
    minute: (u64, u32),
    /// Days since 1970 (UTC), and bytes on that day.
    day: (u64, u64),
}

/// A limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Over {
    /// Of requests.
    #[error("its rule allows {0} requests a minute")]
    Often(u32),
    /// Of bytes.
    #[error("its rule allows {0} bytes a day, until midnight UTC")]
    Day(u64),
    /// Of bytes that go up.
    #[error("its rule allows {0} bytes up")]
    Up(u64),
    /// Of bytes that come down.
    #[error("its rule allows {0} bytes down")]
    Down(u64),
}

impl Budgets {
    /// Counts a request or a tunnel, and what is then to be counted of it.
    pub(crate) fn begin(&self, rule: &EgressRule, now: Millis) -> Result<Meter, Over> {
        let most = rule.budgets.per_minute.get();
        self.with(&rule.name, now, |used| {
            if used.minute.1 >= most {
                return Err(Over::Often(most));
            }
            used.minute.1 += 1;
            Ok(())
        })?;
        self.uncounted(rule, now)
    }

    /// The same for what is counted by the requests that come over it.
    pub(crate) fn uncounted(&self, rule: &EgressRule, now: Millis) -> Result<Meter, Over> {
        let spent = self.with(&rule.name, now, |used| used.day.1);
        let per_day = rule.budgets.per_day.bytes();
        if spent >= per_day {
            return Err(Over::Day(per_day));
        }
        Ok(Meter {
            budgets: self.clone(),
            rule: rule.name.clone(),
            most: (rule.budgets.upload.bytes(), rule.budgets.download.bytes()),
            per_day,
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        })
    }

    fn with<T>(&self, rule: &RuleName, now: Millis, change: impl FnOnce(&mut Used) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = all.entry(rule.clone()).or_default();
        let (minute, day) = (now.0 / MINUTE, now.0 / DAY);
        if used.minute.0 != minute {
            used.minute = (minute, 0);
        }
        if used.day.0 != day {
            used.day = (day, 0);
        }
        change(used)
    }
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the box.
    Up,
    /// To it.
    Down,
}

/// What one tunnel or one request carries.
pub(crate) struct Meter {
    budgets: Budgets,
    rule: RuleName,
    /// Up and down.
    most: (u64, u64),
    per_day: u64,
    up: AtomicU64,
    down: AtomicU64,
}

impl Meter {
    /// Counts bytes that are about to be passed on.
    pub(crate) fn count(&self, way: Direction, bytes: u64, now: Millis) -> Result<(), Over> {
        let (total, over) = match way {
            Direction::Up => (&self.up, Over::Up(self.most.0)),
            Direction::Down => (&self.down, Over::Down(self.most.1)),
        };
        let most = match way {
            Direction::Up => self.most.0,
            Direction::Down => self.most.1,
        };
        let before = total.load(Ordering::Relaxed);
        if before.saturating_add(bytes) > most {
            return Err(over);
        }
        self.budgets.with(&self.rule, now, |used| {
            let after = used.day.1.saturating_add(bytes);
            if after > self.per_day {
                return Err(Over::Day(self.per_day));
            }
            used.day.1 = after;
            Ok(())
        })?;
        total.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
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

    fn rule(name: &str) -> EgressRule {
        serde_json::from_value(serde_json::json!({
            "name": name, "subject": "exec:git", "host": "git.example.com", "ports": [443],
            "methods": ["GET"], "paths": ["/*"], "owner": "me", "expires": "2099-01-01", "ask": "never",
            "credential": null,
            "budgets": {"per_minute": 2, "per_day": "1000 B", "upload": "100 B", "download": "900 B"},
            "cleartext": "refused", "reach": "public", "inspect": "no",
        }))
        .unwrap()
    }

    #[test]
    fn a_rule_allows_so_many_a_minute_whatever_box_asks() {
        let (budgets, now) = (Budgets::default(), Millis(DAY));
        let ask = |name, now| budgets.begin(&rule(name), now).map(drop);
        assert_eq!(ask("a", now), Ok(()));
        assert_eq!(ask("a", now), Ok(()));
        assert_eq!(ask("a", now), Err(Over::Often(2)));
        assert_eq!(ask("b", now), Ok(()));
        assert_eq!(ask("a", Millis(DAY + MINUTE)), Ok(()));
    }

    #[test]
    fn bytes_are_bounded_each_way_and_by_the_day() {
        let (budgets, now) = (Budgets::default(), Millis(DAY));
        let first = budgets.begin(&rule("a"), now).unwrap();
        assert_eq!(first.count(Direction::Up, 100, now), Ok(()));
        assert_eq!(first.count(Direction::Up, 1, now), Err(Over::Up(100)));
        assert_eq!(first.count(Direction::Down, 900, now), Ok(()));
        assert_eq!(first.count(Direction::Down, 1, now), Err(Over::Down(900)));
        assert_eq!(first.total(), (100, 900));
        assert_eq!(
            budgets.begin(&rule("a"), now).map(drop),
            Err(Over::Day(1000))
        );
        assert!(budgets.begin(&rule("a"), Millis(2 * DAY)).is_ok());
    }

    #[test]
    fn two_that_run_at_once_share_the_day() {
        let (budgets, now) = (Budgets::default(), Millis(DAY));
        let one = budgets.begin(&rule("a"), now).unwrap();
        let two = budgets.begin(&rule("a"), now).unwrap();
        assert_eq!(one.count(Direction::Down, 600, now), Ok(()));
        assert_eq!(two.count(Direction::Down, 600, now), Err(Over::Day(1000)));
        assert_eq!(two.count(Direction::Down, 400, now), Ok(()));
    }
}
