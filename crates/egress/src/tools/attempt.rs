//! One request of a tool, to one server: its budget, its two rows, its connection, its credential.

use std::sync::Arc;
use std::time::Instant as Clock;

use hyper::body::Bytes;
use hyper::header::HeaderMap;
use outbound::{Scheme, Terms, Url};
use protocol::control::Scheme as RouteScheme;
use protocol::egress::{EgressFault, FetchFault};
use protocol::event::Event;
use protocol::ids::{CallRef, Digest, SecretName};
use protocol::outbound::{Attach, Credential, Method, Subject};
use protocol::parts::secret_parts;
use protocol::time::Millis;
use protocol::vault::SecretText;
use scan::Scanner;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::budget::{Direction, Meter};
use crate::credential::Draft;
use crate::dial::{self, Stream};
use crate::looked::{essence_of_address, head_text};
use crate::record::Record;
use crate::tools::exchange::{Answer, Bounds, Outgoing, exchange};
use crate::tools::fetch::FetchDoor;
use crate::tools::returned::{Echo, MAX_BODY, Sought};

/// A request as it is judged.
pub(crate) struct Hop {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Bytes of those that whoever asks wrote.
    pub(crate) written: usize,
    pub(crate) body: Bytes,
    pub(crate) credential: Option<SecretName>,
}

impl Hop {
    /// All that a tool chose of it, as one text.
    pub(crate) fn text(&self) -> String {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
        let mut text = head_text(&self.url, headers);
        text.push_str("\n\n");
        text.push_str(&String::from_utf8_lossy(&self.body));
        text
    }
}

impl Hop {
    /// What somebody would put a secret's piece into, and nothing around it: the texts of a JSON
    /// body, another body, the values of a query, or the end of the path. So that pieces in one
    /// request after the other stand side by side.
    pub(crate) fn essence(&self) -> String {
        if let Ok(value) = serde_json::from_slice::<Value>(&self.body) {
            let mut texts = String::new();
            collect(&value, &mut texts);
            return texts;
        }
        if !self.body.is_empty() {
            return String::from_utf8_lossy(&self.body).into_owned();
        }
        essence_of_address(&self.url)
    }
}

