//! One request to the model: recorded, sent, and its answer passed on as it comes.

use std::error::Error as _;
use std::io;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, RETRY_AFTER,
};
use hyper_util::rt::TokioIo;
use protocol::control::{ModelRoute, Reach};
use protocol::egress::{EgressFault, ModelReply};
use protocol::event::Event;
use protocol::ids::{Digest, SessionId, TurnId};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::credential::bearer;
use crate::dial::{self, Stream};
use crate::leaks::Leaks;
use crate::record::Record;
use crate::text::{Pieces, split};
use crate::tokens::Tail;
use crate::vault_link::VaultLink;

/// The longest answer that is passed on, in bytes.
const MAX_ANSWER: u64 = 32 * 1024 * 1024;

/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// The longest piece in one frame; in JSON it grows to six times as much at worst.
const MAX_PIECE: usize = 64 * 1024;

/// The way to the model.
pub(crate) struct ModelDoor {
    pub(crate) route: ModelRoute,
    pub(crate) tls: TlsConnector,
    pub(crate) record: Record,
    pub(crate) vault: VaultLink,
    pub(crate) leaks: Leaks,
}

/// What an agent asks for.
pub(crate) struct Ask {
    pub(crate) session: SessionId,
    pub(crate) id: u64,
    pub(crate) turn: TurnId,
    pub(crate) body: String,
}

/// Why there is no more of an answer.
enum Ended {
    Fault(EgressFault),
    /// The agent no longer reads.
    AgentGone,
}

impl From<EgressFault> for Ended {
    fn from(fault: EgressFault) -> Self {
        Self::Fault(fault)
    }
}

impl ModelDoor {
    /// Sends one request and passes its answer on. The last frame is left to the caller;
    /// none if the agent no longer reads. Dropping this closes the connection at once, and
    /// the record says that it was cancelled.
    pub(crate) async fn chat(
        &self,
        ask: Ask,
        replies: &mpsc::Sender<ModelReply>,
    ) -> Option<ModelReply> {
        let Ask {
            session,
            id,
            turn,
            body,
        } = ask;
        let body = match self.leaks.clean(&session, body).await {
            Ok(body) => body,
            Err(fault) => return Some(ModelReply::Failed { id, fault }),
        };
        let event = Event::ModelRequest {
            turn,
            model: self.route.name.clone(),
            sha256: Digest::of(&body),
            bytes: body.len() as u64,
        };
        if self.record.append(&session, event).await.is_err() {
            return Some(ModelReply::Failed {
                id,
                fault: EgressFault::NoRecord,
            });
        }
        let mut call = Call::new(self.record.clone(), session.clone(), turn);
        let ended = self.converse(id, body, &mut call, replies).await;
        let fault = match ended {
            Ok(()) => None,
            Err(Ended::Fault(fault)) => Some(fault),
            Err(Ended::AgentGone) => return None,
        };
        if let Some(EgressFault::NotAllowed { reason }) = &fault {
            let event = Event::EgressRefused {
                subject: format!("agent:{session}"),
                target: format!("{}:{}", self.route.host, self.route.port),
                reason: reason.clone(),
            };
            self.record.note(&session, event);
        }
        let recorded = call.finish(fault.as_ref().map(fault_name)).await;
        Some(match (fault, recorded) {
            (Some(fault), _) => ModelReply::Failed { id, fault },
            (None, Ok(())) => ModelReply::End { id },
            (None, Err(_)) => ModelReply::Failed {
                id,
                fault: EgressFault::NoRecord,
            },
        })
    }

    async fn converse(
        &self,
        id: u64,
        body: String,
        call: &mut Call,
        replies: &mpsc::Sender<ModelReply>,
    ) -> Result<(), Ended> {
        let stream = dial::model(&self.route, &self.tls).await?;
        let request = self.request(body).await?;
        let idle = Idle(self.route.idle_seconds.max(1));
        match stream {
            Stream::Plain(tcp) => pass_on(tcp, request, idle, id, call, replies).await,
            Stream::Tls(tls) => pass_on(tls, request, idle, id, call, replies).await,
        }
    }

    async fn request(&self, body: String) -> Result<Request<Full<Bytes>>, EgressFault> {
        let route = &self.route;
        let malformed = |what: &str| EgressFault::NotAllowed {
            reason: format!("the configured {what} cannot be sent in a request"),
        };
        let host = match route.host.contains(':') {
            true => format!("[{}]:{}", route.host, route.port),
            false => format!("{}:{}", route.host, route.port),
        };
        let mut request = Request::post(route.path.as_str())
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| malformed("path"))?;
        let headers = request.headers_mut();
        headers.insert(
            HOST,
            HeaderValue::try_from(host).map_err(|_| malformed("host"))?,
        );
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if let Reach::Remote { secret: Some(name) } = &route.reach {
            let secret = self.vault.open_for_model(name, &route.host).await;
            let secret = secret.map_err(|why| EgressFault::NotAllowed {
                reason: format!("the vault did not give the secret `{name}`: {}", why.0),
            })?;
            let bearer = bearer(&secret).ok_or_else(|| malformed("secret"))?;
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(request)
    }
}

