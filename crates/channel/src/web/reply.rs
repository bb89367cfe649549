//! What goes back to a browser: every reply carries the same protective headers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

use super::assets::Asset;
use super::guard::Refusal;
use crate::link::SendError;

/// On every reply. The page has no inline script or style, loads nothing from elsewhere, cannot be
/// framed, sends no referrer, is not kept in caches, and cannot write HTML from text.
const HEADERS: [(HeaderName, &str); 8] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=()",
    ),
];

pub(super) type Reply = Response<Body>;

/// A reply's body.
#[derive(Debug)]
pub(super) enum Body {
    /// All of it; taken when it is sent.
    Whole(Bytes),
    /// An event stream, as long as the sender lives.
    Events(mpsc::Receiver<Bytes>),
}

/// Why a request is not served: a status, and a plain sentence for the person.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("There is nothing at this address.")]
    NotFound,
    #[error("This request is not what this address takes.")]
    NotUnderstood,
    #[error("This is too long: a message has at most 64 KiB.")]
    TooLarge,
    #[error("This request came too slowly.")]
    TooSlow,
    #[error(
        "This browser is not logged in. Run `bulkhead login` and open the link that it prints."
    )]
    NotLoggedIn,
    #[error("This link was used before or is too old. Run `bulkhead login` for a new one.")]
    LinkUsed,
    #[error("Too many tries. Wait a minute and try again.")]
    TooOften,
    #[error(
        "The gateway is not answering. It is restarted by itself; `bulkhead status` says more."
    )]
    GatewayGone,
    #[error("Too much is going on at once. Try again in a moment.")]
    Busy,
    /// The message was not accepted yet, and is sent again.
    #[error("{0}")]
    NotYet(String),
    /// The message will not be accepted.
    #[error("{0}")]
    NotTaken(String),
}

impl From<SendError> for Problem {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Down => Self::GatewayGone,
            SendError::Busy => Self::Busy,
        }
    }
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refusal) => refusal.status(),
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::NotUnderstood => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NotLoggedIn | Self::LinkUsed => StatusCode::UNAUTHORIZED,
            Self::TooOften => StatusCode::TOO_MANY_REQUESTS,
            Self::GatewayGone | Self::Busy | Self::NotYet(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotTaken(_) => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }

    /// The reply that says so.
    pub(super) fn reply(&self) -> Reply {
        #[derive(Serialize)]
        struct Error {
            error: String,
        }
        json(
            self.status(),
            &Error {
                error: self.to_string(),
            },
        )
    }
}

pub(super) fn asset(asset: Asset) -> Reply {
    reply(
        StatusCode::OK,
        asset.media_type,
        Body::Whole(Bytes::from_static(asset.bytes)),
    )
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(bytes) => reply(status, "application/json", Body::Whole(bytes.into())),
        // Only maps with odd keys can fail, and these types have no maps.
        Err(_) => reply(
            StatusCode::INTERNAL_SERVER_ERROR,
            "application/json",
            Body::Whole(Bytes::new()),
        ),
    }
}

/// It is at another address.
pub(super) fn moved(address: &str) -> Reply {
    let mut reply = reply(
        StatusCode::TEMPORARY_REDIRECT,
        "text/plain",
        Body::Whole(Bytes::new()),
    );
    match HeaderValue::from_str(address) {
        Ok(address) => {
            reply.headers_mut().insert(header::LOCATION, address);
        }
        // An address of ours is ASCII without line breaks.
        Err(_) => *reply.status_mut() = StatusCode::NOT_FOUND,
    }
    reply
}

/// Done; there is nothing to say.
pub(super) fn done() -> Reply {
    json(StatusCode::ACCEPTED, &serde_json::Map::new())
}

pub(super) fn events(lines: mpsc::Receiver<Bytes>) -> Reply {
    reply(StatusCode::OK, "text/event-stream", Body::Events(lines))
}

fn reply(status: StatusCode, media_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    reply
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Events(lines) => lines
                .poll_recv(cx)
                .map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
