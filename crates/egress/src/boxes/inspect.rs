//! Requests of programs in a box that egress looks into: each is judged by method and whole path, recorded, and
//! then made by egress itself, over a connection of its own to the real server.
//!
//! What goes on is written anew from what was read, so that there is one reading of it. HTTP/1.1 towards the
//! program (RFC 9112), nothing else on the same connection.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body as HyperBody, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use outbound::{Terms, Url};
use protocol::event::Event;
use protocol::outbound::Method;
use protocol::time::Millis;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::boxes::forward::{IDLE, No, Place, Run, answer};
use crate::boxes::head::{Bad, Framing, Head, Reading, Version, is_of_one_hop};
use crate::boxes::upload::{Upload, found};
use crate::budget::{Direction, Meter};
use crate::dial;
use crate::leaks::{Stopped, Where};
use crate::looked::{essence_of_address, head_text};
use crate::tunnel::target;
use outbound::headers;

/// How long a server may take to agree on TLS.
const AGREE: Duration = Duration::from_secs(10);
/// How long an answer may take to begin.
const ANSWER: Duration = Duration::from_secs(120);
/// The longest head of an answer.
const MAX_HEAD: usize = 64 * 1024;

/// Whose requests come over a connection.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// Of a program that asked for a tunnel to this place and speaks TLS in it.
    Tls(Place),
    /// Of a program that asks the proxy, in the clear; each request says where it goes.
    Proxy,
}

impl Origin {
    /// Where a request goes, if its target and its Host header say the same.
    fn url(&self, head: &Head) -> Result<Url, String> {
        let words = |error: outbound::BadUrl| error.to_string();
        let host = head.one("host").map_err(|bad| bad.to_string())?;
        let host = host.ok_or("it has no Host header")?;
        let host = std::str::from_utf8(host).map_err(|_| "its Host header is none")?;
        let (url, scheme) = match self {
            Self::Tls(place) => {
                if !head.target.starts_with('/') {
                    return Err("its target is no path".to_owned());
                }
                let url = format!("https://{}:{}{}", place.host, place.port, head.target);
                (Url::parse(&url).map_err(words)?, "https")
            }
            Self::Proxy => {
                if !head.target.starts_with("http://") {
                    return Err("a proxy is asked for http://HOST/PATH, or by CONNECT".to_owned());
                }
                (Url::parse(&head.target).map_err(words)?, "http")
            }
        };
        let named = Url::parse(&format!("{scheme}://{host}/")).map_err(words)?;
        match named.is_same_origin(&url) && !host.contains(['/', '?', '#']) {
            true => Ok(url),
            false => Err("its Host header names another host than it goes to".to_owned()),
        }
    }
}

/// Whether another request may follow on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Next,
    Close,
}

/// Serves the requests of one connection, and says how many bytes they carried up and down.
pub(crate) async fn serve<R, W>(
    run: &Run,
    (tunnel, origin): (u64, Origin),
    (mut reading, mut writer): (Reading<R>, W),
    mut first: Option<Head>,
) -> (u64, u64)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut served = Served {
        run,
        tunnel,
        origin,
        server: None,
        number: 0,
        total: (0, 0),
    };
    loop {
        let head = match first.take() {
            Some(head) => Ok(Some(head)),
            None => timeout(IDLE, reading.head()).await.unwrap_or(Ok(None)),
        };
        let after = match head {
            Ok(Some(head)) => served.one(&head, &mut reading, &mut writer).await,
            Ok(None) => break,
            Err(bad) => {
                let no = No::Refused(bad.to_string());
                served.refuse(no, "", (&mut reading, &mut writer)).await;
                After::Close
            }
        };
        match after {
            After::Next => {}
            After::Close => break,
        }
    }
    // A program that is not told closes in its own time.
    let _ = writer.shutdown().await;
    served.total
}

/// A connection of a box whose requests are looked into.
struct Served<'a> {
    run: &'a Run,
    tunnel: u64,
    origin: Origin,
    /// The connection to the server of the last request.
    server: Option<Server>,
    number: u64,
    total: (u64, u64),
}

