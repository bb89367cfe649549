//! The proxy that a box sees at the one port of its loopback: each connection is judged by the rules that came
//! with the run, recorded, and carried to exactly the addresses that were judged.
//!
//! SECURITY: reads what programs in boxes write. All that they choose is a host and a port, and, where it is
//! inspected, a request; the rules are the runner's word. RFC 9110, 9.3.6.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use outbound::{
    Asked, AskedTunnel, Host, Refusal, RuleSet, Terms, Verdict, judge, judge_tunnel, says_all,
};
use protocol::egress::EgressFault;
use protocol::event::Event;
use protocol::ids::CallRef;
use protocol::outbound::{EgressRule, Inspect, Method, Subject};
use protocol::time::Millis;
use rustix::net::sockopt::set_tcp_congestion;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::boxes::authority::Authority;
use crate::boxes::copy::{End, Pipes, carry};
use crate::boxes::head::{Head, Reading};
use crate::boxes::inspect::{self, Origin};
use crate::budget::{Direction, Meter, Over, Spent};
use crate::dial;
use crate::leaks::Leaks;
use crate::record::{NotRecorded, Record};
use crate::sni;
use crate::tools::fetch::Rules;
use crate::tunnel::target;

/// How long a connection may carry nothing.
pub(crate) const IDLE: Duration = Duration::from_secs(600);
/// How long a program may take to say what it wants.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Connections of all boxes at a time.
const MAX_TUNNELS: usize = 1024;
/// Rows on their way to the record at the same time: fewer than its queue takes, so that none is lost.
const ROWS: usize = 32;
/// How long a program waits after a refusal, so that it cannot fill the record.
const PAUSE: Duration = Duration::from_millis(100);
/// After so many refusals nothing of the box is listened to any more.
const MAX_REFUSALS: u32 = 500;

/// What the ways out of all boxes have in common.
pub(crate) struct BoxDoor {
    /// All rules there are.
    owners: Rules,
    pub(crate) tls: TlsConnector,
    pub(crate) leaks: Leaks,
    record: Record,
    spent: Spent,
    pipes: Pipes,
    rows: Semaphore,
    seats: Semaphore,
}

impl BoxDoor {
    /// With the roots of this connector for what is inspected.
    pub(crate) fn new(
        tls: TlsConnector,
        (leaks, record): (Leaks, Record),
        (owners, spent): (Rules, Spent),
    ) -> Self {
        Self {
            owners,
            tls,
            leaks,
            record,
            spent,
            pipes: Pipes::default(),
            rows: Semaphore::new(ROWS),
            seats: Semaphore::new(MAX_TUNNELS),
        }
    }
}

/// The way out of one box.
pub(crate) struct Run {
    pub(crate) door: Arc<BoxDoor>,
    call: CallRef,
    rules: RuleSet,
    /// The programs that have rules, each once.
    subjects: Vec<Subject>,
    /// Who signs for the servers of inspected connections; none if no rule inspects.
    authority: Option<Authority>,
    tunnels: AtomicU64,
    refusals: AtomicU32,
    over: watch::Sender<bool>,
}

/// Why something does not go out.
#[derive(Debug)]
pub(crate) enum No {
    /// It is not allowed; this is recorded.
    Refused(String),
    /// It did not work out.
    Failed(u16, String),
}

impl From<EgressFault> for No {
    fn from(fault: EgressFault) -> Self {
        const BAD_GATEWAY: u16 = 502;
        match fault {
            EgressFault::NotAllowed { reason } => Self::Refused(reason),
            EgressFault::Unreachable { detail } | EgressFault::Protocol { detail } => {
                Self::Failed(BAD_GATEWAY, detail)
            }
            EgressFault::CutOff => Self::Failed(BAD_GATEWAY, "the server broke it off".to_owned()),
            EgressFault::Slow { seconds } => {
                Self::Failed(BAD_GATEWAY, format!("no answer in {seconds} s"))
            }
            EgressFault::TooLarge { bytes } => {
                Self::Failed(BAD_GATEWAY, format!("more than {bytes} bytes"))
            }
            EgressFault::NoRecord => NotRecorded.into(),
        }
    }
}

impl From<NotRecorded> for No {
    fn from(NotRecorded: NotRecorded) -> Self {
        const UNAVAILABLE: u16 = 503;
        let why = "the record did not take it, so it was not sent";
        Self::Failed(UNAVAILABLE, why.to_owned())
    }
}

