//! A tool's request: judged again, recorded, sent, and its answer handed back.
//!
//! SECURITY: the gateway has judged it and a person may have been asked. Egress trusts neither
//! for what it can know itself: it reads the URL anew, judges by its own rules, resolves the
//! name once, connects to exactly the addresses that were judged, and judges each redirect as
//! if it had been asked for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Clock};

use hyper::body::Bytes;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue, LOCATION, USER_AGENT};
use outbound::{AfterRedirect, Asked, MAX_REDIRECTS, RuleSet, Terms, Url, Verdict};
use protocol::egress::{Approved, FetchFault, FetchOutcome, HttpOrder};
use protocol::event::Event;
use protocol::ids::CallRef;
use protocol::outbound::{Method, Subject};
use protocol::time::Millis;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::budget::Spent;
use crate::headers;
use crate::leaks::{Leaks, leak_of_secret};
use crate::record::Record;
use crate::tools::attempt::{Attempt, Done, Hop};
use crate::tools::exchange::Answer;
use crate::tools::oauth::Tokens;
use crate::tools::returned::Sought;
use crate::vault_link::VaultLink;

/// How long a request may take with all its redirects.
const WHOLE: Duration = Duration::from_secs(120);

const AGENT: &str = concat!("bulkhead/", env!("CARGO_PKG_VERSION"));

/// The way out for tools.
pub(crate) struct FetchDoor {
    pub(crate) rules: Rules,
    pub(crate) tls: TlsConnector,
    pub(crate) record: Record,
    pub(crate) vault: VaultLink,
    pub(crate) leaks: Leaks,
    pub(crate) spent: Spent,
    pub(crate) tokens: Tokens,
}

/// The rules in force.
#[derive(Clone)]
pub(crate) struct Rules(Arc<Mutex<Arc<RuleSet>>>);

impl Rules {
    pub(crate) fn new(rules: RuleSet) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(rules))))
    }

    /// Those of now, for one judgement.
    pub(crate) fn now(&self) -> Arc<RuleSet> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these.
    pub(crate) fn replace(&self, rules: RuleSet) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }
}

/// A request that was read.
struct Wanted {
    subject: Subject,
    approved: Approved,
    hop: Hop,
}

impl FetchDoor {
    /// Makes the request and hands back its answer. Dropping this closes the connection, and the
    /// record says that it was cancelled.
    pub(crate) async fn fetch(
        &self,
        call: &CallRef,
        order: HttpOrder,
    ) -> Result<FetchOutcome, FetchFault> {
        let subject = Subject::Tool(order.tool.clone());
        let target = Url::parse(&order.url).map(|url| format!("{}:{}", url.host(), url.port()));
        let fetched = match read(order) {
            Ok(wanted) => self.follow(call, wanted).await,
            Err(reason) => Err(FetchFault::NotAllowed { reason }),
        };
        if let Err(fault) = &fetched
            && refused(fault)
        {
            let event = Event::EgressRefused {
                subject: subject.to_string(),
                target: target.unwrap_or_else(|_| "something that is no URL".to_owned()),
                reason: fault.to_string(),
            };
            self.record.note(&call.session, event);
        }
        fetched
    }

    async fn follow(&self, call: &CallRef, wanted: Wanted) -> Result<FetchOutcome, FetchFault> {
        let Wanted {
            subject,
            approved,
            mut hop,
        } = wanted;
        self.leaks.check(&call.session, &hop).await?;
        let terms = match (self.judge(&subject, &hop), &approved) {
            (Verdict::Deny(refusal), _) => return Err(not_allowed(refusal.to_string())),
            (Verdict::Ask(_, question), Approved::Rule) => {
                return Err(not_allowed(format!("a person has to allow it: {question}")));
            }
            (Verdict::Allow(terms), _) | (Verdict::Ask(terms, _), Approved::Person) => terms,
        };
        let attempt = Attempt {
            door: self,
            call,
            subject: &subject,
            until: Instant::now() + WHOLE,
            seconds: u32::try_from(WHOLE.as_secs()).unwrap_or(u32::MAX),
        };
        let started = Clock::now();
        let mut done = attempt.make(&hop, &terms).await?;
        let mut trail = Trail::default();
        while let Some(location) = leads_on(&done.answer) {
            trail.passed(&done);
            let next = self
                .next(&subject, &approved, (&hop, &done), &location, &trail)
                .await;
            let (next, terms) = next.map_err(|reason| redirected(&done, &location, reason))?;
            self.leaks.check(&call.session, &next).await?;
            trail.urls.push(next.url.to_string());
            done = attempt.make(&next, &terms).await?;
            hop = next;
        }
        trail.passed(&done);
        let (url, took) = (hop.url.to_string(), started.elapsed());
        // A long answer takes a while to look through, and nobody else is to wait for it.
        let looked_through = spawn_blocking(move || trail.outcome(url, done, took)).await;
        looked_through
            .map_err(|_| not_allowed("its answer could not be looked through".to_owned()))?
    }

    fn judge(&self, subject: &Subject, hop: &Hop) -> Verdict {
        let asked = Asked {
            subject,
            method: hop.method,
            url: &hop.url,
            headers: hop.written,
            credential: hop.credential.as_ref(),
            now: Millis::now(),
        };
        outbound::judge(&self.rules.now(), &asked)
    }