/// A request that may go out.
struct Wanted {
    url: Url,
    method: Method,
    framing: Framing,
    terms: Terms,
    meter: Meter,
    after: After,
    waits: bool,
    version: Version,
    /// Bytes that its rule allows in a body.
    most_up: u64,
}

impl Served<'_> {
    async fn one<R, W>(&mut self, head: &Head, reading: &mut Reading<R>, writer: &mut W) -> After
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        self.number += 1;
        let admitted = match self.judge(head) {
            Ok(wanted) => self.look(head, &wanted).await.map(|it| (wanted, it)),
            Err(no) => Err(no),
        };
        let (wanted, upload) = match admitted {
            Ok(admitted) => admitted,
            Err(no) => {
                self.refuse(no, &head.target, (reading, writer)).await;
                return After::Close;
            }
        };
        let recorded = self.run.before(self.row(&wanted)).await;
        if let Err(not) = recorded {
            self.refuse(not.into(), &head.target, (reading, writer))
                .await;
            return After::Close;
        }
        let mut told = Told::default();
        let after = self
            .exchange((head, upload), &wanted, (reading, writer), &mut told)
            .await;
        let (bytes_up, bytes_down) = wanted.meter.total();
        self.total.0 += bytes_up;
        self.total.1 += bytes_down;
        let call = self.run.call();
        self.run
            .after(Event::BoxResponse {
                turn: call.turn,
                call: call.call,
                tunnel: self.tunnel,
                request: self.number,
                status: told.status,
                bytes_up,
                bytes_down,
                fault: told.fault,
            })
            .await;
        after
    }

    fn judge(&self, head: &Head) -> Result<Wanted, No> {
        let bad = |bad: Bad| No::Refused(bad.to_string());
        let url = self.origin.url(head).map_err(No::Refused)?;
        let after = match head.keeps_alive().map_err(bad)? {
            true => After::Next,
            false => After::Close,
        };
        let waits = head.waits().map_err(bad)?;
        let framing = head.framing().map_err(bad)?;
        if let Some((name, _)) = head.lasting().find(|(name, _)| headers::says_another(name)) {
            let why = format!("`{name}` can make another request of it than its rule allows");
            return Err(No::Refused(why));
        }
        let method = head.method.parse::<Method>();
        let method = method.map_err(|error| No::Refused(error.to_string()))?;
        let terms = self.run.judge(method, &url)?;
        let (rule, meter) = self.run.count_by(&terms)?;
        let most = rule.budgets.upload.bytes();
        match framing {
            Framing::Length(length) if length > most => {
                return Err(No::Refused(format!("its rule allows {most} bytes up")));
            }
            Framing::Length(_) | Framing::Chunked => {}
        }
        Ok(Wanted {
            url,
            method,
            framing,
            terms,
            meter,
            after,
            waits,
            version: head.version,
            most_up: most,
        })
    }

    /// Looks for secrets in the head of a request, and gives what looks through its body.
    async fn look(&self, head: &Head, wanted: &Wanted) -> Result<Upload, No> {
        let session = &self.run.call().session;
        let rule = wanted.terms.rule.as_ref();
        let in_address = |stopped| found(stopped, "its address", rule);
        let look = self.run.door.leaks.look(session, Where::Box).await;
        let mut look = look.map_err(in_address)?;
        let address = wanted.url.to_string().len();
        let in_head = |stopped| match &stopped {
            Stopped::Found(findings) if findings.iter().all(|it| it.start > address) => {
                found(stopped, "its headers", rule)
            }
            _ => in_address(stopped),
        };
        let text = head_text(&wanted.url, head.lasting());
        wanted.meter.count_head(text.len() as u64, Millis::now())?;
        look.at(text).await.map_err(in_head)?;
        if wanted.framing == Framing::Length(0) {
            // Where nothing else follows, a piece of a secret may be here.
            let piece = essence_of_address(&wanted.url);
            look.after(piece).await.map_err(in_address)?;
        }
        let most = wanted.most_up;
        Upload::new(head, (look, rule.cloned()), (wanted.framing, most))
    }

    fn row(&self, wanted: &Wanted) -> Event {
        let call = self.run.call();
        let Wanted { url, terms, .. } = wanted;
        Event::BoxRequest {
            turn: call.turn,
            call: call.call,
            tunnel: self.tunnel,
            request: self.number,
            method: wanted.method.to_string(),
            url: format!(
                "{}://{}{}",
                url.scheme().as_str(),
                url.authority(),
                url.path()
            ),
            // What is not allowed by a rule does not get here.
            rule: terms
                .rule
                .clone()
                .expect("count_by refuses terms without a rule"),
        }
    }

    /// Says why it does not go out, and records that if it is a refusal. The rest of the request is not read
    /// but for a little, so that the program sees the answer.
    async fn refuse<R, W>(&self, no: No, wanted: &str, (reading, writer): (&mut Reading<R>, &mut W))
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (status, reason) = match no {
            No::Refused(reason) => {
                let place = match &self.origin {
                    Origin::Tls(place) => target(&place.name(), place.port),
                    Origin::Proxy => Url::parse(wanted).map_or_else(
                        |_| "something that is no address".to_owned(),
                        |url| url.authority(),
                    ),
                };
                self.run.refused(place, &reason).await;
                (403, reason)
            }
            No::Failed(status, reason) => (status, reason),
        };
        answer(writer, status, &reason).await;
        reading.drain().await;
    }

    async fn exchange<R, W>(
        &mut self,
        (head, upload): (&Head, Upload),
        wanted: &Wanted,
        (reading, writer): (&mut Reading<R>, &mut W),
        told: &mut Told,
    ) -> After
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let answered = self.ask((head, upload), wanted, reading, writer).await;
        let (response, body) = match answered {
            Ok(answered) => answered,
            Err(no) => {
                self.server = None;
                told.fault = Some(no.words().to_owned());
                self.refuse(no, &head.target, (reading, writer)).await;
                return After::Close;
            }
        };
        told.status = response.status().as_u16();
        // Of a body that was not wanted the rest would be taken for the next request.
        let after = match body {
            Sent::Whole => wanted.after,
            Sent::Part => After::Close,
        };
        match pass_on(response, wanted, after, writer).await {
            Ok(()) => after,
            Err(why) => {
                self.server = None;
                told.fault = Some(why);
                After::Close
            }
        }
    }

    /// Sends the request, and waits for the head of the answer.
    async fn ask<R, W>(
        &mut self,
        (head, mut upload): (&Head, Upload),
        wanted: &Wanted,
        reading: &mut Reading<R>,
        writer: &mut W,
    ) -> Result<(Response<Incoming>, Sent), No>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (pieces, body) = Sending::new(wanted.framing);
        let request = request(head, wanted, body)?;
        if wanted.waits && writer.write_all(CONTINUE).await.is_err() {
            return Err(No::Failed(400, "the program did not wait".to_owned()));
        }
        // Of a short body that holds a secret, the server hears nothing.
        let first = upload.next(reading).await?;
        let server = self.server_for(wanted).await?;
        let mut answer = pin!(timeout(ANSWER, server.sender.send_request(request)));
        let mut sending = pin!(send((first, upload), reading, &wanted.meter, pieces));
        let mut sent = Sent::Part;
        loop {
            tokio::select! {
                biased;
                // First, as it knows why the server's side broke, if it was broken off here.
                done = &mut sending, if sent == Sent::Part => {
                    done?;
                    sent = Sent::Whole;
                }
                answered = &mut answer => {
                    let slow = || No::Failed(502, format!("no answer in {} s", ANSWER.as_secs()));
                    let answered = answered.map_err(|_| slow())?;
                    let broken = |_| No::Failed(502, "the server broke it off".to_owned());
                    return Ok((answered.map_err(broken)?, sent));
                }
            }
        }
    }

    /// The connection to the server of this request: the last one, if it leads there and is still open.
    async fn server_for(&mut self, wanted: &Wanted) -> Result<&mut Server, No> {
        let usable = match &mut self.server {
            Some(server) if server.url.is_same_origin(&wanted.url) => {
                server.sender.ready().await.is_ok()
            }
            Some(_) | None => false,
        };
        if !usable {
            self.server = None;
            self.server = Some(Server::connect(self.run, wanted).await?);
        }
        self.server
            .as_mut()
            .ok_or_else(|| No::Failed(502, "no connection".to_owned()))
    }
}

