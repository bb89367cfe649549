//! The web page on `localhost`.
//!
//! The program is handed its listening sockets and has no right to make one. Every request passes
//! [`guard`] first, which looks at names and origins and never at the peer's address: that a
//! request comes from this machine says nothing about who made it. Who a browser is, the gateway
//! decides ([`browsers`]); what happens in a conversation goes to its browsers only ([`hub`]).

mod assets;
mod browsers;
mod guard;
mod hub;
mod reply;
mod routes;
mod serve;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use protocol::channel::ChannelEvent;
use protocol::control::{ChannelConfig, Peer, Report};
use protocol::frame::LinkError;
use protocol::ids::ChannelId;
use sandbox::Program;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::link::{self, LinkState};
use crate::program::{self, ControlEvent, ControlEvents, Key, StartError, Started};
use routes::Site;

/// How often open event streams get a line, so that dead ones are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The whole program.
pub fn run() -> ExitCode {
    match serve_until_stopped() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            protocol::log!("bulkhead-channel-web: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_until_stopped() -> Result<(), StartError> {
    let [key] = program::path_options(std::env::args_os().skip(1), ["--key"])?;
    let Started {
        key,
        config,
        control,
    } = program::start(Program::ChannelWeb, &key)?;
    let (channel, port) = match config {
        ChannelConfig::Web { channel, port } => (channel, port),
        ChannelConfig::Telegram { channel, .. } => {
            let error = StartError::OtherPlatform(channel);
            control.report(&Report::Failed {
                reason: error.to_string(),
            })?;
            return Err(error);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    runtime.block_on(main_loop(key, channel, port, control))?;
    Ok(())
}

async fn main_loop(
    key: Key,
    channel: ChannelId,
    port: u16,
    control: ControlEvents,
) -> Result<(), LinkError> {
    let (gateway, events) = link::connect(key.0, channel);
    let state = gateway.watch();
    let page = Page {
        site: Arc::new(Site::new(gateway, port)),
        control,
        events,
        state,
    };
    page.run().await
}

/// What the main loop listens to.
struct Page {
    site: Arc<Site>,
    control: ControlEvents,
    events: mpsc::Receiver<ChannelEvent>,
    state: watch::Receiver<LinkState>,
}

impl Page {
    async fn run(mut self) -> Result<(), LinkError> {
        let mut keep_alive = tokio::time::interval(KEEP_ALIVE);
        loop {
            tokio::select! {
                handed = self.control.next() => match handed? {
                    ControlEvent::Gateway(socket) => self.site.gateway.attach(socket),
                    ControlEvent::Listener(listener) => self.listen(listener)?,
                    ControlEvent::Stop => return Ok(()),
                    ControlEvent::Egress(_) | ControlEvent::Vault(_) => {
                        return Err(LinkError::OutOfOrder { expected: "gateway, listener or stop", got: "another link" });
                    }
                },
                Some(event) = self.events.recv() => self.site.take(event),
                Ok(()) = self.state.changed() => self.link_changed()?,
                _ = keep_alive.tick() => self.site.keep_alive(),
            }
        }
    }

    fn listen(&self, listener: std::net::TcpListener) -> Result<(), LinkError> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        tokio::spawn(serve::accept(listener, Arc::clone(&self.site)));
        self.control.report(&Report::Ready)
    }

    fn link_changed(&mut self) -> Result<(), LinkError> {
        let state = *self.state.borrow_and_update();
        self.site.link_changed(state);
        match state {
            LinkState::Up | LinkState::Down => Ok(()),
            LinkState::Stuck => self.control.report(&Report::Relink {
                peer: Peer::Gateway,
            }),
        }
    }
}
