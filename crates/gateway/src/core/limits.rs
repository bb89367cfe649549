//! How much may come in from one sender. Loopback is not exempt.

use std::collections::HashMap;
use std::time::Instant;

use protocol::ids::{ChannelId, SenderId};

/// Messages that may come at once.
const BURST: f64 = 60.0;

/// Messages a second after that.
const PER_SECOND: f64 = 2.0;

/// Senders that are told apart in a channel; beyond that, those who have been quiet are
/// forgotten. The strangers of one channel leave room in the others.
const MAX_SENDERS: usize = 1024;

/// Whether there is room for one more.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// There is.
    Yes,
    /// Not now.
    Later,
}

/// A token bucket for each sender.
#[derive(Default)]
pub(super) struct Rates {
    buckets: HashMap<(ChannelId, SenderId), (f64, Instant)>,
}

impl Rates {
    /// Counts a message.
    pub(super) fn take(&mut self, channel: &ChannelId, sender: &SenderId, now: Instant) -> Room {
        let filled = |left: f64, at: Instant| {
            (left + now.duration_since(at).as_secs_f64() * PER_SECOND).min(BURST)
        };
        let key = (channel.clone(), sender.clone());
        if !self.buckets.contains_key(&key) && self.is_full(channel) {
            self.buckets
                .retain(|_, (left, at)| filled(*left, *at) < BURST);
            if self.is_full(channel) {
                return Room::Later;
            }
        }
        let (left, at) = self.buckets.entry(key).or_insert((BURST, now));
        *left = filled(*left, *at);
        *at = now;
        if *left < 1.0 {
            return Room::Later;
        }
        *left -= 1.0;
        Room::Yes
    }

    fn is_full(&self, channel: &ChannelId) -> bool {
        let of_channel = |(other, _): &&(ChannelId, SenderId)| other == channel;
        self.buckets.keys().filter(of_channel).count() >= MAX_SENDERS
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_sender_is_held_back_after_a_burst_and_others_are_not() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let channel = ChannelId::parse("web").unwrap();
        let (eve, ann) = (
            SenderId::parse("eve").unwrap(),
            SenderId::parse("ann").unwrap(),
        );
        let taken = (0..100)
            .filter(|_| rates.take(&channel, &eve, now) == Room::Yes)
            .count();
        assert_eq!(taken, 60);
        assert_eq!(rates.take(&channel, &ann, now), Room::Yes);
        assert_eq!(
            rates.take(&channel, &eve, now + Duration::from_millis(500)),
            Room::Yes
        );
        assert_eq!(
            rates.take(&channel, &eve, now + Duration::from_millis(500)),
            Room::Later
        );
    }

    #[test]
    fn a_flood_of_senders_does_not_grow_memory_without_bound() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let channel = ChannelId::parse("web").unwrap();
        for number in 0..10_000 {
            let _ = rates.take(&channel, &SenderId::parse(number.to_string()).unwrap(), now);
        }
        assert!(rates.buckets.len() <= MAX_SENDERS);
    }

    #[test]
    fn a_flood_of_senders_keeps_nobody_out_of_another_channel() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let (telegram, web) = (
            ChannelId::parse("telegram").unwrap(),
            ChannelId::parse("web").unwrap(),
        );
        let mut flood = |number: usize| {
            let sender = SenderId::parse(number.to_string()).unwrap();
            rates.take(&telegram, &sender, now)
        };
        assert!((0..MAX_SENDERS).all(|number| flood(number) == Room::Yes));
        assert_eq!(flood(MAX_SENDERS), Room::Later);
        let owner = SenderId::parse("owner").unwrap();
        assert_eq!(rates.take(&web, &owner, now), Room::Yes);
    }
}