/// Whether all of a request's body was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Part,
    Whole,
}

/// What came of a request.
#[derive(Default)]
struct Told {
    status: u16,
    fault: Option<String>,
}

impl No {
    fn words(&self) -> &str {
        match self {
            Self::Refused(reason) | Self::Failed(_, reason) => reason,
        }
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A connection of egress to a real server.
struct Server {
    url: Url,
    sender: SendRequest<Sending>,
    /// Ends with this, and closes the connection with it.
    _driver: JoinSet<()>,
}

impl Server {
    async fn connect(run: &Run, wanted: &Wanted) -> Result<Self, No> {
        let (url, terms) = (&wanted.url, &wanted.terms);
        let place = Place {
            host: url.host().clone(),
            port: url.port(),
        };
        let name = place.name();
        let addresses = dial::resolve(&terms.allowed, &name, place.port).await?;
        let tcp = dial::connect(&addresses).await?;
        if !url.scheme().is_tls() {
            return Self::over(url, tcp).await;
        }
        let failed = |detail: String| No::Failed(502, format!("TLS with the server: {detail}"));
        let name = ServerName::try_from(name).map_err(|error| failed(error.to_string()))?;
        let tls = timeout(AGREE, run.door.tls.connect(name, tcp)).await;
        let tls = tls.map_err(|_| failed(format!("no answer in {} s", AGREE.as_secs())))?;
        Self::over(url, tls.map_err(|error| failed(error.to_string()))?).await
    }

    async fn over(
        url: &Url,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, No> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let shaken = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) =
            shaken.map_err(|_| No::Failed(502, "the server broke it off".to_owned()))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // How it ends is told by what was asked over it.
            let _ = connection.await;
        });
        Ok(Self {
            url: url.clone(),
            sender,
            _driver: driver,
        })
    }
}