impl From<Over> for No {
    fn from(over: Over) -> Self {
        Self::Refused(format!("its rule allows {over}"))
    }
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.to_string())
    }
}

impl Run {
    /// For the box of this call, with the rules that its permit has.
    pub(crate) fn new(
        door: Arc<BoxDoor>,
        call: CallRef,
        rules: Vec<EgressRule>,
    ) -> Result<Self, String> {
        if rules.is_empty() {
            return Err("a box without rules reaches nothing".to_owned());
        }
        let owners = door.owners.now();
        let mut subjects = Vec::new();
        for rule in &rules {
            // Whoever asks may be taken over; what a box may reach the owner has written.
            if !owners.rules().contains(rule) {
                return Err(format!("rule `{}` is not one of the owner's", rule.name));
            }
            match &rule.subject {
                subject @ Subject::Exec(_) if subjects.contains(subject) => {}
                subject @ Subject::Exec(_) => subjects.push(subject.clone()),
                Subject::Tool(_) | Subject::Channel(_) | Subject::Model => {
                    return Err(format!("rule `{}` is for no program in a box", rule.name));
                }
            }
        }
        let inspects = rules.iter().any(needs_a_look);
        Ok(Self {
            door,
            call,
            rules: RuleSet::new(rules).map_err(|error| error.to_string())?,
            subjects,
            authority: inspects.then(Authority::new).transpose()?,
            tunnels: AtomicU64::new(0),
            refusals: AtomicU32::new(0),
            over: watch::Sender::new(false),
        })
    }

    /// The certificate that the box is to trust, PEM; empty if nothing is inspected.
    pub(crate) fn authority(&self) -> &str {
        self.authority.as_ref().map_or("", Authority::pem)
    }

    /// Ends all of its connections.
    pub(crate) fn end(&self) {
        self.over.send_replace(true);
    }

