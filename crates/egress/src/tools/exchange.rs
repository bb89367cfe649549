//! One exchange with a server: a request out, an answer back, over HTTP/1.1 or HTTP/2.
//!
//! A connection carries one request and is closed with it, however that ends, so that nothing
//! of one call is left for another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{CONNECTION, CONTENT_ENCODING, HOST, HeaderMap, HeaderValue};
use hyper::http::uri::{PathAndQuery, Uri};
use hyper::rt::Executor;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use protocol::control::Scheme;
use protocol::egress::{EgressFault, Extent};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::chat::http_fault;
use crate::dial::Stream;

/// The longest head of an answer, in bytes.
const MAX_HEAD: u16 = u16::MAX;

/// How long an answer may take to begin, and how long it may then stand still.
const IDLE_SECONDS: u32 = 30;

/// A request as it is sent. Its target and its headers may hold a credential.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) scheme: Scheme,
    /// Host and, where it is not the scheme's own, port.
    pub(crate) authority: String,
    pub(crate) target: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer as far as it was read.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) extent: Extent,
}

/// What an exchange may take.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of the answer's body that are read; the rest is not.
    pub(crate) bytes: u64,
    /// When it has to be over.
    pub(crate) until: Instant,
    /// How many seconds that is from its beginning, for words.
    pub(crate) seconds: u32,
}

/// Counts bytes of an answer that are about to be read, and says how many of them may be.
pub(crate) type Take<'a> = dyn Fn(u64) -> u64 + Sync + 'a;

/// Sends the request over this connection and reads the answer, as much of it as `take` lets through.
pub(crate) async fn exchange(
    stream: Stream,
    outgoing: Outgoing,
    bounds: Bounds,
    take: &Take<'_>,
) -> Result<Answer, EgressFault> {
    let slow = EgressFault::Slow {
        seconds: bounds.seconds,
    };
    let whole = async {
        match stream {
            Stream::Plain(tcp) => one(tcp, outgoing, (bounds.bytes, take)).await,
            Stream::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => {
                two(tls, outgoing, (bounds.bytes, take)).await
            }
            Stream::Tls(tls) => one(tls, outgoing, (bounds.bytes, take)).await,
        }
    };
    timeout_at(bounds.until, whole).await.map_err(|_| slow)?
}

/// Over HTTP/1.1.
async fn one(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    outgoing: Outgoing,
    limit: (u64, &Take<'_>),
) -> Result<Answer, EgressFault> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD.into());
    let handshake = builder.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| http_fault(&error))?;
    // Ends with this function however that ends, and closes the connection with it.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut request = request(
        outgoing.target.into(),
        outgoing.method,
        outgoing.headers,
        outgoing.body,
    );
    let host = HeaderValue::try_from(outgoing.authority).map_err(|_| unsendable("host"))?;
    request.headers_mut().insert(HOST, host);
    let close = HeaderValue::from_static("close");
    request.headers_mut().insert(CONNECTION, close);
    let response = idle(sender.send_request(request)).await?;
    read(response.map_err(|error| http_fault(&error))?, limit).await
}

/// Over HTTP/2, which both sides agreed on in the TLS handshake.
async fn two(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    outgoing: Outgoing,
    limit: (u64, &Take<'_>),
) -> Result<Answer, EgressFault> {
    let tasks = Tasks::default();
    let _ended = EndTasks(tasks.clone());
    let mut builder = http2::Builder::new(tasks.clone());
    builder.max_header_list_size(MAX_HEAD.into());
    let handshake = idle(builder.handshake(TokioIo::new(stream))).await?;
    let (mut sender, connection) = handshake.map_err(|error| http_fault(&error))?;
    tasks.execute(connection);
    let scheme = match outgoing.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(outgoing.authority)
        .path_and_query(outgoing.target)
        .build()
        .map_err(|_| unsendable("URL"))?;
    let mut request = request(uri, outgoing.method, outgoing.headers, outgoing.body);
    *request.version_mut() = Version::HTTP_2;
    let response = idle(sender.send_request(request)).await?;
    read(response.map_err(|error| http_fault(&error))?, limit).await
}

fn request(uri: Uri, method: Method, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.uri_mut() = uri;
    *request.method_mut() = method;
    *request.headers_mut() = headers;
    request
}

async fn read(
    response: Response<Incoming>,
    (limit, take): (u64, &Take<'_>),
) -> Result<Answer, EgressFault> {
    let (head, mut incoming) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(protocol_fault(
            "it changes to another protocol, which nobody asked for",
        ));
    }
    // Unpacking could make anything of little, so nothing packed is asked for or taken.
    if let Some(encoding) = head.headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(protocol_fault(
            "its answer is compressed, which was not asked for",
        ));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut body = Vec::new();
    let mut extent = Extent::Whole;
    while let Some(frame) = idle(incoming.frame()).await? {
        // Trailers say nothing that anybody asked for.
        let Ok(data) = frame.map_err(|error| http_fault(&error))?.into_data() else {
            continue;
        };
        let fits = take(data.len().min(limit - body.len()) as u64);
        let fits = usize::try_from(fits).unwrap_or(data.len());
        body.extend_from_slice(&data[..fits]);
        if data.len() > fits {
            extent = Extent::Truncated;
            break;
        }
    }
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
        extent,
    })
}

async fn idle<T>(work: impl Future<Output = T>) -> Result<T, EgressFault> {
    let limit = Duration::from_secs(IDLE_SECONDS.into());
    let slow = EgressFault::Slow {
        seconds: IDLE_SECONDS,
    };
    timeout(limit, work).await.map_err(|_| slow)
}

fn protocol_fault(detail: &str) -> EgressFault {
    EgressFault::Protocol {
        detail: detail.to_owned(),
    }
}

fn unsendable(what: &str) -> EgressFault {
    EgressFault::NotAllowed {
        reason: format!("the {what} cannot be sent in a request"),
    }
}

/// The tasks of one connection of HTTP/2.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(async move {
            // How a connection ended, whoever waits for its answer is told.
            let _ = task.await;
        });
    }
}

/// Ends them when it is dropped, and closes the connection with them: left alone they would
/// wait for a server that does not let go.
struct EndTasks(Tasks);

impl Drop for EndTasks {
    fn drop(&mut self) {
        let mut tasks = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.abort_all();
    }
}
