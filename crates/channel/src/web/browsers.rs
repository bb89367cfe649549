//! Which browsers are logged in, as far as this program has heard from the gateway.
//!
//! The gateway gives a browser one secret. Half of it becomes a cookie that scripts cannot read;
//! the other half stays with the page's own storage and comes in a header. A cookie alone is not
//! enough, since browsers send cookies to every port of a host, and other people's programs may
//! listen on other ports of this machine.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hyper::header::{COOKIE, HeaderMap, HeaderName};
use protocol::ids::{ConversationId, Digest, SenderId};

/// The page's half of the secret.
pub(super) const PAGE_KEY: HeaderName = HeaderName::from_static("x-bulkhead-page-key");

/// The browsers kept; the oldest is asked about again.
const MAX_KEPT: usize = 64;

/// How long the gateway's word is taken without asking again.
const KEPT_FOR: Duration = Duration::from_secs(10 * 60);

/// The shortest secret that can be halved, in bytes: 96 bits in hexadecimal each.
const SHORTEST_SECRET: usize = 48;

/// The longest secret, in bytes.
const LONGEST_SECRET: usize = 512;

/// Who a browser is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Browser {
    /// Names its secret.
    pub(super) key: Digest,
    pub(super) sender: SenderId,
    pub(super) conversation: ConversationId,
}

/// The secret in its two halves.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Halves<'a> {
    pub(super) cookie: &'a str,
    pub(super) page: &'a str,
}

/// Divides what the gateway gave; `None` if it is not what a browser can keep.
pub(super) fn halve(secret: &str) -> Option<Halves<'_>> {
    let fits =
        (SHORTEST_SECRET..=LONGEST_SECRET).contains(&secret.len()) && secret.bytes().all(is_plain);
    let (cookie, page) = fits
        .then(|| secret.split_at_checked(secret.len() / 2))
        .flatten()?;
    Some(Halves { cookie, page })
}

/// The secret that a request brings, put together again.
pub(super) fn secret_of(headers: &HeaderMap, cookie_name: &str) -> Option<String> {
    let page = headers.get(PAGE_KEY)?.to_str().ok()?;
    let cookies = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let named = cookies
        .flat_map(|value| value.split("; "))
        .filter_map(|pair| pair.split_once('='));
    let mut values = named
        .filter(|(name, _)| *name == cookie_name)
        .map(|(_, value)| value);
    let cookie = values.next()?;
    // Two of that name: one was planted, and which is not known.
    if values.next().is_some() {
        return None;
    }
    let secret = format!("{cookie}{page}");
    (halve(&secret) == Some(Halves { cookie, page })).then_some(secret)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// The browsers heard of lately.
#[derive(Debug, Default)]
pub(super) struct Browsers {
    kept: VecDeque<(Browser, Instant)>,
}

impl Browsers {
    pub(super) fn find(&self, key: Digest, now: Instant) -> Option<Browser> {
        let fresh = |since: &Instant| now.saturating_duration_since(*since) < KEPT_FOR;
        self.kept
            .iter()
            .find(|(browser, since)| browser.key == key && fresh(since))
            .map(|(browser, _)| browser.clone())
    }

    pub(super) fn keep(&mut self, browser: Browser, now: Instant) {
        self.forget(browser.key);
        if self.kept.len() >= MAX_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((browser, now));
    }

    pub(super) fn forget_sender(&mut self, sender: &SenderId) {
        self.kept.retain(|(browser, _)| browser.sender != *sender);
    }

    fn forget(&mut self, key: Digest) {
        self.kept.retain(|(browser, _)| browser.key != key);
    }
}

/// So many tries in a minute, from wherever they come.
#[derive(Debug)]
pub(super) struct Tries {
    most: usize,
    lately: VecDeque<Instant>,
}

impl Tries {
    pub(super) fn a_minute(most: usize) -> Self {
        Self {
            most,
            lately: VecDeque::with_capacity(most),
        }
    }

    /// Whether one more may be made now; if so it is counted.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let minute = Duration::from_secs(60);
        while self
            .lately
            .front()
            .is_some_and(|then| now.saturating_duration_since(*then) >= minute)
        {
            self.lately.pop_front();
        }
        let free = self.lately.len() < self.most;
        if free {
            self.lately.push_back(now);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(cookie: &str, page: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, cookie.parse().unwrap());
        headers.insert(PAGE_KEY, page.parse().unwrap());
        headers
    }

    #[test]
    fn neither_half_is_enough() {
        let secret = format!("{}{}", "a".repeat(32), "b".repeat(32));
        let Halves { cookie, page } = halve(&secret).unwrap();
        let read = |cookie: &str, page: &str| secret_of(&headers(cookie, page), "bulkhead_4880");
        assert_eq!(
            read(&format!("x=1; bulkhead_4880={cookie}"), page),
            Some(secret.clone())
        );
        assert_eq!(read(&format!("bulkhead_4880={cookie}"), ""), None);
        assert_eq!(read("bulkhead_4880=", page), None);
        assert_eq!(read(&format!("bulkhead_4880={secret}"), ""), None);
        assert_eq!(read(&format!("bulkhead_4881={cookie}"), page), None);
        assert_eq!(
            read(
                &format!("bulkhead_4880={cookie}; bulkhead_4880={cookie}"),
                page
            ),
            None
        );
    }

    #[test]
    fn secrets_that_are_short_or_would_end_the_cookie_are_not_halved() {
        for wrong in [
            &"a".repeat(47),
            &format!("{};{}", "a".repeat(40), "b".repeat(40)),
            &"é".repeat(40),
            &"a".repeat(513),
        ] {
            assert_eq!(halve(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn browsers_are_kept_for_a_while_and_not_too_many() {
        let now = Instant::now();
        let browser = |n: u32| Browser {
            key: Digest::of(n.to_string()),
            sender: SenderId::parse("s").unwrap(),
            conversation: ConversationId::parse("c").unwrap(),
        };
        let mut browsers = Browsers::default();
        browsers.keep(browser(0), now);
        assert_eq!(browsers.find(Digest::of("0"), now), Some(browser(0)));
        assert_eq!(browsers.find(Digest::of("0"), now + KEPT_FOR), None);
        for n in 1..200 {
            browsers.keep(browser(n), now);
        }
        assert_eq!(browsers.find(Digest::of("0"), now), None);
        assert_eq!(browsers.kept.len(), MAX_KEPT);
    }

    #[test]
    fn tries_are_free_again_after_a_minute() {
        let now = Instant::now();
        let mut tries = Tries::a_minute(2);
        assert!(tries.take(now) && tries.take(now));
        assert!(!tries.take(now + Duration::from_secs(59)));
        assert!(tries.take(now + Duration::from_secs(60)));
    }
}