    /// Waits for the end of the box.
    pub(crate) async fn ended(&self) {
        // The sender lives as long as this.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// A number for a connection.
    pub(crate) fn next_tunnel(&self) -> u64 {
        self.tunnels.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The call, for rows.
    pub(crate) fn call(&self) -> &CallRef {
        &self.call
    }

    /// Records what is about to happen.
    pub(crate) async fn before(&self, event: Event) -> Result<(), NotRecorded> {
        let _row = self.door.rows.acquire().await.map_err(|_| NotRecorded)?;
        self.door.record.append(&self.call.session, event).await
    }

    /// Records what has happened.
    pub(crate) async fn after(&self, event: Event) {
        let Ok(_row) = self.door.rows.acquire().await else {
            return;
        };
        let written = self.door.record.complete(&self.call.session, event).await;
        if written.is_err() {
            protocol::log!("bulkhead-egress: what a box did is not in the record");
        }
    }

    /// Records a refusal, and makes the program wait.
    pub(crate) async fn refused(&self, target: String, reason: &str) {
        let names: Vec<_> = self.subjects.iter().map(Subject::to_string).collect();
        self.after(Event::EgressRefused {
            subject: names.join(" "),
            target,
            reason: reason.to_owned(),
        })
        .await;
        if self.refusals.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_REFUSALS {
            self.end();
        }
        sleep(PAUSE).await;
    }

    /// The terms of the first program whose rules allow a connection. Programs of one box are not told apart.
    fn judge_tunnel(&self, host: &Host, port: u16) -> Result<Terms, No> {
        self.stand()?;
        let now = Millis::now();
        let mut strictest: Option<Terms> = None;
        let mut refusal = None;
        for subject in &self.subjects {
            let asked = AskedTunnel {
                subject,
                host,
                port,
                now,
            };
            match judge_tunnel(&self.rules, &asked) {
                Verdict::Allow(terms) => match &mut strictest {
                    // What is inspected for one of them is for all.
                    Some(strictest) if terms.inspect == Inspect::Yes => {
                        strictest.inspect = Inspect::Yes;
                    }
                    Some(_) => {}
                    None => strictest = Some(terms),
                },
                Verdict::Ask(..) => {}
                Verdict::Deny(why) => keep_telling(&mut refusal, why),
            }
        }
        let mut terms = strictest.ok_or_else(|| said(refusal))?;
        let rule = terms.rule.as_ref().and_then(|name| self.rules.rule(name));
        if rule.is_some_and(needs_a_look) {
            terms.inspect = Inspect::Yes;
        }
        Ok(terms)
    }

    /// The same for a request that was seen.
    pub(crate) fn judge(&self, method: Method, url: &outbound::Url) -> Result<Terms, No> {
        self.stand()?;
        let now = Millis::now();
        let mut refusal = None;
        for subject in &self.subjects {
            let asked = Asked {
                subject,
                method,
                url,
                // Programs of a box say by themselves what they carry.
                headers: 0,
                credential: None,
                now,
            };
            match judge(&self.rules, &asked) {
                Verdict::Allow(terms) => return Ok(terms),
                // Nobody is there to be asked: the question was put before the box was made.
                Verdict::Ask(..) => {}
                Verdict::Deny(why) => keep_telling(&mut refusal, why),
            }
        }
        Err(said(refusal))
    }

    /// Whether the owner still has the rules that the box was made with.
    fn stand(&self) -> Result<(), No> {
        let owners = self.door.owners.now();
        let gone = |rule: &&EgressRule| !owners.rules().contains(rule);
        match self.rules.rules().iter().find(gone) {
            None => Ok(()),
            Some(rule) => Err(No::Refused(format!("rule `{}` was taken back", rule.name))),
        }
    }

    /// The rule of these terms, and what is counted by it from now on.
    pub(crate) fn count_by(&self, terms: &Terms) -> Result<(&EgressRule, Meter), No> {
        let rule = terms.rule.as_ref().and_then(|name| self.rules.rule(name));
        let rule = rule.ok_or_else(|| No::Refused("no rule allows it".to_owned()))?;
        let spent = &self.door.spent;
        let meter = spent.begin(rule.name.as_str(), &rule.budgets, Millis::now())?;
        Ok((rule, meter))
    }

    /// The same for a tunnel; one that is inspected counts by its requests.
    fn count_tunnel(&self, terms: &Terms) -> Result<(&EgressRule, Meter), No> {
        let rule = match terms.inspect {
            Inspect::No => return self.count_by(terms),
            Inspect::Yes => terms.rule.as_ref().and_then(|name| self.rules.rule(name)),
        };
        let rule = rule.ok_or_else(|| No::Refused("no rule allows it".to_owned()))?;
        let spent = &self.door.spent;
        let meter = spent.uncounted(rule.name.as_str(), &rule.budgets, Millis::now())?;
        Ok((rule, meter))
    }
}

/// Whether a rule holds only where egress looks into a tunnel: it says so, or it names methods or places, which
/// is also said of what goes in the clear, and holds there without a tunnel.
fn needs_a_look(rule: &EgressRule) -> bool {
    rule.inspect == Inspect::Yes || !says_all(rule)
}

/// Of several refusals the one that says most: that of a rule for the host.
fn keep_telling(told: &mut Option<Refusal>, why: Refusal) {
    match told {
        None | Some(Refusal::NoRule { .. }) => *told = Some(why),
        Some(_) => {}
    }
}

fn said(refusal: Option<Refusal>) -> No {
    refusal.map_or_else(|| No::Refused("no rule allows it".to_owned()), No::from)
}

/// Where a connection is to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The host.
    pub(crate) host: Host,
    /// The port.
    pub(crate) port: u16,
}

impl Place {
    /// `HOST:PORT`, in the one form that it has.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "CONNECT names a host and a port, HOST:PORT".to_owned();
        let (host, digits) = text.rsplit_once(':').ok_or_else(wrong)?;
        let plain = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
        let port = digits.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
        let host = Host::parse(host).map_err(|error| error.to_string())?;
        Ok(Self { host, port })
    }

    /// The host without brackets.
    pub(crate) fn name(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        }
    }
}