fn request(head: &Head, wanted: &Wanted, body: Sending) -> Result<Request<Sending>, No> {
    let unsendable = || No::Refused("a header cannot be sent on".to_owned());
    let method = hyper::Method::from_bytes(wanted.method.as_str().as_bytes());
    let mut request = Request::new(body);
    *request.method_mut() = method.map_err(|_| unsendable())?;
    *request.uri_mut() = wanted.url.target().parse().map_err(|_| unsendable())?;
    let headers = request.headers_mut();
    let host = HeaderValue::try_from(wanted.url.authority()).map_err(|_| unsendable())?;
    headers.insert(HOST, host);
    for (name, value) in head.lasting() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unsendable())?;
        let value = HeaderValue::from_bytes(value).map_err(|_| unsendable())?;
        headers.append(name, value);
    }
    Ok(request)
}

/// Sends the body of a request on as it is let through.
async fn send<R: AsyncRead + Unpin>(
    (first, mut upload): (Option<Vec<u8>>, Upload),
    reading: &mut Reading<R>,
    meter: &Meter,
    pieces: mpsc::Sender<Result<Bytes, CutOff>>,
) -> Result<(), No> {
    let mut next = Ok(first);
    loop {
        let piece = next.and_then(|piece| {
            let bytes = piece.as_ref().map_or(0, |piece| piece.len() as u64);
            meter.count(Direction::Up, bytes, Millis::now())?;
            Ok(piece)
        });
        match piece {
            Ok(None) => return Ok(()),
            // A server that wants no more says so in its answer.
            Ok(Some(piece)) => drop(pieces.send(Ok(piece.into())).await),
            Err(no) => {
                let _ = pieces.send(Err(CutOff)).await;
                return Err(no);
            }
        }
        next = upload.next(reading).await;
    }
}

/// A body that is sent as it comes.
struct Sending {
    pieces: mpsc::Receiver<Result<Bytes, CutOff>>,
    /// None if it is not known before.
    left: Option<u64>,
}

