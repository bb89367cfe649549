//! The Docker API, as Docker and Podman speak it over a Unix socket: the ten calls that a box takes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The longest answer.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// No call takes so long on a machine that still works.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of an engine's own words.
const MAX_WORDS: usize = 600;

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// Nobody answers there.
    #[error("{}: {error}", socket.display())]
    Unreachable {
        socket: PathBuf,
        error: std::io::Error,
    },
    /// What comes is not HTTP, or breaks off.
    #[error("the engine's answer cannot be read: {0}")]
    Broken(String),
    /// It took too long.
    #[error("the engine does not answer within {} seconds", PATIENCE.as_secs())]
    Late,
    /// It says no.
    #[error("the engine answers {status}: {words}")]
    Refused { status: StatusCode, words: String },
}

impl ApiError {
    /// What was named is not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

fn broken(error: impl std::fmt::Display) -> ApiError {
    ApiError::Broken(error.to_string())
}

/// An engine by its socket. Each call has a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    socket: PathBuf,
}

/// What goes with a call.
enum Body {
    Nothing,
    Json(Value),
    Tar(Vec<u8>),
}

impl Api {
    pub(crate) fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        read(self.call(Method::GET, path, Body::Nothing).await?).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Value,
    ) -> Result<T, ApiError> {
        read(self.call(Method::POST, path, Body::Json(body)).await?).await
    }

    /// A call that answers nothing.
    pub(crate) async fn order(&self, path: &str) -> Result<(), ApiError> {
        self.call(Method::POST, path, Body::Nothing).await.map(drop)
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), ApiError> {
        self.call(Method::DELETE, path, Body::Nothing)
            .await
            .map(drop)
    }

    /// Sends an archive. The answer is a line of JSON for each step, and the last one counts.
    pub(crate) async fn import(&self, path: &str, tar: Vec<u8>) -> Result<Value, ApiError> {
        let answer = self.call(Method::POST, path, Body::Tar(tar)).await?;
        let bytes = whole(answer.into_body()).await?;
        let last = bytes
            .split(|byte| *byte == b'\n')
            .rfind(|line| !line.trim_ascii().is_empty());
        serde_json::from_slice(last.unwrap_or_default()).map_err(broken)
    }

    /// The standard input and outputs of a container, as one connection.
    pub(crate) async fn attach(&self, path: &str) -> Result<TokioIo<Upgraded>, ApiError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, "engine")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "tcp")
            .body(Full::default())
            .map_err(broken)?;
        let answer = self.send(request).await?;
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => {
                let stream = hyper::upgrade::on(answer).await.map_err(broken)?;
                Ok(TokioIo::new(stream))
            }
            _ => Err(refused(answer).await),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>, ApiError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "engine");
        let request = match body {
            Body::Nothing => request.body(Full::default()),
            Body::Json(value) => request
                .header(CONTENT_TYPE, "application/json")
                .body(Full::from(value.to_string())),
            Body::Tar(tar) => request
                .header(CONTENT_TYPE, "application/x-tar")
                .body(Full::from(tar)),
        };
        let answer = self.send(request.map_err(broken)?).await?;
        match answer.status().is_success() || answer.status() == StatusCode::NOT_MODIFIED {
            true => Ok(answer),
            false => Err(refused(answer).await),
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ApiError> {
        let connected = UnixStream::connect(&self.socket).await;
        let stream = connected.map_err(|error| ApiError::Unreachable {
            socket: self.socket.clone(),
            error,
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // It ends with the answer, or with the stream that the answer becomes; errors come out there.
        tokio::spawn(connection.with_upgrades());
        timeout(PATIENCE, sender.send_request(request))
            .await
            .map_err(|_| ApiError::Late)?
            .map_err(broken)
    }
}

async fn read<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, ApiError> {
    serde_json::from_slice(&whole(answer.into_body()).await?).map_err(broken)
}

async fn whole(body: Incoming) -> Result<Bytes, ApiError> {
    let collected = timeout(PATIENCE, Limited::new(body, MAX_ANSWER).collect());
    Ok(collected
        .await
        .map_err(|_| ApiError::Late)?
        .map_err(broken)?
        .to_bytes())
}

/// Both engines say why in a field `message`.
async fn refused(answer: Response<Incoming>) -> ApiError {
    #[derive(Deserialize)]
    struct Words {
        message: String,
    }
    let status = answer.status();
    let words = match read::<Words>(answer).await {
        Ok(Words { message }) => message,
        Err(_) => "it does not say why".to_owned(),
    };
    let words = words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_WORDS)
        .collect();
    ApiError::Refused { status, words }
}

/// A value in a query, RFC 3986.
pub(crate) fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
