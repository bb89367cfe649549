//! The server: requests in, answers out, faults between.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request as HttpRequest, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::api::{ApiError, Parameters};
use super::{Fault, Request, Shared};

/// The largest body of a request in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// Serves until `stopped`; a connection that is open then is dropped.
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
        let Ok((stream, _)) = accepted else { continue };
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

/// Closes the connection without an answer.
type Cut = io::Error;

async fn answer(
    shared: Arc<Shared>,
    request: HttpRequest<Incoming>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let Some((token, method)) = parse_path(request.uri().path()) else {
        return Ok(response(&Err(ApiError::new(404, "Not Found"))));
    };
    let parameters = match read_parameters(request).await {
        Ok(parameters) => parameters,
        Err(error) => return Ok(response(&Err(error))),
    };
    let log = note(&shared, &method, &parameters);
    let (result, fault) = perform(&shared, &token, &method, &parameters).await;
    shared.wake();
    match fault {
        Some(Fault::Hang) => {
            std::future::pending::<Infallible>().await;
        }
        Some(Fault::CutBefore | Fault::CutAfter) => {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Some(Fault::BadGateway) => return Ok(page(502, "<html><h1>502 Bad Gateway</h1></html>")),
        Some(Fault::Status(..) | Fault::TooMany(_)) | None => {}
    }
    let status = result.as_ref().map_or_else(|error| error.code, |_| 200);
    shared.lock().requests[log].status = Some(status);
    Ok(response(&result))
}

/// Writes a request down; returns where.
fn note(shared: &Shared, method: &str, parameters: &Parameters) -> usize {
    let mut bot = shared.lock();
    bot.requests.push(Request {
        method: method.to_owned(),
        parameters: parameters.0.clone(),
        at: Instant::now(),
        status: None,
    });
    bot.requests.len() - 1
}

async fn perform(
    shared: &Shared,
    token: &str,
    method: &str,
    parameters: &Parameters,
) -> (Result<Value, ApiError>, Option<Fault>) {
    let fault = {
        let mut bot = shared.lock();
        if let Err(error) = bot.authorize(token).and_then(|()| bot.check_limits(method)) {
            return (Err(error), None);
        }
        let fault = bot.next_fault(method);
        match &fault {
            Some(Fault::Status(code, description)) => {
                return (Err(ApiError::new(*code, *description)), fault);
            }
            Some(Fault::TooMany(seconds)) => return (Err(bot.hold(method, *seconds)), fault),
            Some(Fault::Hang | Fault::CutBefore | Fault::BadGateway) => {
                return (Ok(Value::Null), fault);
            }
            Some(Fault::CutAfter) | None => {}
        }
        fault
    };
    let result = match method {
        "getUpdates" => get_updates(shared, parameters).await,
        _ => shared.lock().call(method, parameters),
    };
    (result, fault)
}

async fn get_updates(shared: &Shared, parameters: &Parameters) -> Result<Value, ApiError> {
    let mut changed = shared.changed.subscribe();
    let poll = shared.lock().begin_poll(parameters)?;
    shared.wake();
    let end = tokio::time::Instant::now() + Duration::from_secs(poll.timeout);
    loop {
        changed.mark_unchanged();
        let updates = shared.lock().poll(&poll)?;
        if !updates.is_empty() || tokio::time::Instant::now() >= end {
            return Ok(updates.into());
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(end) => {}
        }
    }
}

/// `/bot<token>/<method>`.
fn parse_path(path: &str) -> Option<(String, String)> {
    let (token, method) = path.strip_prefix("/bot")?.split_once('/')?;
    Some((token.to_owned(), method.to_owned()))
}

async fn read_parameters(request: HttpRequest<Incoming>) -> Result<Parameters, ApiError> {
    let is_json = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let mut parameters = form(request.uri().query().unwrap_or_default());
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let body = body
        .map_err(|_| ApiError::new(413, "Request Entity Too Large"))?
        .to_bytes();
    if is_json && !body.is_empty() {
        let object: Map<String, Value> =
            serde_json::from_slice(&body).map_err(|_| ApiError::bad("can't parse JSON object"))?;
        parameters.extend(object);
    } else if let Ok(text) = std::str::from_utf8(&body) {
        parameters.extend(form(text));
    }
    Ok(Parameters(parameters))
}

/// `application/x-www-form-urlencoded`.
fn form(text: &str) -> Map<String, Value> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .map(|(name, value)| (unescape(name), Value::from(unescape(value))))
        .collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let escaped = hex
            .filter(|_| *first == b'%')
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        rest = if escaped.is_some() { &tail[2..] } else { tail };
        bytes.push(escaped.unwrap_or(if *first == b'+' { b' ' } else { *first }));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn response(result: &Result<Value, ApiError>) -> Response<Full<Bytes>> {
    let (status, body) = match result {
        Ok(value) => (200, json!({ "ok": true, "result": value })),
        Err(error) => {
            let mut body =
                json!({ "ok": false, "error_code": error.code, "description": error.description });
            if let Some(seconds) = error.retry_after {
                body["parameters"] = json!({ "retry_after": seconds });
            }
            (error.code, body)
        }
    };
    page(status, &body.to_string())
}

fn page(status: u16, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    response
}
