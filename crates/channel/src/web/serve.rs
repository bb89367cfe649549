//! Connections: how many, how long, and how slow they may be.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::routes::{self, Site};

/// Connections at one time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// How long a request's head may take, and how long a connection may be idle.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// How long a connection is used for one request after the other.
const LIFE: Duration = Duration::from_secs(120);

/// How long the request that is under way then may still take.
const LAST_REQUEST: Duration = Duration::from_secs(30);

/// How long an event stream is; the page opens a new one after it.
const STREAM_LIFE: Duration = Duration::from_secs(60 * 60);

/// Memory for the head of a request, in bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// Header fields in a request.
const MAX_HEADERS: usize = 64;

/// What outlives a request on its connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    streams: AtomicBool,
    is_cut: AtomicBool,
    cut: Notify,
}

impl Connection {
    /// From now on this connection carries an event stream.
    pub(super) fn streams(&self) {
        self.streams.store(true, Ordering::Relaxed);
    }

    /// Ends the connection, whatever is still to be written.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
        self.cut.notify_one();
    }

    /// Whether it was ended so.
    #[cfg(test)]
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }
}

/// Serves this listener until the program ends.
pub(super) async fn accept(listener: TcpListener, site: Arc<Site>) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, permit, Arc::clone(&site)));
            }
            Err(error) => {
                protocol::log!("bulkhead-channel-web: cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, _permit: OwnedSemaphorePermit, site: Arc<Site>) {
    // Without it, small pieces of a stream may be late by some milliseconds; nothing else.
    let _ = stream.set_nodelay(true);
    let connection = Arc::<Connection>::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (site, connection) = (Arc::clone(&site), Arc::clone(&connection));
        async move { Ok::<_, Infallible>(routes::serve(&site, request, connection).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT);
    builder.max_buf_size(HEAD_BYTES).max_headers(MAX_HEADERS);
    let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // A connection that breaks is the browser's affair.
        _ = served.as_mut() => return,
        () = connection.cut.notified() => return,
        () = tokio::time::sleep(LIFE) => {}
    }
    let rest = match connection.streams.load(Ordering::Relaxed) {
        true => STREAM_LIFE,
        false => {
            served.as_mut().graceful_shutdown();
            LAST_REQUEST
        }
    };
    tokio::select! {
        _ = served => {}
        () = connection.cut.notified() => {}
        () = tokio::time::sleep(rest) => {}
    }
}
