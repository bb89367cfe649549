//! Fetches updates, and confirms each only when it is settled.
//!
//! Telegram keeps an update until a poll with a higher offset confirms it. So the offset never
//! passes an update whose message the gateway has not taken; what was fetched already comes
//! again with it, and is dropped here by its number. After a crash all unconfirmed updates
//! come again, and the gateway drops the messages it has by their ids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};

use super::api::{DeleteWebhook, GetMe, GetUpdates, Me, Update, User};
use super::backoff::Backoff;
use super::bot::{CALL_LIMIT, CallError, Line};
use super::peers::NoToken;
use crate::link::LinkState;

/// How long Telegram may wait for the first update: the most that it allows.
const POLL_SECONDS: u64 = 50;

/// How long the answer to a long poll may take.
const POLL_LIMIT: Duration = Duration::from_secs(POLL_SECONDS + 15);

/// As many updates at once; fewer than messages may wait for the gateway.
const BATCH: u8 = 50;

/// How long fetched updates may stay unsettled before it is looked for others.
const SETTLE_WAIT: Duration = Duration::from_secs(1);

/// How long the last confirmation may take when the program ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often the vault may refuse the token before it counts as final: it refuses also while
/// the record is not to be had.
const MAX_REFUSALS: u32 = 5;

/// Which updates are fetched, and which of them settled.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    ledger: Mutex<Settling>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct Settling {
    /// The offset once nothing is open.
    next: i64,
    /// Fetched, not settled.
    open: BTreeMap<i64, Handling>,
    /// Settled while an update before it is open.
    done: BTreeSet<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handling {
    /// Somebody sees to it.
    UnderWay,
    /// Nobody could; it is to be handled when it comes again.
    Again,
}

impl Settling {
    fn offset(&self) -> i64 {
        self.open.keys().next().copied().unwrap_or(self.next)
    }

    /// Whether this update is to be handled now.
    fn take(&mut self, update: i64) -> bool {
        if self.done.contains(&update) || self.open.get(&update) == Some(&Handling::UnderWay) {
            return false;
        }
        self.open.insert(update, Handling::UnderWay);
        true
    }

    fn settle(&mut self, update: i64) {
        if self.open.remove(&update).is_some() {
            self.done.insert(update);
        }
        if self.open.is_empty() {
            // Telegram may begin anew with lower numbers after a quiet week.
            self.next = self.done.last().map_or(self.next, |last| last + 1);
            self.done.clear();
        }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Settling> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This update need not come again.
    pub(super) fn settle(&self, update: i64) {
        self.lock().settle(update);
        self.settled.notify_one();
    }

    /// This update could not be handled now.
    pub(super) fn put_back(&self, update: i64) {
        self.lock().open.insert(update, Handling::Again);
    }

    async fn wait_until_settled(&self) {
        let all = async {
            while !self.lock().open.is_empty() {
                self.settled.notified().await;
            }
        };
        // What is still open then comes again with the next poll.
        let _ = tokio::time::timeout(SETTLE_WAIT, all).await;
    }
}

/// What the poller tells.
#[derive(Debug)]
pub(super) enum Fetched {
    /// Who this bot is; first.
    Me(Me),
    /// An update that was not fetched before.
    Update(Update),
    /// It cannot go on, and a restart will not help.
    Failed(String),
}

/// Polls until told to stop.
pub(super) struct Poller {
    /// Its own connection.
    pub(super) line: Line,
    /// Shared with whoever settles.
    pub(super) inbox: Arc<Inbox>,
    /// Where updates go.
    pub(super) fetched: mpsc::Sender<Fetched>,
    /// Whether the gateway can take anything.
    pub(super) gateway: watch::Receiver<LinkState>,
    /// True once the program ends.
    pub(super) stop: watch::Receiver<bool>,
    /// Failures in a row.
    pub(super) backoff: Backoff,
    /// Until when Telegram wants silence.
    pub(super) silence: Option<Instant>,
}

impl Poller {
    /// Runs until it is stopped or cannot go on; then confirms what is settled.
    pub(super) async fn run(mut self) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = self.work() => {}
            // An error means that the program is gone, which is the same.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.say_farewell().await;
    }

