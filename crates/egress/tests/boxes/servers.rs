//! The servers: a git host, an index of Python packages, a registry of npm, and pages.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::world::{METADATA, ONE, PRIVATE, TWO};

/// What servers were asked.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<(String, Bytes)>>>);

impl Heard {
    /// What was asked since the last look, each as `METHOD HOST PATH`.
    pub(crate) fn take(&self) -> Vec<String> {
        self.whole().into_iter().map(|(line, _)| line).collect()
    }

    /// The same with the bodies, as far as they came.
    pub(crate) fn whole(&self) -> Vec<(String, Bytes)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// What answers.
#[derive(Clone)]
struct Site {
    repositories: PathBuf,
    packages: Arc<HashMap<&'static str, Vec<u8>>>,
    heard: Heard,
}

/// Starts all of them.
pub(crate) fn start(
    runtime: &Handle,
    authority: &Issuer<'static, KeyPair>,
    repositories: &Path,
) -> Heard {
    let heard = Heard::default();
    let site = Site {
        repositories: repositories.to_owned(),
        packages: Arc::new(packages()),
        heard: heard.clone(),
    };
    let acceptor = acceptor(authority);
    for address in [ONE, TWO, METADATA, PRIVATE] {
        listen(runtime, address, 443, Some(acceptor.clone()), site.clone());
        listen(runtime, address, 80, None, site.clone());
    }
    heard
}

fn acceptor(authority: &Issuer<'static, KeyPair>) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let names = vec!["*.acme-widgets.com".to_owned(), ONE.to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    // One that has its authority's name would be taken for its own issuer.
    params
        .distinguished_name
        .push(DnType::CommonName, "acme-widgets.com");
    let leaf = params.signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn listen(runtime: &Handle, address: &str, port: u16, tls: Option<TlsAcceptor>, site: Site) {
    let address: SocketAddr = format!("{address}:{port}").parse().unwrap();
    let listener = std::net::TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    runtime.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (tls, site) = (tls.clone(), site.clone());
            tokio::spawn(async move {
                match tls {
                    None => talk(stream, site).await,
                    // A handshake that fails is what some tests want.
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            talk(stream, site).await;
                        }
                    }
                }
            });
        }
    });
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, site: Site) {
    let service = service_fn(move |request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.answer(request).await) }
    });
    // How it ends is what the other side tells.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

type Answer = Response<Full<Bytes>>;

