//! One tunnel: which host a channel may have, and the bytes both ways.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use protocol::control::TunnelRule;
use protocol::egress::EgressFault;
use protocol::event::Event;
use protocol::ids::ChannelId;
use protocol::record::system_session;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep_until};

use crate::dial;
use crate::record::Record;
use outbound::address::Allowed;

/// How long a tunnel may carry nothing.
pub(crate) const IDLE: Duration = Duration::from_secs(600);

/// Bytes read at once in each direction.
const BUFFER: usize = 16 * 1024;

/// The longest name of a host in bytes (RFC 1035).
const MAX_HOST: usize = 253;

/// What channels may reach.
pub(crate) struct TunnelDoor {
    pub(crate) rules: Vec<TunnelRule>,
    pub(crate) record: Record,
}

impl TunnelDoor {
    /// What the rules allow for this host, which has to stand in one of them as it is.
    pub(crate) fn judge(
        &self,
        channel: &ChannelId,
        host: &str,
        port: u16,
    ) -> Result<Allowed, EgressFault> {
        let mut rules = self.rules.iter();
        let fits =
            |rule: &TunnelRule| rule.channel == *channel && rule.host == host && rule.port == port;
        if !rules.any(fits) {
            let reason = format!("no rule lets the channel `{channel}` reach it");
            return Err(EgressFault::NotAllowed { reason });
        }
        Allowed::by_rule(host).map_err(|refusal| EgressFault::NotAllowed {
            reason: refusal.to_string(),
        })
    }

    /// Connects, after the record has taken it.
    pub(crate) async fn connect(
        &self,
        channel: &ChannelId,
        allowed: &Allowed,
        host: &str,
        port: u16,
    ) -> Result<TcpStream, EgressFault> {
        let addresses = dial::resolve(allowed, host, port).await?;
        let event = Event::TunnelOpened {
            channel: channel.clone(),
            host: host.to_owned(),
            port,
        };
        let recorded = self.record.append(&system_session(), event).await;
        recorded.map_err(|_| EgressFault::NoRecord)?;
        dial::connect(&addresses).await
    }

    /// Records a refusal.
    pub(crate) async fn refused(&self, channel: &ChannelId, host: &str, port: u16, why: &str) {
        let event = Event::EgressRefused {
            subject: format!("channel:{channel}"),
            target: target(host, port),
            reason: why.to_owned(),
        };
        if self
            .record
            .complete(&system_session(), event)
            .await
            .is_err()
        {
            protocol::log!("bulkhead-egress: a refused tunnel of {channel} is not in the record");
        }
    }
}

/// What was asked for, as far as it can be a host.
pub(crate) fn target(host: &str, port: u16) -> String {
    let plain = host.len() <= MAX_HOST && host.bytes().all(|byte| byte.is_ascii_graphic());
    if plain {
        format!("{host}:{port}")
    } else {
        "something that is no host name".to_owned()
    }
}

/// Carries bytes both ways until both sides have ended, one of them breaks, or nothing came
/// for as long as `idle`. The end of one direction is passed on and leaves the other open.
pub(crate) async fn carry(mut tcp: TcpStream, mut unix: UnixStream, idle: Duration) {
    let (tcp_in, tcp_out) = tcp.split();
    let (unix_in, unix_out) = unix.split();
    let last = LastByte::default();
    let both =
        async { tokio::try_join!(pump(tcp_in, unix_out, &last), pump(unix_in, tcp_out, &last)) };
    tokio::select! {
        // Whether it broke or ended, both sides are closed now.
        _ = both => {}
        () = silence(&last, idle) => {}
    }
}

/// When something last came through.
pub(crate) struct LastByte(Mutex<Instant>);

impl Default for LastByte {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl LastByte {
    pub(crate) fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn when(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    last: &LastByte,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let got = from.read(&mut buffer).await?;
        last.now();
        if got == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..got]).await?;
        last.now();
    }
}

pub(crate) async fn silence(last: &LastByte, idle: Duration) {
    loop {
        let end = last.when() + idle;
        if end <= Instant::now() {
            return;
        }
        sleep_until(end).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[test]
    fn only_the_exact_rule_of_the_channel_fits() {
        let name = |text: &str| ChannelId::parse(text).unwrap();
        let rule = |channel, host: &str, port| TunnelRule {
            channel: name(channel),
            host: host.to_owned(),
            port,
        };
        let rules = vec![
            rule("telegram", "api.telegram.org", 443),
            rule("telegram", "127.0.0.1", 8081),
            rule("telegram", "10.0.0.1", 443),
        ];
        let door = TunnelDoor {
            rules,
            record: Record::new(),
        };
        let judge = |channel, host, port| door.judge(&name(channel), host, port);
        assert_eq!(
            judge("telegram", "api.telegram.org", 443),
            Ok(Allowed::Public)
        );
        assert!(judge("telegram", "127.0.0.1", 8081).is_ok());
        for (channel, host, port) in [
            ("matrix", "api.telegram.org", 443),
            ("telegram", "api.telegram.org", 80),
            ("telegram", "api.telegram.org.", 443),
            ("telegram", "x.api.telegram.org", 443),
            ("telegram", "API.telegram.org", 443),
            ("telegram", "127.0.0.2", 8081),
            ("telegram", "localhost", 8081),
            ("telegram", "10.0.0.1", 443),
            ("telegram", "", 443),
        ] {
            assert!(
                judge(channel, host, port).is_err(),
                "{channel} {host}:{port}"
            );
        }
    }

    #[test]
    fn what_is_no_host_is_not_written_down() {
        assert_eq!(target("a.b", 1), "a.b:1");
        for odd in ["a\nb", "a b", "é", &"x".repeat(254)] {
            assert_eq!(target(odd, 1), "something that is no host name");
        }
    }

    #[tokio::test]
    async fn a_tunnel_without_bytes_ends() {
        let (tcp, mut far) = tcp_pair().await;
        let (unix, mut near) = UnixStream::pair().unwrap();
        let start = Instant::now();
        let carrying = carry(tcp, unix, Duration::from_millis(300));
        let talking = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(150)).await;
                near.write_all(b"x").await.unwrap();
                far.read_exact(&mut [0]).await.unwrap();
            }
        };
        tokio::join!(carrying, talking);
        assert!(
            start.elapsed() >= Duration::from_millis(850),
            "it ended while bytes came"
        );
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    }
}
