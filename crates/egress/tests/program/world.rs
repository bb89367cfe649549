//! A network of the test's own: a namespace in which addresses that look public are on its
//! loopback, a resolver that answers what an attacker wants, and TLS servers of an own authority.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Two addresses that look public, and three that a request must never reach.
pub(crate) const ONE: &str = "93.184.216.34";
pub(crate) const TWO: &str = "93.184.216.35";
pub(crate) const INSIDE: [&str; 3] = ["10.11.12.13", "169.254.169.254", "100.64.0.1"];

/// What says that this process is in the namespace already.
const MARK: &str = "BULKHEAD_TEST_IN_NAMESPACE";

const SCRIPT: &str = r#"
set -e
ip link set lo up
for address in 93.184.216.34 93.184.216.35 10.11.12.13 169.254.169.254 100.64.0.1; do
    ip address add "$address/32" dev lo
done
mount --bind "$1" /etc/resolv.conf
exec "$2" --exact "$3" --nocapture
"#;

/// Runs this test once more in a namespace of its own, and there `body`. It takes unshare(1)
/// and ip(8); whoever is not root gets a user namespace with it.
pub(crate) fn in_namespace(test: &str, body: impl FnOnce(&World)) {
    if std::env::var_os(MARK).is_some() {
        return body(&World::new());
    }
    let folder = tempfile::tempdir().unwrap();
    let resolv = folder.path().join("resolv.conf");
    std::fs::write(
        &resolv,
        "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n",
    )
    .unwrap();
    let mut command = Command::new("unshare");
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if !root {
        command.args(["--user", "--map-root-user"]);
    }
    command.args([
        "--net",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        SCRIPT,
        "sh",
    ]);
    command
        .arg(&resolv)
        .arg(std::env::current_exe().unwrap())
        .arg(test);
    let output = command.env(MARK, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "in its namespace `{test}` failed:\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The network.
pub(crate) struct World {
    runtime: Handle,
    authority: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub(crate) root: String,
    names: Names,
}

/// What the resolver answers.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<HashMap<String, Answers>>>);

#[derive(Default)]
struct Answers {
    /// One list after the other; the last one stays.
    lists: Vec<Vec<IpAddr>>,
    /// How often IPv4 and IPv6 addresses were asked for.
    asked: (usize, usize),
}

/// How a server presents itself.
#[derive(Clone, Copy)]
pub(crate) enum Tls<'a> {
    /// Not at all.
    None,
    /// With a certificate for this name, good or not, and these protocols.
    For(&'a str, Certificate, &'a [&'a str]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificate {
    Good,
    Expired,
    OfNobody,
}

pub(crate) const H1: &[&str] = &["http/1.1"];
pub(crate) const H2: &[&str] = &["h2", "http/1.1"];

/// What a server was asked.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What it answers.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Sent,
}

/// A body.
pub(crate) enum Sent {
    Whole(Vec<u8>),
    /// It never ends.
    Endless,
    /// It never begins.
    Never,
}

impl Reply {
    pub(crate) fn text(text: &str) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", "text/plain".to_owned())],
            body: Sent::Whole(text.as_bytes().to_vec()),
        }
    }

    pub(crate) fn to(status: u16, location: &str) -> Self {
        Self {
            status,
            headers: vec![("location", location.to_owned())],
            body: Sent::Whole(Vec::new()),
        }
    }
}