impl Site {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, mut incoming) = request.into_parts();
        let mut body = Vec::new();
        while let Some(Ok(frame)) = incoming.frame().await {
            body.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
        let body = Bytes::from(body);
        let host = head.headers["host"].to_str().unwrap().to_owned();
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let line = format!("{} {host} {path}", head.method);
        self.heard.0.lock().unwrap().push((line, body.clone()));
        if host.starts_with("git.") {
            let this = self.clone();
            let git = tokio::task::spawn_blocking(move || this.git(&head, &path, &query, &body));
            return git.await.unwrap();
        }
        match self.packages.get(path.trim_end_matches('/')) {
            Some(content) => {
                let kind = match (path.ends_with(".tgz"), host.starts_with("npm.")) {
                    (false, true) => "application/json",
                    (true, _) => "application/octet-stream",
                    (false, false) => "text/html",
                };
                Response::builder()
                    .header("content-type", kind)
                    .body(Full::from(content.clone()))
                    .unwrap()
            }
            None if path == "/missing" => status(404),
            None if path == "/large" => text(&"x".repeat(4 << 20)),
            None => text(&format!(
                "{} {} bytes from {host}{path}\n",
                head.method,
                body.len()
            )),
        }
    }

    /// git-http-backend(1), as any web server has it; who may write is said by nobody but the rules.
    fn git(
        &self,
        head: &hyper::http::request::Parts,
        path: &str,
        query: &str,
        body: &[u8],
    ) -> Answer {
        let header = |name: &str| head.headers.get(name).map_or("", |it| it.to_str().unwrap());
        let mut child = Command::new("git")
            .arg("http-backend")
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("GIT_PROJECT_ROOT", &self.repositories)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("GIT_CONFIG_COUNT", "2")
            .env("GIT_CONFIG_KEY_0", "http.receivepack")
            .env("GIT_CONFIG_VALUE_0", "true")
            .env("GIT_CONFIG_KEY_1", "safe.directory")
            .env("GIT_CONFIG_VALUE_1", "*")
            .env("REQUEST_METHOD", head.method.as_str())
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("CONTENT_TYPE", header("content-type"))
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
            .env("GIT_PROTOCOL", header("git-protocol"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let body = body.to_vec();
        let feeding = std::thread::spawn(move || {
            // It may want no more.
            let _ = input.write_all(&body);
        });
        let output = child.wait_with_output().unwrap().stdout;
        feeding.join().unwrap();
        let end = output.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
        let mut response = Response::builder();
        for line in std::str::from_utf8(&output[..end]).unwrap().lines() {
            let (name, value) = line.split_once(": ").unwrap();
            response = match name {
                "Status" => response.status(&value[..3]),
                _ => response.header(name, value),
            };
        }
        response
            .body(Full::from(output[end + 4..].to_vec()))
            .unwrap()
    }
}

fn text(text: &str) -> Answer {
    Response::new(Full::from(text.to_owned()))
}

fn status(code: u16) -> Answer {
    let mut answer = text("");
    *answer.status_mut() = hyper::StatusCode::from_u16(code).unwrap();
    answer
}

/// What the index and the registry have: a wheel and a tarball, made here.
fn packages() -> HashMap<&'static str, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let wheel = wheel(folder.path());
    let tarball = tarball(folder.path());
    let packument = serde_json::json!({
        "name": "widget",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": {
            "name": "widget", "version": "1.0.0",
            "dist": {"tarball": "https://npm.acme-widgets.com/widget/-/widget-1.0.0.tgz"},
        }},
    });
    let page = r#"<!DOCTYPE html><a href="/packages/widget-1.0-py3-none-any.whl">widget</a>"#;
    HashMap::from([
        ("/simple/widget", page.as_bytes().to_vec()),
        ("/packages/widget-1.0-py3-none-any.whl", wheel),
        ("/widget", serde_json::to_vec(&packument).unwrap()),
        ("/widget/-/widget-1.0.0.tgz", tarball),
    ])
}

fn wheel(folder: &Path) -> Vec<u8> {
    // A wheel is a zip with two files of metadata; Python can write one by itself.
    let script = "import sys, zipfile\n\
        z = zipfile.ZipFile(sys.argv[1], 'w')\n\
        d = 'widget-1.0.dist-info/'\n\
        z.writestr('widget.py', 'here = True\\n')\n\
        z.writestr(d + 'METADATA', 'Metadata-Version: 2.1\\nName: widget\\nVersion: 1.0\\n')\n\
        z.writestr(d + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
        z.writestr(d + 'RECORD', '')\n\
        z.close()\n";
    let file = folder.join("widget-1.0-py3-none-any.whl");
    crate::world::on_the_host(
        folder,
        &["/usr/bin/python3", "-c", script, file.to_str().unwrap()],
    );
    std::fs::read(file).unwrap()
}

fn tarball(folder: &Path) -> Vec<u8> {
    let package = folder.join("package");
    std::fs::create_dir(&package).unwrap();
    let json = r#"{"name": "widget", "version": "1.0.0", "main": "index.js"}"#;
    std::fs::write(package.join("package.json"), json).unwrap();
    std::fs::write(package.join("index.js"), "module.exports = 1;\n").unwrap();
    crate::world::on_the_host(folder, &["tar", "czf", "widget.tgz", "package"]);
    std::fs::read(folder.join("widget.tgz")).unwrap()
}
