//! Two ears on loopback: a relay that keeps what the model is sent, and a host that should
//! never hear anything.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The most that is kept of what the model is sent, in bytes.
const MAX_KEPT: usize = 64 * 1024 * 1024;

/// How long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stands between egress and the model, so that what the model is told can be looked at.
pub(super) struct Relay {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Relay {
    /// Passes on to this port of loopback from now on, until the process ends.
    pub(super) fn start(model: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || pass_on(&client, model, &kept));
            }
        });
        Ok(Self { port, heard })
    }

    /// Where egress finds it.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// How often this text was sent to the model. None if not all could be kept.
    pub(super) fn count(&self, text: &str) -> Option<u64> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        (heard.len() < MAX_KEPT).then(|| occurrences(&heard, text.as_bytes()))
    }
}

/// A connection that cannot be passed on is closed; egress reports that the model is down.
fn pass_on(client: &TcpStream, model: u16, kept: &Arc<Mutex<Vec<u8>>>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, model)) else {
        return;
    };
    for stream in [client, &server] {
        // Without the limit it would end with the process at the latest.
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.set_nodelay(true);
    }
    let (Ok(client_read), Ok(server_write)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let kept = Arc::clone(kept);
    let up = thread::spawn(move || copy(&client_read, &server_write, |bytes| keep(&kept, bytes)));
    copy(&server, client, |_| {});
    let _ = client.shutdown(Shutdown::Both);
    // It cannot panic in a way that matters here: what it heard is kept already.
    let _ = up.join();
}

fn keep(kept: &Mutex<Vec<u8>>, bytes: &[u8]) {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let room = MAX_KEPT - kept.len();
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn copy(mut from: impl Read, mut to: &TcpStream, mut each: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        each(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// How often `part` stands in `whole`, overlaps included.
pub(super) fn occurrences(whole: &[u8], part: &[u8]) -> u64 {
    if part.is_empty() {
        return 0;
    }
    let hits = whole.windows(part.len()).filter(|window| *window == part);
    hits.count() as u64
}

/// A host that would take whatever is sent to it, and give a script to whoever asks.
pub(crate) struct Canary {
    port: u16,
    connections: Arc<AtomicU64>,
}

impl Canary {
    /// Listens from now on, until the process ends.
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let connections = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&connections);
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                // Whether the answer arrives does not matter; the connection is what counts.
                let _ = client.write_all(ANSWER.as_bytes());
            }
        });
        Ok(Self { port, connections })
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many connections there were so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connects, and tells whether that was counted: what counts nothing proves nothing.
    pub(crate) fn counts(&self) -> bool {
        let before = self.connections();
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else {
            return false;
        };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        // The answer comes after the counting.
        let _ = stream.read_to_end(&mut Vec::new());
        self.connections() > before
    }
}

const ANSWER: &str =
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 26\r\n\r\necho taken > /workspace/x\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_to_the_canary_is_counted() {
        let canary = Canary::start().unwrap();
        assert_eq!(canary.connections(), 0);
        assert!(canary.counts());
        assert_eq!(canary.connections(), 1);
    }

    #[test]
    fn the_relay_keeps_what_goes_to_the_model_and_not_what_comes_back() {
        let model = Canary::start().unwrap();
        let relay = Relay::start(model.port()).unwrap();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).unwrap();
        stream.write_all(b"POST / the-canary").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // The stand-in closes without reading, which may break the connection after its answer.
        let _ = stream.read_to_end(&mut answer);
        let soon = std::time::Instant::now() + Duration::from_secs(5);
        while relay.count("the-canary") == Some(0) && std::time::Instant::now() < soon {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(relay.count("the-canary"), Some(1));
        assert_eq!(relay.count("taken"), Some(0));
        assert_eq!(relay.count("other"), Some(0));
    }

    #[test]
    fn occurrences_are_counted_across_what_came_in_pieces() {
        assert_eq!(occurrences(b"aXbXX", b"X"), 3);
        assert_eq!(occurrences(b"ab", b"abc"), 0);
        assert_eq!(occurrences(b"ab", b""), 0);
    }
}
