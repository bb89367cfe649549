//! The server: requests in, acts out, and who went away in between.

use std::io;
use std::net::TcpListener as StdListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::pages::{Page, page, show};
use super::script::Step;
use super::wire::{Act, Asked, Format};
use super::{Received, Shared};

/// The largest body of a request in bytes.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Serves until `stopped`; connections that are open then are dropped.
pub(super) async fn serve(
    listener: StdListener,
    shared: Arc<Shared>,
    mut stopped: oneshot::Receiver<()>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            // Out of descriptors; some connection will end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Pieces leave as they are made; held back, a bench would measure the waiting.
        if stream.set_nodelay(true).is_err() {
            // The client is gone already.
            continue;
        }
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            // How a connection ends is the peer's affair; a fault that cuts it is an error too.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Streamed>> {
    let (head, body) = request.into_parts();
    let found = page(
        &shared.lock().cursor.script,
        head.method.as_str(),
        head.uri.path(),
    );
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Ok(refused(400, &error.to_string())),
    };
    match found {
        Page::Missing => Ok(refused(404, "not found")),
        Page::Fixed(page) => Ok(json_page(200, &page)),
        Page::Show => Ok(shown(&shared, &body)),
        Page::Chat(format) => {
            let Ok(body) = serde_json::from_slice::<Value>(&body) else {
                return Ok(refused(400, "the body is not JSON"));
            };
            let text = |(name, value): (&HeaderName, &HeaderValue)| {
                (
                    name.as_str().to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            };
            let headers = head.headers.iter().map(text).collect();
            chat(
                shared,
                format,
                Received {
                    path: head.uri.path().to_owned(),
                    headers,
                    body,
                },
            )
            .await
        }
    }
}

fn shown(shared: &Shared, body: &[u8]) -> Response<Streamed> {
    let script = &shared.lock().cursor.script;
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = asked["model"]
        .as_str()
        .or_else(|| asked["name"].as_str())
        .unwrap_or_default();
    match name == script.model {
        true => json_page(200, &show(script)),
        false => refused(404, &format!("model '{name}' not found")),
    }
}

async fn chat(
    shared: Arc<Shared>,
    format: Format,
    received: Received,
) -> io::Result<Response<Streamed>> {
    let body = received.body.clone();
    let asked = Asked::new(format, &body);
    if let Some(reason) = asked.refusal() {
        return Ok(refused(400, reason));
    }
    let step = {
        let mut state = shared.lock();
        state.requests.push(received);
        state.cursor.next(&body)
    };
    shared.changed.notify_all();
    if let Step::Late { ms, .. } = &step {
        let waiting = Watch {
            shared: &shared,
            done: false,
        };
        tokio::time::sleep(Duration::from_millis(*ms)).await;
        waiting.over();
    }
    match (asked.acts(&step), &step) {
        (Some(acts), _) => Ok(streamed(shared, format, acts)),
        (
            None,
            Step::Status {
                code,
                headers,
                body,
            },
        ) => Ok(status(*code, headers, body)),
        (None, _) => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

/// A wait that is dropped when the client goes away.
struct Watch<'a> {
    shared: &'a Shared,
    done: bool,
}

impl Watch<'_> {
    fn over(mut self) {
        self.done = true;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.shared.disconnected();
        }
    }
}

fn streamed(shared: Arc<Shared>, format: Format, acts: Vec<Act>) -> Response<Streamed> {
    // One piece at a time, so that a client that went away is noticed with the next.
    let (sender, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        if !play(&sender, acts).await {
            shared.disconnected();
        }
    });
    let kind = match format {
        Format::Ollama => "application/x-ndjson",
        Format::Openai => "text/event-stream",
    };
    let mut response = Response::new(Streamed::Pieces(pieces));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Does all of it; `false` if the client went away before.
async fn play(sender: &mpsc::Sender<io::Result<Bytes>>, acts: Vec<Act>) -> bool {
    for act in acts {
        let there = match act {
            Act::Send(text) => sender.send(Ok(Bytes::from(text))).await.is_ok(),
            Act::Break => sender
                .send(Err(io::ErrorKind::ConnectionAborted.into()))
                .await
                .is_ok(),
            Act::Wait(time) => tokio::select! {
                () = tokio::time::sleep(time) => true,
                () = sender.closed() => false,
            },
        };
        if !there {
            return false;
        }
    }
    true
}

fn status(
    code: u16,
    headers: &std::collections::BTreeMap<String, String>,
    body: &str,
) -> Response<Streamed> {
    let mut response = plain(code, body.to_owned());
    for (name, value) in headers {
        let parsed = (HeaderName::try_from(name), HeaderValue::try_from(value));
        if let (Ok(name), Ok(value)) = parsed {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn refused(code: u16, message: &str) -> Response<Streamed> {
    json_page(
        code,
        &json!({ "error": { "code": code, "message": message } }),
    )
}

fn json_page(code: u16, page: &Value) -> Response<Streamed> {
    plain(code, page.to_string())
}

fn plain(code: u16, body: String) -> Response<Streamed> {
    let mut response = Response::new(Streamed::Whole(Some(Bytes::from(body))));
    // A script may name a status that is none.
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The body of a response.
enum Streamed {
    Whole(Option<Bytes>),
    Pieces(mpsc::Receiver<io::Result<Bytes>>),
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(body) => Poll::Ready(body.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pieces(pieces) => pieces
                .poll_recv(context)
                .map(|piece| Some(piece?.map(Frame::data))),
        }
    }
}
