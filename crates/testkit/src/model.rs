//! A scripted model server that speaks both wire formats.
//!
//! What it answers is a [`Script`]: steps that are used up one by one, and rules that look at
//! what the person wrote. It answers `/api/chat` as Ollama does and `/v1/chat/completions`
//! as llama.cpp does, also with a schema, and the pages by which a server is recognised. It
//! writes down every request, and counts clients that went away before the answer was over.

mod pages;
mod script;
mod serve;
mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::oneshot;

use script::Cursor;
pub use script::{Rule, Script, ScriptedCall, Speaks, Step, Then};

/// A server on a port of 127.0.0.1; it ends when this is dropped.
#[derive(Debug)]
pub struct ScriptedModel {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A request for an answer, as it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Its path.
    pub path: String,
    /// Its headers, in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Value,
}

impl Received {
    /// The texts of the messages with their roles, `user: hello`.
    pub fn messages(&self) -> Vec<String> {
        let text =
            |message: &Value, key: &str| message[key].as_str().unwrap_or_default().to_owned();
        let all = self.body["messages"].as_array();
        all.into_iter()
            .flatten()
            .map(|m| format!("{}: {}", text(m, "role"), text(m, "content")))
            .collect()
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    cursor: Cursor,
    requests: Vec<Received>,
    disconnects: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client went away before its answer was over.
    fn disconnected(&self) {
        self.lock().disconnects += 1;
        self.changed.notify_all();
    }
}

impl ScriptedModel {
    /// Starts a server on a free port.
    pub fn start(script: Script) -> io::Result<Self> {
        Self::start_on(0, script)
    }

    /// Starts a server on this port; 0 takes a free one.
    pub fn start_on(port: u16, script: Script) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = State {
            cursor: Cursor::new(script),
            requests: Vec::new(),
            disconnects: 0,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("scripted-model".to_owned())
            .spawn(move || runtime.block_on(serve::serve(listener, serving, stopped)))?;
        Ok(Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Adds a step behind those that are left.
    pub fn push(&self, step: Step) {
        self.shared.lock().cursor.push(step);
    }

    /// The requests so far, oldest first.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.lock().requests.clone()
    }

    /// How many clients went away before their answer was over.
    pub fn disconnects(&self) -> usize {
        self.shared.lock().disconnects
    }

    /// Waits until so many requests came; whether they did.
    #[must_use]
    pub fn wait_for_requests(&self, count: usize, limit: Duration) -> bool {
        self.wait(limit, |state| state.requests.len() >= count)
    }

    /// Waits until so many clients went away; whether they did.
    #[must_use]
    pub fn wait_for_disconnects(&self, count: usize, limit: Duration) -> bool {
        self.wait(limit, |state| state.disconnects >= count)
    }

    fn wait(&self, limit: Duration, reached: impl Fn(&State) -> bool) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.shared.lock();
        while !reached(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.shared.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for ScriptedModel {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself; there is nothing to stop then.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}
