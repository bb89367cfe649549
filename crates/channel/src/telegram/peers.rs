//! The links to egress and to the vault. Both block, so each question runs on a thread of its own.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::control::{ControlEnd, Peer};
use protocol::egress::{EgressFault, TunnelReply, TunnelRequest};
use protocol::frame::LinkError;
use protocol::ids::SecretName;
use tokio::sync::{mpsc, watch};
use vault::client::{VaultClient, VaultError};

use super::token::Token;

/// How long egress may take to open a connection or say why not.
const OPEN_LIMIT: Duration = Duration::from_secs(45);

/// How long a link is waited for.
const LINK_LIMIT: Duration = Duration::from_secs(20);

/// A link that the supervisor may replace at any time.
struct Slot<T> {
    peer: Peer,
    current: watch::Sender<Option<Arc<Mutex<T>>>>,
    relink: mpsc::UnboundedSender<Peer>,
}

impl<T: Send + 'static> Slot<T> {
    fn new(peer: Peer, relink: mpsc::UnboundedSender<Peer>) -> Self {
        Self {
            peer,
            current: watch::Sender::new(None),
            relink,
        }
    }

    fn attach(&self, link: T) {
        self.current.send_replace(Some(Arc::new(Mutex::new(link))));
    }

    /// Waits for a link, and asks over it.
    async fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Option<(R, Arc<Mutex<T>>)> {
        let mut current = self.current.subscribe();
        let there = tokio::time::timeout(LINK_LIMIT, current.wait_for(Option::is_some)).await;
        let link = there.ok()?.ok()?.clone()?;
        let asked = Arc::clone(&link);
        let answer = tokio::task::spawn_blocking(move || {
            question(&mut asked.lock().unwrap_or_else(PoisonError::into_inner))
        });
        Some((answer.await.ok()?, link))
    }

    /// Uses this link no more, unless it was replaced already. A new one comes by itself if the
    /// peer died; if it only was too slow, the supervisor has to be asked.
    fn give_up(&self, link: &Arc<Mutex<T>>, error: &LinkError) {
        let dropped = self.current.send_if_modified(|current| {
            let same = current
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, link));
            if same {
                *current = None;
            }
            same
        });
        if dropped && !matches!(error, LinkError::Closed) {
            // The receiver lives as long as the program.
            let _ = self.relink.send(self.peer.clone());
        }
    }
}

/// Egress, the only way out.
pub(super) struct Egress(Slot<Tunnels>);

struct Tunnels {
    link: ControlEnd<TunnelRequest, TunnelReply>,
    last: u64,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTunnel {
    /// Egress' decision or experience.
    #[error("{}", describe(.0))]
    Fault(EgressFault),
    /// Egress is not there, or out of step.
    #[error("egress does not answer")]
    NoEgress,
}

impl Egress {
    pub(super) fn new(relink: mpsc::UnboundedSender<Peer>) -> Self {
        Self(Slot::new(Peer::Egress, relink))
    }

    /// Uses this link from now on.
    pub(super) fn attach(&self, socket: UnixStream) -> io::Result<()> {
        socket.set_read_timeout(Some(OPEN_LIMIT))?;
        socket.set_write_timeout(Some(OPEN_LIMIT))?;
        self.0.attach(Tunnels {
            link: ControlEnd::new(socket),
            last: 0,
        });
        Ok(())
    }

    /// A connection to this host.
    pub(super) async fn open(&self, host: &str, port: u16) -> Result<UnixStream, NoTunnel> {
        let host = host.to_owned();
        let asked = self.0.ask(move |tunnels| tunnels.open(host, port)).await;
        let (answer, link) = asked.ok_or(NoTunnel::NoEgress)?;
        match answer {
            Ok(opened) => opened.map_err(NoTunnel::Fault),
            Err(error) => {
                self.0.give_up(&link, &error);
                Err(NoTunnel::NoEgress)
            }
        }
    }
}

impl Tunnels {
    fn open(
        &mut self,
        host: String,
        port: u16,
    ) -> Result<Result<UnixStream, EgressFault>, LinkError> {
        self.last += 1;
        self.link.send(&TunnelRequest::Open {
            id: self.last,
            host,
            port,
        })?;
        let out_of_order = |got| LinkError::OutOfOrder {
            expected: "opened or failed",
            got,
        };
        match self.link.receive()? {
            (TunnelReply::Opened { id }, Some(fd)) if id == self.last => Ok(Ok(fd.into())),
            (TunnelReply::Failed { id, fault }, _) if id == self.last => Ok(Err(fault)),
            (TunnelReply::Opened { .. }, _) => Err(out_of_order(
                "opened, of another request or without its socket",
            )),
            (TunnelReply::Failed { .. }, _) => Err(out_of_order("failed, of another request")),
        }
    }
}

fn describe(fault: &EgressFault) -> String {
    match fault {
        EgressFault::NotAllowed { reason } => format!("egress does not allow it: {reason}"),
        EgressFault::Unreachable { detail } => format!("it cannot be reached: {detail}"),
        EgressFault::CutOff => "the connection broke".to_owned(),
        EgressFault::Slow { seconds } => format!("no answer within {seconds} s"),
        EgressFault::TooLarge { bytes } => format!("over {bytes} bytes"),
        EgressFault::Protocol { detail } => detail.clone(),
        EgressFault::NoRecord => "the record does not take it; see `bulkhead status`".to_owned(),
    }
}

/// The vault.
pub(super) struct Vault {
    slot: Slot<VaultClient>,
    name: SecretName,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoToken {
    /// The vault's decision.
    #[error("{0}")]
    Refused(String),
    /// What the vault holds cannot be a token.
    #[error(
        "what the vault holds as {0} is not a bot token; put the right one in with `bulkhead vault rotate {0}`"
    )]
    NotAToken(SecretName),
    /// Nothing opens before the operator unlocks the vault.
    #[error("the vault is locked; it goes on after `bulkhead vault unlock`")]
    Locked,
    /// The vault is not there or does not answer.
    #[error("the vault does not answer")]
    NoVault,
}

impl Vault {
    pub(super) fn new(name: SecretName, relink: mpsc::UnboundedSender<Peer>) -> Self {
        Self {
            slot: Slot::new(Peer::Vault, relink),
            name,
        }
    }

    /// The name of the token.
    pub(super) fn name(&self) -> &SecretName {
        &self.name
    }

    /// Uses this link from now on.
    pub(super) fn attach(&self, socket: UnixStream) {
        self.slot.attach(VaultClient::new(socket));
    }

    /// The token as it is now.
    pub(super) async fn token(&self) -> Result<Token, NoToken> {
        let name = self.name.clone();
        let asked = self.slot.ask(move |vault| vault.open(&name)).await;
        let (answer, link) = asked.ok_or(NoToken::NoVault)?;
        match answer {
            Ok(text) => Token::parse(text).ok_or_else(|| NoToken::NotAToken(self.name.clone())),
            Err(VaultError::Refused(reason)) => Err(NoToken::Refused(reason)),
            Err(VaultError::Locked) => Err(NoToken::Locked),
            Err(VaultError::Link(error)) => {
                self.slot.give_up(&link, &error);
                Err(NoToken::NoVault)
            }
            Err(VaultError::OutOfStep { asked, got }) => {
                self.slot.give_up(
                    &link,
                    &LinkError::OutOfOrder {
                        expected: asked,
                        got,
                    },
                );
                Err(NoToken::NoVault)
            }
        }
    }
}