    /// Where an answer leads, judged as if it had been asked for; or why it is not followed.
    async fn next(
        &self,
        subject: &Subject,
        approved: &Approved,
        (hop, done): (&Hop, &Done),
        location: &str,
        trail: &Trail,
    ) -> Result<(Hop, Terms), String> {
        if trail.urls.len() >= MAX_REDIRECTS {
            return Err(format!("{MAX_REDIRECTS} redirects were followed already"));
        }
        // What was attached could be handed on by whoever got it.
        if done.sought().is_in(location) {
            return Err("it holds a secret".to_owned());
        }
        if *approved == Approved::Person {
            return Err(
                "a person allowed the address that was asked for and no other; ask for this one \
                 if you want it"
                    .to_owned(),
            );
        }
        let redirect = outbound::redirect(&hop.url, location).map_err(|bad| bad.to_string())?;
        let method = match (done.answer.status.as_u16(), hop.method) {
            (303, method) if method != Method::Head => Method::Get,
            // As RFC 9110, section 15.4 allows, and everybody does.
            (301 | 302, Method::Post) => Method::Get,
            (_, method) => method,
        };
        let mut next = Hop {
            method,
            url: redirect.url,
            headers: hop.headers.clone(),
            written: hop.written,
            body: hop.body.clone(),
            credential: match redirect.credential {
                AfterRedirect::Kept => hop.credential.clone(),
                AfterRedirect::Dropped => None,
            },
        };
        if method != hop.method {
            next.body = Bytes::new();
            next.headers.remove(CONTENT_TYPE);
        }
        match self.judge(subject, &next) {
            Verdict::Allow(terms) => Ok((next, terms)),
            Verdict::Ask(_, question) => Err(format!("a person has to allow it: {question}")),
            Verdict::Deny(refusal) => Err(refusal.to_string()),
        }
    }
}

/// Reads an order, and refuses what egress does not send.
fn read(order: HttpOrder) -> Result<Wanted, String> {
    let url = Url::parse(&order.url).map_err(|bad| bad.to_string())?;
    let method: Method = order.method.parse().map_err(|bad| format!("{bad}"))?;
    let mut headers = headers::requested(&order.headers, order.credential.as_ref())?;
    let has_body = order.body.as_deref().is_some_and(|body| !body.is_empty());
    if has_body && matches!(method, Method::Get | Method::Head | Method::Options) {
        return Err(format!("a request with {method} has no body"));
    }
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
        .entry(ACCEPT)
        .or_insert(HeaderValue::from_static("*/*"));
    Ok(Wanted {
        subject: Subject::Tool(order.tool),
        approved: order.approved,
        hop: Hop {
            method,
            url,
            headers,
            written: outbound::headers::bytes(&order.headers),
            body: Bytes::from(order.body.unwrap_or_default()),
            credential: order.credential,
        },
    })
}

/// Where an answer leads, if it is a redirect.
fn leads_on(answer: &Answer) -> Option<String> {
    let status = answer.status.as_u16();
    let location = answer.headers.get(LOCATION)?;
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    // What is no text leads nowhere, which is said when it is read.
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

fn redirected(done: &Done, location: &str, reason: String) -> FetchFault {
    // Cut before, it could end in the middle of what is looked for.
    let shown = done.sought().out_of(location.to_owned());
    FetchFault::Redirected {
        status: done.answer.status.as_u16(),
        target: shown.chars().take(2048).collect(),
        reason,
    }
}

fn not_allowed(reason: String) -> FetchFault {
    FetchFault::NotAllowed { reason }
}

/// Whether it is a refusal, and not what a network does.
fn refused(fault: &FetchFault) -> bool {
    match fault {
        FetchFault::NotAllowed { .. }
        | FetchFault::Redirected { .. }
        | FetchFault::Leak { .. }
        | FetchFault::OverBudget { .. }
        | FetchFault::Credential { .. } => true,
        FetchFault::Busy | FetchFault::Cancelled | FetchFault::Failed { .. } => false,
    }
}

/// What was done on the way.
#[derive(Default)]
struct Trail {
    urls: Vec<String>,
    bytes_up: u64,
    bytes_down: u64,
}

impl Trail {
    fn passed(&mut self, done: &Done) {
        self.bytes_up += done.bytes_up;
        self.bytes_down += done.answer.body.len() as u64;
    }

    fn outcome(self, url: String, done: Done, took: Duration) -> Result<FetchOutcome, FetchFault> {
        let Done {
            answer,
            vault,
            echo,
            ..
        } = done;
        let sought = Sought {
            vault: &vault,
            echo: echo.as_ref(),
        };
        let (body, extent) = sought
            .body(answer.body, (answer.status, answer.extent))
            .map_err(|_| leak_of_secret())?;
        let headers = headers::passed(&answer.headers);
        Ok(FetchOutcome {
            status: answer.status.as_u16(),
            final_url: sought.out_of(url),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name, sought.out_of(value)))
                .collect(),
            body,
            extent,
            redirects: self
                .urls
                .into_iter()
                .map(|url| sought.out_of(url))
                .collect(),
            bytes_up: self.bytes_up,
            bytes_down: self.bytes_down,
            ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        })
    }
}
