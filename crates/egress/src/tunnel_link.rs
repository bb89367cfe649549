//! A channel's link. SECURITY: a channel's program reads what strangers send it; all it can
//! choose is which of its rules to use, and only so many at once.
//!
//! A tunnel is a socket that is handed over on this link.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::sync::mpsc as threads;
use std::time::Duration;

use protocol::egress::{EgressFault, TunnelReply, TunnelRequest};
use protocol::ids::ChannelId;
use protocol::outbound::HostName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::handed::{Handed, Queues, With};
use crate::sni;
use crate::tunnel::{IDLE, TunnelDoor, carry};
use outbound::address::Allowed;

/// Tunnels of one channel at a time.
const MAX_TUNNELS: usize = 64;

/// What may wait. A channel that leaves more replies unread loses its link.
const QUEUES: Queues = Queues {
    requests: 8,
    replies: 64,
};

/// How long a channel has to wait after a refusal, so that it cannot fill the record.
const PAUSE: Duration = Duration::from_millis(100);

type Reply = With<TunnelReply>;

/// One request, and what it takes to answer it.
struct Asked {
    door: Arc<TunnelDoor>,
    channel: ChannelId,
    id: u64,
    host: String,
    port: u16,
}

/// The channel does not read its replies.
struct Deaf;

/// Serves the link until either side ends it; the tunnels end with it.
pub(crate) async fn serve(door: Arc<TunnelDoor>, channel: ChannelId, stream: StdStream) {
    let mut link = match Handed::start(channel.to_string(), stream, QUEUES) {
        Ok(link) => link,
        Err(error) => return protocol::log!("bulkhead-egress: the link of {channel}: {error}"),
    };
    let replies = link.replies.clone();
    let free = Arc::new(Semaphore::new(MAX_TUNNELS));
    let mut tunnels = JoinSet::new();
    // A socket that comes along is closed: nobody asked for one.
    while let Some((TunnelRequest::Open { id, host, port }, _)) = link.requests.recv().await {
        while tunnels.try_join_next().is_some() {}
        let asked = Asked {
            door: Arc::clone(&door),
            channel: channel.clone(),
            id,
            host,
            port,
        };
        let allowed = match door.judge(&channel, &asked.host, port) {
            Ok(allowed) => allowed,
            Err(fault) => match asked.refuse(fault, &replies).await {
                Ok(()) => continue,
                Err(Deaf) => break,
            },
        };
        match Arc::clone(&free).try_acquire_owned() {
            Ok(seat) => {
                let replies = replies.clone();
                tunnels.spawn(async move {
                    // A deaf channel loses its link at the next request.
                    let _ = asked.run(&allowed, &replies).await;
                    drop(seat);
                });
            }
            Err(_) => {
                let reason = format!("{MAX_TUNNELS} tunnels are open; close one first");
                let fault = EgressFault::NotAllowed { reason };
                if asked.refuse(fault, &replies).await.is_err() {
                    break;
                }
            }
        }
    }
}

impl Asked {
    async fn run(
        &self,
        allowed: &Allowed,
        replies: &threads::SyncSender<Reply>,
    ) -> Result<(), Deaf> {
        let Self {
            door,
            channel,
            id,
            host,
            port,
        } = self;
        let tcp = match door.connect(channel, allowed, host, *port).await {
            Ok(tcp) => tcp,
            Err(fault) => return self.refuse(fault, replies).await,
        };
        match pair() {
            Ok((ours, theirs)) => {
                reply(replies, TunnelReply::Opened { id: *id }, Some(theirs))?;
                match self.begin(tcp, ours).await {
                    Ok((tcp, ours)) => carry(tcp, ours, IDLE).await,
                    Err(why) => door.refused(channel, host, *port, &why).await,
                }
                Ok(())
            }
            Err(error) => {
                let fault = EgressFault::Unreachable {
                    detail: error.to_string(),
                };
                reply(replies, TunnelReply::Failed { id: *id, fault }, None)
            }
        }
    }

    /// Holds what the channel says first against its rule: TLS for the host that the rule names, before a byte
    /// of it goes on. A server on this machine may speak in the clear.
    async fn begin(
        &self,
        mut tcp: TcpStream,
        mut ours: UnixStream,
    ) -> Result<(TcpStream, UnixStream), String> {
        if HostName::parse(&self.host).is_none() {
            return Ok((tcp, ours));
        }
        let hello = sni::receive(&mut ours).await;
        let named = hello.and_then(|(bytes, hello)| hello.asks_for(&self.host).map(|()| bytes));
        let bytes = named.map_err(|why| why.to_string())?;
        // A server that is gone is seen by the channel as it is.
        let _ = tcp.write_all(&bytes).await;
        Ok((tcp, ours))
    }

    /// Records it if it is a refusal, answers, and makes the channel wait.
    async fn refuse(
        &self,
        fault: EgressFault,
        replies: &threads::SyncSender<Reply>,
    ) -> Result<(), Deaf> {
        if let EgressFault::NotAllowed { reason } = &fault {
            self.door
                .refused(&self.channel, &self.host, self.port, reason)
                .await;
        }
        reply(replies, TunnelReply::Failed { id: self.id, fault }, None)?;
        sleep(PAUSE).await;
        Ok(())
    }
}

fn reply(
    replies: &threads::SyncSender<Reply>,
    frame: TunnelReply,
    socket: Option<OwnedFd>,
) -> Result<(), Deaf> {
    replies.try_send((frame, socket)).map_err(|_| Deaf)
}

/// A pair of sockets: ours for the runtime, theirs as a program expects one.
fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}
