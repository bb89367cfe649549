//! One HTTP/1.1 connection to the Bot API server, through a tunnel.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use protocol::control::Scheme;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::peers::{Egress, NoTunnel};

/// The largest answer in bytes. A hundred updates with long texts are far smaller.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// How long the TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);

/// Where the Bot API server is, and how to get there.
pub(super) struct Server {
    egress: Arc<Egress>,
    host: String,
    port: u16,
    /// What the `Host` header says.
    authority: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Why there is no answer. Holds neither path nor body.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// No connection.
    #[error("no connection to {host}: {why}")]
    NoTunnel {
        /// To where.
        host: String,
        /// Why.
        why: NoTunnel,
    },
    /// The host did not prove who it is, or does not speak TLS.
    #[error("TLS with {0}: {1}")]
    Tls(String, std::io::Error),
    /// The connection broke, or the other side does not speak HTTP.
    #[error("the connection broke: {0}")]
    Broken(hyper::Error),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// The answer is too large.
    #[error("the answer is over {MAX_ANSWER} bytes")]
    TooLarge,
}

/// The configured host cannot be a server's name.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a host's name; put it right in bulkhead.toml")]
pub(super) struct BadHost(String);

impl Server {
    pub(super) fn new(
        egress: Arc<Egress>,
        scheme: Scheme,
        host: String,
        port: u16,
    ) -> Result<Self, BadHost> {
        let bad = || BadHost(host.clone());
        let authority = HeaderValue::from_str(&format!("{host}:{port}")).map_err(|_| bad())?;
        let tls = match scheme {
            Scheme::Http => None,
            Scheme::Https => {
                let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
                Some((TlsConnector::from(Arc::new(tls_config())), name))
            }
        };
        Ok(Self {
            egress,
            host,
            port,
            authority,
            tls,
        })
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Connection, HttpError> {
        let no_tunnel = |why| HttpError::NoTunnel {
            host: self.host.clone(),
            why,
        };
        let broken = |error: std::io::Error| {
            no_tunnel(NoTunnel::Fault(
                protocol::egress::EgressFault::Unreachable {
                    detail: error.to_string(),
                },
            ))
        };
        let socket = self
            .egress
            .open(&self.host, self.port)
            .await
            .map_err(no_tunnel)?;
        socket.set_nonblocking(true).map_err(broken)?;
        let socket = tokio::net::UnixStream::from_std(socket).map_err(broken)?;
        match &self.tls {
            None => Connection::over(TokioIo::new(socket), self.authority.clone()).await,
            Some((connector, name)) => {
                let hands =
                    tokio::time::timeout(HANDSHAKE_LIMIT, connector.connect(name.clone(), socket));
                let shaken = hands.await.map_err(|_| HttpError::Slow(HANDSHAKE_LIMIT))?;
                let stream = shaken.map_err(|error| HttpError::Tls(self.host.clone(), error))?;
                Connection::over(TokioIo::new(stream), self.authority.clone()).await
            }
        }
    }
}

/// TLS 1.2 and 1.3 with Mozilla's roots.
fn tls_config() -> ClientConfig {
    let roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let provider = Arc::new(crypto::ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    // The provider is the one that the default versions are made for.
    let versions = versions.expect("ring has the default versions of TLS");
    versions.with_root_certificates(roots).with_no_client_auth()
}

/// A connection; closed when dropped.
pub(super) struct Connection {
    requests: SendRequest<Full<Bytes>>,
    authority: HeaderValue,
    task: AbortHandle,
}

impl Connection {
    async fn over<T: Read + Write + Unpin + Send + 'static>(
        io: T,
        authority: HeaderValue,
    ) -> Result<Self, HttpError> {
        let (requests, connection) = handshake(io).await.map_err(HttpError::Broken)?;
        // The error of a broken connection comes out of the request, too.
        let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Self {
            requests,
            authority,
            task,
        })
    }

    /// Whether another request can be sent.
    pub(super) fn is_open(&self) -> bool {
        !self.requests.is_closed()
    }

    /// Posts a JSON body; the status and the body of the answer.
    pub(super) async fn post(
        &mut self,
        path: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<(u16, Bytes), HttpError> {
        let answer = tokio::time::timeout(limit, self.exchange(path, body));
        answer.await.map_err(|_| HttpError::Slow(limit))?
    }

    async fn exchange(&mut self, path: &str, body: Vec<u8>) -> Result<(u16, Bytes), HttpError> {
        let request = hyper::Request::post(path)
            .header(HOST, self.authority.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(Bytes::from(body)));
        // A path has only a checked token and a method's name; the headers are values already.
        let request = request.expect("a path of letters is a path");
        self.requests.ready().await.map_err(HttpError::Broken)?;
        let answer = self
            .requests
            .send_request(request)
            .await
            .map_err(HttpError::Broken)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => HttpError::Broken(*error),
            Err(error) if error.is::<LengthLimitError>() => HttpError::TooLarge,
            Err(_) => HttpError::TooLarge,
        })?;
        Ok((status, body.to_bytes()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}