    async fn work(&mut self) {
        let Some(me) = self.log_in().await else {
            return;
        };
        if self.fetched.send(Fetched::Me(me)).await.is_err() {
            return;
        }
        loop {
            // While the gateway is away, Telegram is the better place for messages.
            if self
                .gateway
                .wait_for(|state| *state == LinkState::Up)
                .await
                .is_err()
            {
                return;
            }
            match self.poll(POLL_SECONDS, POLL_LIMIT).await {
                Ok(updates) => {
                    self.worked();
                    if self.hand_over(updates).await.is_err() {
                        return;
                    }
                    self.inbox.wait_until_settled().await;
                }
                Err(error) => {
                    if self.failed(error).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn log_in(&mut self) -> Option<Me> {
        loop {
            let user = match self.line.call::<User>("getMe", &GetMe {}, CALL_LIMIT).await {
                // A webhook would get all updates; polling is refused while there is one.
                Ok(user) => {
                    let none = DeleteWebhook {
                        drop_pending_updates: false,
                    };
                    self.line
                        .call::<bool>("deleteWebhook", &none, CALL_LIMIT)
                        .await
                        .map(|_| user)
                }
                Err(error) => Err(error),
            };
            match user {
                Ok(user) => {
                    self.worked();
                    return Some(Me {
                        id: user.id,
                        username: user.username.unwrap_or_default().to_lowercase(),
                    });
                }
                Err(error) => self.failed(error).await.ok()?,
            }
        }
    }

    async fn poll(&mut self, seconds: u64, limit: Duration) -> Result<Vec<Update>, CallError> {
        let request = {
            let settling = self.inbox.lock();
            GetUpdates {
                offset: settling.offset(),
                limit: BATCH,
                // What is open comes at once anyway.
                timeout: if settling.open.is_empty() { seconds } else { 0 },
                allowed_updates: ["message", "callback_query"],
            }
        };
        self.line.call("getUpdates", &request, limit).await
    }

    async fn hand_over(&mut self, updates: Vec<Update>) -> Result<(), ()> {
        for update in updates {
            if self.inbox.lock().take(update.update_id) {
                self.fetched
                    .send(Fetched::Update(update))
                    .await
                    .map_err(drop)?;
            }
        }
        Ok(())
    }

    fn worked(&mut self) {
        if self.backoff.failures() > 0 {
            protocol::log!("channel telegram: polling works again");
        }
        self.backoff.worked();
    }

    /// Waits as long as this error asks for. An error where it cannot go on.
    async fn failed(&mut self, error: CallError) -> Result<(), ()> {
        let backoff = self.backoff.failed();
        if self.backoff.is_first() {
            protocol::log!("channel telegram: cannot poll: {error}");
        }
        let refusals = self.backoff.failures();
        let wait = match &error {
            CallError::TooMany(wait) => {
                self.silence = Some(Instant::now() + *wait);
                *wait
            }
            CallError::BadToken { .. } | CallError::NoToken(NoToken::NotAToken(_)) => {
                return self.give_up(&error).await;
            }
            CallError::NoToken(NoToken::Refused(_)) if refusals >= MAX_REFUSALS => {
                return self.give_up(&error).await;
            }
            CallError::NoToken(NoToken::Refused(_) | NoToken::Locked | NoToken::NoVault)
            | CallError::Http(_)
            | CallError::Conflict
            | CallError::Refused { .. }
            | CallError::Trouble(_) => backoff,
        };
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn give_up(&mut self, error: &CallError) -> Result<(), ()> {
        // If nobody listens any more, the program ends already.
        let _ = self.fetched.send(Fetched::Failed(error.to_string())).await;
        Err(())
    }

    /// Confirms what is settled, so that it does not come again after a restart.
    async fn say_farewell(&mut self) {
        let offset = self.inbox.lock().offset();
        let silent = self.silence.is_some_and(|until| Instant::now() < until);
        if offset > 0 && !silent {
            let request = GetUpdates {
                offset,
                limit: 1,
                timeout: 0,
                allowed_updates: ["message", "callback_query"],
            };
            // It is only a courtesy: the gateway knows what it has.
            let _ = tokio::time::timeout(
                FAREWELL,
                self.line
                    .call::<Vec<Update>>("getUpdates", &request, FAREWELL),
            )
            .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_never_passes_what_is_open() {
        let mut inbox = Settling::default();
        assert_eq!(inbox.offset(), 0);
        assert!(inbox.take(10) && inbox.take(11) && inbox.take(12));
        assert!(!inbox.take(11), "fetched again");
        inbox.settle(11);
        assert_eq!(inbox.offset(), 10);
        assert!(!inbox.take(11), "settled already");
        inbox.settle(10);
        assert_eq!(inbox.offset(), 12);
        inbox.settle(12);
        assert_eq!(inbox.offset(), 13);
    }

    #[test]
    fn what_was_put_back_is_handled_when_it_comes_again() {
        let mut inbox = Settling::default();
        assert!(inbox.take(10));
        inbox.open.insert(10, Handling::Again);
        assert_eq!(inbox.offset(), 10);
        assert!(inbox.take(10));
        inbox.settle(10);
        assert_eq!(inbox.offset(), 11);
    }

    #[test]
    fn numbers_that_begin_anew_are_taken() {
        let mut inbox = Settling::default();
        assert!(inbox.take(900));
        inbox.settle(900);
        assert!(inbox.take(5));
        inbox.settle(5);
        assert_eq!(inbox.offset(), 6);
    }
}