/// The program broke off, so the request is broken off too.
#[derive(Debug, thiserror::Error)]
#[error("cut off")]
struct CutOff;

impl Sending {
    fn new(framing: Framing) -> (mpsc::Sender<Result<Bytes, CutOff>>, Self) {
        let (sender, pieces) = mpsc::channel(1);
        let left = match framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        };
        (sender, Self { pieces, left })
    }
}

impl HyperBody for Sending {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(Ok(piece)) => {
                self.left = self
                    .left
                    .map(|left| left.saturating_sub(piece.len() as u64));
                Some(Ok(Frame::data(piece)))
            }
            Some(Err(cut)) => Some(Err(cut)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// How the body of an answer is framed for the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frames {
    None,
    Length(u64),
    Chunks,
    UntilClose,
}

/// Passes an answer on as it comes; the words say what broke.
async fn pass_on<W: AsyncWrite + Unpin>(
    response: Response<Incoming>,
    wanted: &Wanted,
    after: After,
    writer: &mut W,
) -> Result<(), String> {
    let gone = |_| "the program broke it off".to_owned();
    let status = response.status();
    if status.is_informational() {
        answer(writer, 502, "the server speaks another protocol").await;
        return Err("the server speaks another protocol".to_owned());
    }
    let bodiless = wanted.method == Method::Head || matches!(status.as_u16(), 204 | 304);
    let frames = match (response.body().size_hint().exact(), wanted.version) {
        _ if bodiless => Frames::None,
        (Some(length), _) => Frames::Length(length),
        (None, Version::Eleven) => Frames::Chunks,
        (None, Version::Ten) => Frames::UntilClose,
    };
    let head = answer_head(&response, frames, after);
    writer.write_all(&head).await.map_err(gone)?;
    let mut body = response.into_body();
    loop {
        let frame = timeout(IDLE, body.frame()).await;
        let frame = frame.map_err(|_| "the server stood still".to_owned())?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| "the server broke it off".to_owned())?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        if piece.is_empty() {
            continue;
        }
        let counted = wanted
            .meter
            .count(Direction::Down, piece.len() as u64, Millis::now());
        counted.map_err(|over| No::from(over).words().to_owned())?;
        write_piece(writer, frames, &piece).await.map_err(gone)?;
    }
    if frames == Frames::Chunks {
        writer.write_all(b"0\r\n\r\n").await.map_err(gone)?;
    }
    writer.flush().await.map_err(gone)?;
    match frames {
        Frames::UntilClose => Err("it ends with the connection".to_owned()),
        Frames::None | Frames::Length(_) | Frames::Chunks => Ok(()),
    }
}

async fn write_piece<W: AsyncWrite + Unpin>(
    writer: &mut W,
    frames: Frames,
    piece: &[u8],
) -> std::io::Result<()> {
    match frames {
        Frames::Chunks => {
            writer
                .write_all(format!("{:x}\r\n", piece.len()).as_bytes())
                .await?;
            writer.write_all(piece).await?;
            writer.write_all(b"\r\n").await
        }
        Frames::None | Frames::Length(_) | Frames::UntilClose => writer.write_all(piece).await,
    }
}

/// The library has checked that no header holds the end of a line.
fn answer_head(response: &Response<Incoming>, frames: Frames, after: After) -> Vec<u8> {
    let status = response.status();
    let phrase = status.canonical_reason().unwrap_or("-");
    let mut head = format!("HTTP/1.1 {} {phrase}\r\n", status.as_u16()).into_bytes();
    let mut line = |name: &str, value: &[u8]| {
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    };
    for (name, value) in response.headers() {
        let framed = name.as_str() == "content-length" && frames != Frames::None;
        if !is_of_one_hop(name.as_str()) && !framed {
            line(name.as_str(), value.as_bytes());
        }
    }
    match frames {
        Frames::None | Frames::UntilClose => {}
        Frames::Length(length) => line("content-length", length.to_string().as_bytes()),
        Frames::Chunks => line("transfer-encoding", b"chunked"),
    }
    if after == After::Close || frames == Frames::UntilClose {
        line("connection", b"close");
    }
    head.extend_from_slice(b"\r\n");
    head
}