fn collect(value: &Value, texts: &mut String) {
    match value {
        Value::String(text) => texts.push_str(text),
        Value::Number(number) => texts.push_str(&number.to_string()),
        Value::Array(values) => values.iter().for_each(|value| collect(value, texts)),
        Value::Object(values) => values.values().for_each(|value| collect(value, texts)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// An answer, and what has to be looked for in it.
pub(crate) struct Done {
    pub(crate) answer: Answer,
    pub(crate) bytes_up: u64,
    pub(crate) vault: Arc<Scanner>,
    pub(crate) echo: Option<Echo>,
}

impl Done {
    pub(crate) fn sought(&self) -> Sought<'_> {
        Sought {
            vault: &self.vault,
            echo: self.echo.as_ref(),
        }
    }
}

/// What all requests of one call have in common.
pub(crate) struct Attempt<'a> {
    pub(crate) door: &'a FetchDoor,
    pub(crate) call: &'a CallRef,
    pub(crate) subject: &'a Subject,
    /// When all of them have to be over, and how many seconds that was from the first.
    pub(crate) until: Instant,
    pub(crate) seconds: u32,
}

impl Attempt<'_> {
    /// Makes a request within its terms.
    pub(crate) async fn make(&self, hop: &Hop, terms: &Terms) -> Result<Done, FetchFault> {
        let meter = self.begin(hop, terms)?;
        let mut row = self.announce(hop, terms).await?;
        let slow = EgressFault::Slow {
            seconds: self.seconds,
        };
        let sent = timeout_at(self.until, self.send(hop, terms, &mut row, &meter));
        let sent = sent.await.unwrap_or(Err(slow.into()));
        let down = sent
            .as_ref()
            .map_or(0, |done| done.answer.body.len() as u64);
        row.bytes_down = down;
        let fault = sent.as_ref().err().map(ToString::to_string);
        row.finish(fault)
            .await
            .map_err(|()| EgressFault::NoRecord)?;
        sent
    }

    /// Counts it and its body by its rule. What comes down is counted as it comes.
    fn begin(&self, hop: &Hop, terms: &Terms) -> Result<Meter, FetchFault> {
        let (budgets, body) = (&terms.budgets, hop.body.len() as u64);
        let upload = budgets.upload.bytes();
        if body > upload {
            return Err(FetchFault::NotAllowed {
                reason: format!("its body has {body} bytes, and at most {upload} may go out"),
            });
        }
        let rule = terms.rule.as_ref().map_or_else(
            || format!("{} without a rule", self.subject),
            ToString::to_string,
        );
        let now = Millis::now();
        let meter = self.door.spent.begin(&rule, budgets, now);
        let counted = meter.and_then(|meter| {
            let target = hop.url.target();
            meter.count_head(head(hop.method.as_str(), &target, &hop.headers), now)?;
            meter.count(Direction::Up, body, now)?;
            Ok(meter)
        });
        counted.map_err(|over| FetchFault::OverBudget {
            rule,
            limit: over.to_string(),
        })
    }

    /// The row before anything leaves, a question to a resolver included.
    async fn announce(&self, hop: &Hop, terms: &Terms) -> Result<Row, FetchFault> {
        self.row(
            (hop.method, &hop.url),
            &hop.body,
            terms,
            terms.credential.as_ref().map(|it| &it.secret),
        )
        .await
    }

    async fn row(
        &self,
        (method, url): (Method, &Url),
        body: &Bytes,
        terms: &Terms,
        secret: Option<&SecretName>,
    ) -> Result<Row, FetchFault> {
        let event = Event::EgressRequest {
            turn: self.call.turn,
            call: self.call.call,
            subject: self.subject.to_string(),
            method: method.to_string(),
            host: url.host().to_string(),
            port: url.port(),
            path: url.path().to_owned(),
            sha256: Digest::of(body),
            bytes: body.len() as u64,
            rule: terms.rule.as_ref().map(ToString::to_string),
            secret: secret.cloned(),
        };
        let record = &self.door.record;
        let recorded = record.append(&self.call.session, event).await;
        recorded.map_err(|_| EgressFault::NoRecord)?;
        Ok(Row {
            record: record.clone(),
            call: self.call.clone(),
            started: Clock::now(),
            status: 0,
            bytes_up: 0,
            bytes_down: 0,
            state: RowState::Open,
        })
    }

    async fn send(
        &self,
        hop: &Hop,
        terms: &Terms,
        row: &mut Row,
        meter: &Meter,
    ) -> Result<Done, FetchFault> {
        let stream = self.connect(&hop.url, terms).await?;
        let (draft, echo) = self.draft(hop, terms).await?;
        row.bytes_up = sent(&draft)?;
        // What was attached to the body counts too, but does not stop what was allowed.
        let attached = (draft.body.len() as u64).saturating_sub(hop.body.len() as u64);
        meter.take(Direction::Up, attached, Millis::now());
        // With what was got for the draft.
        let vault = self.door.leaks.known();
        let take = |wanted| meter.take(Direction::Down, wanted, Millis::now());
        let bounds = self.bounds(MAX_BODY);
        let answer = exchange(stream, outgoing(hop, draft)?, bounds, &take).await?;
        row.status = answer.status.as_u16();
        Ok(Done {
            answer,
            bytes_up: row.bytes_up,
            vault,
            echo,
        })
    }

    pub(crate) fn bounds(&self, bytes: u64) -> Bounds {
        Bounds {
            bytes,
            until: self.until,
            seconds: self.seconds,
        }
    }

    /// A connection to one of the addresses that the name has now, all of which are judged.
    async fn connect(&self, url: &Url, terms: &Terms) -> Result<Stream, FetchFault> {
        let addresses = dial::judged(&terms.allowed, url.host(), url.port()).await?;
        let tcp = dial::connect(&addresses).await?;
        match url.scheme() {
            Scheme::Http => Ok(Stream::Plain(tcp)),
            Scheme::Https => Ok(dial::secure(&self.door.tls, &server_name(url), tcp).await?),
            Scheme::Ws | Scheme::Wss => Err(FetchFault::NotAllowed {
                reason: "tools speak http and https".to_owned(),
            }),
        }
    }

    /// The request as it is sent, and what must not come back.
    async fn draft(&self, hop: &Hop, terms: &Terms) -> Result<(Draft, Option<Echo>), FetchFault> {
        let mut draft = Draft {
            method: hop.method.as_str(),
            authority: hop.url.authority(),
            path: hop.url.path().to_owned(),
            query: hop.url.query().map(str::to_owned),
            headers: hop.headers.clone(),
            body: hop.body.clone(),
        };
        let Some(credential) = &terms.credential else {
            return Ok((draft, None));
        };
        let failed = |reason: String| FetchFault::Credential { reason };
        if !hop.url.scheme().is_tls() {
            return Err(failed("it does not go out in the clear".to_owned()));
        }
        let secret = self.open(credential, &hop.url).await?;
        let token = match &credential.attach {
            Attach::OAuth2(url) => Some(self.access_token(credential, url, &secret, terms).await?),
            Attach::Bearer
            | Attach::Basic
            | Attach::Header(_)
            | Attach::Query(_)
            | Attach::Path(_)
            | Attach::Field(_)
            | Attach::SigV4 { .. } => None,
        };
        let attached = token.as_ref().unwrap_or(&secret);
        // Each part of what is attached may come back by itself.
        let parts = secret_parts(attached.expose());
        let mut values = vec![attached.expose()];
        values.extend(parts.iter().map(|part| part.as_str()));
        let echo = Echo::of(&credential.secret, &values).map_err(|it| failed(it.to_string()))?;
        draft
            .attach(&credential.attach, attached, Millis::now())
            .map_err(failed)?;
        Ok((draft, Some(echo)))
    }

    /// Opens the secret for the host of this address, which the vault has to have it bound to.
    pub(crate) async fn open(
        &self,
        credential: &Credential,
        url: &Url,
    ) -> Result<SecretText, FetchFault> {
        let host = server_name(url);
        let opened = self
            .door
            .vault
            .open_for_tool(&credential.secret, &host)
            .await;
        opened.map_err(|why| FetchFault::Credential { reason: why.0 })
    }

    /// One more request, for what the credential is made of.
    pub(crate) async fn side_request(
        &self,
        url: &Url,
        draft: Draft,
        terms: &Terms,
        secret: &SecretName,
    ) -> Result<Answer, FetchFault> {
        // What is in the body is a secret, so its hash stays out of the record too.
        let nothing = Bytes::new();
        let mut row = self
            .row((Method::Post, url), &nothing, terms, Some(secret))
            .await?;
        let sent = async {
            let stream = self.connect(url, terms).await?;
            row.bytes_up = sent(&draft)?;
            let outgoing = Outgoing {
                method: hyper::Method::POST,
                scheme: RouteScheme::Https,
                authority: draft.authority.clone(),
                target: draft
                    .target()
                    .map_err(|reason| FetchFault::Credential { reason })?,
                headers: draft.headers.clone(),
                body: draft.body.clone(),
            };
            Ok(exchange(
                stream,
                outgoing,
                self.bounds(crate::tools::oauth::MAX_ANSWER),
                &|wanted| wanted,
            )
            .await?)
        };
        let sent: Result<Answer, FetchFault> = sent.await;
        if let Ok(answer) = &sent {
            row.status = answer.status.as_u16();
            row.bytes_down = answer.body.len() as u64;
        }
        let fault = sent.as_ref().err().map(ToString::to_string);
        row.finish(fault)
            .await
            .map_err(|()| EgressFault::NoRecord)?;
        sent
    }
}