/// Seconds without a byte.
#[derive(Clone, Copy)]
struct Idle(u32);

impl Idle {
    async fn bound<T>(self, work: impl Future<Output = T>) -> Result<T, EgressFault> {
        let limit = Duration::from_secs(self.0.into());
        timeout(limit, work)
            .await
            .map_err(|_| EgressFault::Slow { seconds: self.0 })
    }
}

/// Sends the request over this connection and passes the answer on.
async fn pass_on(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    idle: Idle,
    id: u64,
    call: &mut Call,
    replies: &mpsc::Sender<ModelReply>,
) -> Result<(), Ended> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let handshake = builder.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| http_fault(&error))?;
    // Ends with this function however that ends, and closes the connection with it.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = idle.bound(sender.send_request(request)).await?;
    let response = response.map_err(|error| http_fault(&error))?;
    call.status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    tell(
        replies,
        ModelReply::Status {
            id,
            status: call.status,
            retry_after,
        },
    )
    .await?;

    let mut body = response.into_body();
    let mut pieces = Pieces::default();
    while let Some(frame) = idle.bound(body.frame()).await? {
        // Trailers say nothing that anybody asked for.
        let Ok(data) = frame.map_err(|error| http_fault(&error))?.into_data() else {
            continue;
        };
        call.took(&data)?;
        chunks(replies, id, &pieces.push(&data)).await?;
    }
    chunks(replies, id, &pieces.finish()).await
}

async fn chunks(replies: &mpsc::Sender<ModelReply>, id: u64, text: &str) -> Result<(), Ended> {
    for piece in split(text, MAX_PIECE) {
        tell(
            replies,
            ModelReply::Chunk {
                id,
                text: piece.to_owned(),
            },
        )
        .await?;
    }
    Ok(())
}

async fn tell(replies: &mpsc::Sender<ModelReply>, reply: ModelReply) -> Result<(), Ended> {
    replies.send(reply).await.map_err(|_| Ended::AgentGone)
}

/// In seconds, as RFC 9110 10.2.3 has it; its other form, a date, reads as none.
fn retry_after(headers: &HeaderMap) -> Option<u32> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

pub(crate) fn http_fault(error: &hyper::Error) -> EgressFault {
    let broken = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    let garbled = broken.is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        )
    });
    if error.is_parse() || garbled {
        EgressFault::Protocol {
            detail: error.to_string(),
        }
    } else {
        EgressFault::CutOff
    }
}

/// The word for a fault in the record.
fn fault_name(fault: &EgressFault) -> &'static str {
    match fault {
        EgressFault::NotAllowed { .. } => "not allowed",
        EgressFault::Unreachable { .. } => "unreachable",
        EgressFault::CutOff => "cut off",
        EgressFault::Slow { .. } => "too slow",
        EgressFault::TooLarge { .. } => "too large",
        EgressFault::Protocol { .. } => "not the protocol",
        EgressFault::NoRecord => "no record",
    }
}

/// What is known of an answer so far. Dropped unfinished, it is recorded as cancelled.
struct Call {
    record: Record,
    session: SessionId,
    turn: TurnId,
    started: Instant,
    last: Duration,
    status: u16,
    bytes: u64,
    hash: Sha256,
    tail: Tail,
    state: CallState,
}

#[derive(PartialEq, Eq)]
enum CallState {
    Open,
    Closed,
}

impl Call {
    fn new(record: Record, session: SessionId, turn: TurnId) -> Self {
        Self {
            record,
            session,
            turn,
            started: Instant::now(),
            last: Duration::ZERO,
            status: 0,
            bytes: 0,
            hash: Sha256::new(),
            tail: Tail::default(),
            state: CallState::Open,
        }
    }

    /// Counts bytes of the answer, which may be too many.
    fn took(&mut self, data: &[u8]) -> Result<(), EgressFault> {
        self.bytes += data.len() as u64;
        self.hash.update(data);
        self.tail.push(data);
        self.last = self.started.elapsed();
        let fits = self.bytes <= MAX_ANSWER;
        if fits {
            Ok(())
        } else {
            Err(EgressFault::TooLarge { bytes: MAX_ANSWER })
        }
    }

    async fn finish(mut self, fault: Option<&str>) -> Result<(), crate::record::NotRecorded> {
        self.state = CallState::Closed;
        if self.bytes == 0 {
            self.last = self.started.elapsed();
        }
        self.record.complete(&self.session, self.event(fault)).await
    }

    fn event(&self, fault: Option<&str>) -> Event {
        Event::ModelResponse {
            turn: self.turn,
            status: self.status,
            sha256: Digest(self.hash.clone().finalize().into()),
            bytes: self.bytes,
            duration_ms: u64::try_from(self.last.as_millis()).unwrap_or(u64::MAX),
            tokens: self.tail.tokens(),
            fault: fault.map(str::to_owned),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.state == CallState::Open {
            self.record
                .note(&self.session, self.event(Some("cancelled")));
        }
    }
}