/// Serves one connection of a box until it is over.
pub(crate) async fn serve(run: Arc<Run>, client: TcpStream) {
    // Small pieces go out as they come, and large ones are not paced, as some machines have it (BBR) for wires that
    // these bytes never see. Without either they come later, not wrong.
    let _ = client.set_nodelay(true);
    let _ = set_tcp_congestion(&client, "reno");
    let Ok(_seat) = run.door.seats.try_acquire() else {
        let mut client = client;
        let why = "too many connections of boxes are open; close some first";
        return answer(&mut client, 503, why).await;
    };
    let (reader, mut writer) = client.into_split();
    let mut reading = Reading::new(reader);
    let head = tokio::select! {
        head = timeout(HEAD_LIMIT, reading.head()) => head,
        () = run.ended() => return,
    };
    let head = match head {
        Ok(Ok(Some(head))) => head,
        // Nothing was asked.
        Ok(Ok(None)) | Err(_) => return,
        Ok(Err(bad)) => {
            run.refused("nothing that is a request".to_owned(), &bad.to_string())
                .await;
            return answer(&mut writer, 400, &bad.to_string()).await;
        }
    };
    if head.method != "CONNECT" {
        let number = run.next_tunnel();
        let ended = run.ended();
        let ways = (reading, writer);
        let serving = Box::pin(inspect::serve(
            &run,
            (number, Origin::Proxy),
            ways,
            Some(head),
        ));
        tokio::select! {
            _ = serving => {}
            () = ended => {}
        }
        return;
    }
    let client = reading.into_inner().map(|reader| reader.reunite(writer));
    match client {
        Ok(Ok(client)) => connect(&run, &head, client).await,
        // A program that does not wait for the answer gets none.
        Ok(Err(_)) | Err(_) => {
            let why = "something was sent before the answer to CONNECT";
            run.refused(target(&head.target, 0), why).await;
        }
    }
}

/// One tunnel.
async fn connect(run: &Run, head: &Head, mut client: TcpStream) {
    let opened = tokio::select! {
        opened = open(run, head) => opened,
        () = run.ended() => return,
    };
    let tunnel = match opened {
        Ok(tunnel) => tunnel,
        Err(No::Refused(reason)) => {
            run.refused(shown(&head.target), &reason).await;
            return answer(&mut client, 403, &reason).await;
        }
        Err(No::Failed(status, reason)) => return answer(&mut client, status, &reason).await,
    };
    let end = tokio::select! {
        end = tunnel.carry(run, client) => end,
        () = run.ended() => "its box is gone".to_owned(),
    };
    let (bytes_up, bytes_down) = tunnel.meter.total();
    let call = run.call();
    run.after(Event::BoxTunnelClosed {
        turn: call.turn,
        call: call.call,
        tunnel: tunnel.number,
        bytes_up,
        bytes_down,
        end,
    })
    .await;
}

/// What was asked for, as far as it can be shown.
fn shown(authority: &str) -> String {
    match authority.rsplit_once(':') {
        Some((host, port)) => target(host, port.parse().unwrap_or(0)),
        None => target(authority, 0),
    }
}

/// A tunnel that is in the record.
struct Tunnel {
    number: u64,
    place: Place,
    meter: Meter,
    leads: Leads,
}

/// Where it leads.
enum Leads {
    /// To the server.
    Through(TcpStream),
    /// To who looks into it.
    Inspected,
}

/// Judges a tunnel, records it, and connects it.
async fn open(run: &Run, head: &Head) -> Result<Tunnel, No> {
    let place = Place::parse(&head.target).map_err(No::Refused)?;
    let wrong = |bad: crate::boxes::head::Bad| No::Refused(bad.to_string());
    if let Some(host) = head.one("host").map_err(wrong)?
        && !host.eq_ignore_ascii_case(head.target.as_bytes())
    {
        return Err(No::Refused(
            "its Host header is not what CONNECT names".to_owned(),
        ));
    }
    let terms = run.judge_tunnel(&place.host, place.port)?;
    let (rule, meter) = run.count_tunnel(&terms)?;
    let number = run.next_tunnel();
    // A name that leads nowhere good is refused before anything is said to be open.
    let addresses = match terms.inspect {
        Inspect::No => dial::resolve(&terms.allowed, &place.name(), place.port).await?,
        // Each connection of the inspector is judged when it is made.
        Inspect::Yes => Vec::new(),
    };
    let call = run.call();
    run.before(Event::BoxTunnelOpened {
        turn: call.turn,
        call: call.call,
        tunnel: number,
        host: place.name(),
        port: place.port,
        rule: rule.name.clone(),
        inspected: terms.inspect == Inspect::Yes,
    })
    .await?;
    let mut tunnel = Tunnel {
        number,
        place,
        meter,
        leads: Leads::Inspected,
    };
    if terms.inspect == Inspect::No {
        match dial::connect(&addresses).await {
            Ok(server) => tunnel.leads = Leads::Through(server),
            Err(fault) => {
                run.after(Event::BoxTunnelClosed {
                    turn: call.turn,
                    call: call.call,
                    tunnel: number,
                    bytes_up: 0,
                    bytes_down: 0,
                    end: "no connection".to_owned(),
                })
                .await;
                return Err(fault.into());
            }
        }
    }
    Ok(tunnel)
}