/// Bytes of a request's first line and headers, as HTTP/1.1 writes them.
fn head(method: &str, target: &str, headers: &HeaderMap) -> u64 {
    let line = method.len() + target.len() + 12;
    let each = (headers.iter()).map(|(name, value)| name.as_str().len() + value.len() + 4);
    (line + each.sum::<usize>()) as u64
}

/// Bytes that go out with a request.
fn sent(draft: &Draft) -> Result<u64, FetchFault> {
    let target = draft
        .target()
        .map_err(|reason| FetchFault::NotAllowed { reason })?;
    Ok(head(draft.method, target.as_str(), &draft.headers) + draft.body.len() as u64)
}

fn outgoing(hop: &Hop, draft: Draft) -> Result<Outgoing, FetchFault> {
    let target = draft
        .target()
        .map_err(|reason| FetchFault::NotAllowed { reason })?;
    let method = match hop.method {
        Method::Get => hyper::Method::GET,
        Method::Head => hyper::Method::HEAD,
        Method::Options => hyper::Method::OPTIONS,
        Method::Post => hyper::Method::POST,
        Method::Put => hyper::Method::PUT,
        Method::Patch => hyper::Method::PATCH,
        Method::Delete => hyper::Method::DELETE,
    };
    Ok(Outgoing {
        method,
        scheme: match hop.url.scheme().is_tls() {
            true => RouteScheme::Https,
            false => RouteScheme::Http,
        },
        authority: draft.authority.clone(),
        target,
        headers: draft.headers.clone(),
        body: draft.body.clone(),
    })
}

/// The host as certificates and the vault know it: an IPv6 address without its brackets.
fn server_name(url: &Url) -> String {
    let host = url.host().to_string();
    host.trim_matches(['[', ']']).to_owned()
}

/// A row that says that something goes out, until there is one that says what came of it. Dropped
/// before, it is recorded as cancelled.
struct Row {
    record: Record,
    call: CallRef,
    started: Clock,
    status: u16,
    bytes_up: u64,
    bytes_down: u64,
    state: RowState,
}

#[derive(PartialEq, Eq)]
enum RowState {
    Open,
    Closed,
}

impl Row {
    async fn finish(mut self, fault: Option<String>) -> Result<(), ()> {
        self.state = RowState::Closed;
        let event = self.event(fault);
        let recorded = self.record.complete(&self.call.session, event).await;
        recorded.map_err(drop)
    }

    fn event(&self, fault: Option<String>) -> Event {
        let took = self.started.elapsed().as_millis();
        Event::EgressResponse {
            turn: self.call.turn,
            call: self.call.call,
            status: self.status,
            bytes_up: self.bytes_up,
            bytes_down: self.bytes_down,
            duration_ms: u64::try_from(took).unwrap_or(u64::MAX),
            fault,
        }
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if self.state == RowState::Open {
            let event = self.event(Some("cancelled".to_owned()));
            self.record.note(&self.call.session, event);
        }
    }
}