impl World {
    fn new() -> Self {
        let (send, receive) = channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            send.send(runtime.handle().clone()).unwrap();
            runtime.block_on(std::future::pending::<()>());
        });
        let names = Names::default();
        names.serve();
        let authority = authority();
        let root = authority.1;
        Self {
            runtime: receive.recv().unwrap(),
            authority: authority.0,
            root,
            names,
        }
    }

    /// From now on the name has these addresses; a further list counts from the next question on.
    pub(crate) fn name(&self, name: &str, lists: &[&[&str]]) {
        let lists = lists.iter().map(|list| {
            let addresses = list.iter().map(|address| address.parse().unwrap());
            addresses.collect()
        });
        let answers = Answers {
            lists: lists.collect(),
            ..Answers::default()
        };
        self.names
            .0
            .lock()
            .unwrap()
            .insert(name.to_owned(), answers);
    }

    /// How often the addresses of this name were asked for.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.names
            .0
            .lock()
            .unwrap()
            .get(name)
            .map_or(0, |answers| answers.asked.0)
    }

    /// A server at this address. What it was asked comes out of the receiver.
    pub(crate) fn serve(
        &self,
        address: &str,
        tls: Tls<'_>,
        answer: impl Fn(&Got) -> Reply + Send + Sync + 'static,
    ) -> Receiver<Got> {
        let (heard, requests) = channel();
        let answer: Arc<dyn Fn(&Got) -> Reply + Send + Sync> = Arc::new(answer);
        let acceptor = self.acceptor(tls);
        let address: SocketAddr = address.parse().unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (heard, answer) = (heard.clone(), Arc::clone(&answer));
                match acceptor.clone() {
                    None => drop(tokio::spawn(talk(stream, Version::HTTP_11, heard, answer))),
                    Some(acceptor) => drop(tokio::spawn(async move {
                        // A handshake that fails is what some tests want.
                        let Ok(stream) = acceptor.accept(stream).await else {
                            return;
                        };
                        let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        let version = if two {
                            Version::HTTP_2
                        } else {
                            Version::HTTP_11
                        };
                        talk(stream, version, heard, answer).await;
                    })),
                }
            }
        });
        requests
    }

    /// A server that sends these bytes to whoever has said something, in TLS.
    pub(crate) fn babble(&self, address: &str, name: &str, bytes: Vec<u8>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let acceptor = self
            .acceptor(Tls::For(name, Certificate::Good, H1))
            .unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, bytes) = (acceptor.clone(), bytes.clone());
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.unwrap();
                    stream.read_exact(&mut [0; 16]).await.unwrap();
                    // Whoever has enough of it hangs up.
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
    }

    fn acceptor(&self, tls: Tls<'_>) -> Option<TlsAcceptor> {
        let Tls::For(name, certificate, protocols) = tls else {
            return None;
        };
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if certificate == Certificate::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let nobody = authority().0;
        let issuer = match certificate {
            Certificate::Good | Certificate::Expired => &self.authority,
            Certificate::OfNobody => &nobody,
        };
        let signed: CertificateDer<'static> = params.signed_by(&key, issuer).unwrap().into();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Some(TlsAcceptor::from(Arc::new(config)))
    }
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), root)
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    version: Version,
    heard: Sender<Got>,
    answer: Arc<dyn Fn(&Got) -> Reply + Send + Sync>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (heard, answer) = (heard.clone(), Arc::clone(&answer));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes().to_vec());
            let got = Got {
                method: head.method.to_string(),
                uri: head.uri.to_string(),
                version: head.version,
                headers: head.headers,
                body: body.unwrap_or_default(),
            };
            let reply = answer(&got);
            // The test may be over.
            let _ = heard.send(got);
            let mut response = Response::builder().status(reply.status);
            for (name, value) in reply.headers {
                response = response.header(name, value);
            }
            Ok::<_, Infallible>(response.body(Sending(reply.body)).unwrap())
        }
    });
    // How it ends is what the other side tells.
    let io = TokioIo::new(stream);
    if version == Version::HTTP_2 {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(io, service).await;
    } else {
        let builder = hyper::server::conn::http1::Builder::new();
        let _ = builder.serve_connection(io, service).await;
    }
}

struct Sending(Sent);

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut self.0 {
            Sent::Whole(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Sent::Whole(bytes) => Bytes::from(std::mem::take(bytes)),
            Sent::Endless => Bytes::from_static(&[b'x'; 4096]),
            Sent::Never => return Poll::Pending,
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Sent::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Sent::Endless | Sent::Never => SizeHint::default(),
        }
    }
}

impl Names {
    /// Answers as DNS does (RFC 1035), with a time to live of nothing.
    fn serve(&self) {
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        let names = self.clone();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                let reply = names.reply(&buffer[..length]);
                socket.send_to(&reply, from).unwrap();
            }
        });
    }

    fn reply(&self, question: &[u8]) -> Vec<u8> {
        let (mut labels, mut at) = (Vec::new(), 12);
        while question[at] != 0 {
            let end = at + 1 + usize::from(question[at]);
            labels.push(String::from_utf8_lossy(&question[at + 1..end]).to_lowercase());
            at = end;
        }
        let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
        let end = at + 5;
        let mut all = self.0.lock().unwrap();
        let known = all.get_mut(&labels.join("."));
        let found = known.as_ref().is_some();
        let addresses: Vec<IpAddr> = known.map_or(Vec::new(), |answers| answers.next(kind));
        let mut reply = question[..2].to_vec();
        // An answer, with recursion; no such name is error 3.
        reply.extend([0x81, if found { 0x80 } else { 0x83 }, 0, 1, 0]);
        reply.push(u8::try_from(addresses.len()).unwrap());
        reply.extend([0; 4]);
        reply.extend(&question[12..end]);
        for address in addresses {
            let bytes = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            reply.extend([0xc0, 0x0c]);
            reply.extend(kind.to_be_bytes());
            reply.extend([0, 1, 0, 0, 0, 0, 0]);
            reply.push(u8::try_from(bytes.len()).unwrap());
            reply.extend(bytes);
        }
        reply
    }
}

impl Answers {
    fn next(&mut self, kind: u16) -> Vec<IpAddr> {
        let count = match kind {
            1 => &mut self.asked.0,
            28 => &mut self.asked.1,
            _ => return Vec::new(),
        };
        let list = self.lists.get(*count).or(self.lists.last());
        *count += 1;
        let list = list.cloned().unwrap_or_default();
        list.into_iter()
            .filter(|address| address.is_ipv4() == (kind == 1))
            .collect()
    }
}

/// Nothing comes for a while.
pub(crate) fn nothing<T: std::fmt::Debug>(receiver: &Receiver<T>) {
    let got = receiver.recv_timeout(Duration::from_millis(300));
    assert!(got.is_err(), "{got:?}");
}