impl Tunnel {
    /// Carries it to its end, which is told in words.
    async fn carry(&self, run: &Run, mut client: TcpStream) -> String {
        const OPEN: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
        if client.write_all(OPEN).await.is_err() {
            return "the program did not wait for it".to_owned();
        }
        let name = self.place.name();
        let hello = sni::receive(&mut client).await;
        let hello = hello.and_then(|(bytes, hello)| hello.asks_for(&name).map(|()| bytes));
        let bytes = match hello {
            Ok(bytes) => bytes,
            Err(why) => {
                let place = target(&name, self.place.port);
                run.refused(place, &why.to_string()).await;
                return why.to_string();
            }
        };
        match &self.leads {
            Leads::Through(server) => self.through(run, &client, server, bytes).await,
            // Its state is large; a tunnel that is not inspected has no room for it.
            Leads::Inspected => Box::pin(self.inspected(run, client, bytes)).await,
        }
    }

    async fn through(
        &self,
        run: &Run,
        client: &TcpStream,
        server: &TcpStream,
        first: Vec<u8>,
    ) -> String {
        let counted = self
            .meter
            .count(Direction::Up, first.len() as u64, Millis::now());
        if let Err(over) = counted {
            return End::from(over).to_string();
        }
        if write_all(server, &first).await.is_err() {
            return "the server broke it off".to_owned();
        }
        drop(first);
        let ways = (&run.door.pipes, IDLE);
        carry(client, server, &self.meter, ways).await.to_string()
    }

    async fn inspected(&self, run: &Run, client: TcpStream, first: Vec<u8>) -> String {
        let name = self.place.name();
        let config = run
            .authority
            .as_ref()
            .ok_or_else(|| "nobody signs for the server".to_owned())
            .and_then(|authority| authority.server(&name));
        let config = match config {
            Ok(config) => config,
            Err(why) => return why,
        };
        let (reader, writer) = client.into_split();
        let replayed = std::io::Cursor::new(first).chain(reader);
        let stream = tokio::io::join(replayed, writer);
        let agreed = timeout(HEAD_LIMIT, TlsAcceptor::from(config).accept(stream)).await;
        let stream = match agreed {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) => return "the program did not take the certificate of its box".to_owned(),
            Err(_) => return "the program did not agree on TLS in time".to_owned(),
        };
        let (reader, writer) = tokio::io::split(stream);
        let origin = Origin::Tls(self.place.clone());
        let ways = (Reading::new(reader), writer);
        let total = inspect::serve(run, (self.number, origin), ways, None).await;
        // What the requests carried counts by the request; the tunnel tells their sum.
        self.meter.told(total);
        "its requests are over".to_owned()
    }
}

/// tokio has no writing to a shared connection.
async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Says why there is nothing more, and closes.
pub(crate) async fn answer(to: &mut (impl AsyncWrite + Unpin), status: u16, reason: &str) {
    let phrase = match status {
        400 => "Bad Request",
        403 => "Forbidden",
        413 => "Content Too Large",
        502 => "Bad Gateway",
        _ => "Service Unavailable",
    };
    let text = format!("bulkhead: {reason}\n");
    let whole = format!(
        "HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    // Who does not wait for it knows already.
    let _ = to.write_all(whole.as_bytes()).await;
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_names_a_host_and_a_port_in_one_form() {
        let place = Place::parse("Api.Example.com:443").unwrap();
        assert_eq!(
            (place.name().as_str(), place.port),
            ("api.example.com", 443)
        );
        assert_eq!(Place::parse("[::1]:443").unwrap().name(), "::1");
        for text in [
            "example.com",
            "example.com:",
            "example.com:0",
            "example.com:0443",
            "example.com:+443",
            "example.com:65536",
            "example.com:443/",
            "example.com.:443",
            "user@example.com:443",
            "https://example.com:443",
            "2130706433:443",
            "0x7f.1:443",
            "::1:443",
            "[fe80::1%eth0]:443",
            ":443",
            "exa mple.com:443",
            "%65xample.com:443",
        ] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
