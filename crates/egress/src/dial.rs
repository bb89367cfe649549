//! Resolving a host once, judging its addresses, and connecting to exactly those.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use protocol::control::{ModelRoute, Reach, Scheme};
use protocol::egress::EgressFault;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use outbound::address::{Allowed, check, is_loopback_host};
use outbound::{Host, answers};

/// How long resolving a name may take, connecting to all its addresses, and agreeing on TLS.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The roots that come with the program: Mozilla's.
pub(crate) fn mozilla_roots() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

/// What TLS is spoken with to the model.
pub(crate) fn tls(roots: RootCertStore) -> Result<TlsConnector, tokio_rustls::rustls::Error> {
    Ok(TlsConnector::from(Arc::new(tls_config(roots)?)))
}

/// What TLS is spoken with to all other servers: HTTP/2 where the server has it, and nothing
/// that is remembered from one connection to the next.
pub(crate) fn tls_for_tools(
    roots: RootCertStore,
) -> Result<TlsConnector, tokio_rustls::rustls::Error> {
    let mut config = tls_config(roots)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn tls_config(roots: RootCertStore) -> Result<ClientConfig, tokio_rustls::rustls::Error> {
    Ok(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

/// The roots that come with the program, and those that the configuration adds, each in PEM.
pub(crate) fn roots(extra: &[String]) -> Result<RootCertStore, String> {
    let mut roots = mozilla_roots();
    for text in extra {
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
    }
    Ok(roots)
}

/// Agrees on TLS with the server behind this connection, whose certificate has to be for `host`.
pub(crate) async fn secure(
    tls: &TlsConnector,
    host: &str,
    tcp: TcpStream,
) -> Result<Stream, EgressFault> {
    let stream = timeout(CONNECT_LIMIT, shake_hands(tls, host, tcp));
    let stream = stream.await.map_err(|_| no_answer())??;
    Ok(Stream::Tls(Box::new(stream)))
}

/// A connection to a server.
pub(crate) enum Stream {
    /// In the clear, to this machine only.
    Plain(TcpStream),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to the model where its route allows it.
pub(crate) async fn model(route: &ModelRoute, tls: &TlsConnector) -> Result<Stream, EgressFault> {
    let allowed = model_allows(route)?;
    let tcp = connect(&resolve(&allowed, &route.host, route.port).await?).await?;
    match route.scheme {
        Scheme::Http => Ok(Stream::Plain(tcp)),
        Scheme::Https => secure(tls, &route.host, tcp).await,
    }
}

/// What the model's route allows. An address that the configuration names as remote is
/// allowed as it stands, since a person wrote it; a name has to be public.
fn model_allows(route: &ModelRoute) -> Result<Allowed, EgressFault> {
    let local = is_loopback_host(&route.host);
    match (&route.reach, route.scheme) {
        (Reach::Loopback, _) => Ok(Allowed::Loopback),
        (Reach::Remote { .. }, Scheme::Http) if !local => Err(EgressFault::NotAllowed {
            reason: format!("`{}` is another machine; use https for it", route.host),
        }),
        (Reach::Remote { .. }, Scheme::Http | Scheme::Https) if local => Ok(Allowed::Loopback),
        (Reach::Remote { .. }, Scheme::Http | Scheme::Https) => {
            Ok(route.host.parse().map_or(Allowed::Public, Allowed::Exactly))
        }
    }
}

/// The addresses that a host has now, all of which have to be allowed. Nothing is resolved again
/// before they are connected to.
pub(crate) async fn judged(
    allowed: &Allowed,
    host: &Host,
    port: u16,
) -> Result<Vec<SocketAddr>, EgressFault> {
    let found = match host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => look_up(name, port).await?,
    };
    let judged = answers(allowed, host, &found);
    let judged = judged.map_err(|refusal| EgressFault::NotAllowed {
        reason: refusal.to_string(),
    })?;
    Ok(judged
        .into_iter()
        .map(|address| SocketAddr::new(address, port))
        .collect())
}

/// The addresses of a host that it is allowed to have; at least one.
pub(crate) async fn resolve(
    allowed: &Allowed,
    host: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, EgressFault> {
    let addresses = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => look_up(host, port).await?,
    };
    let fitting = check(allowed, host, &addresses).map_err(|refusal| EgressFault::NotAllowed {
        reason: refusal.to_string(),
    })?;
    Ok(fitting
        .into_iter()
        .map(|address| SocketAddr::new(address, port))
        .collect())
}

async fn look_up(host: &str, port: u16) -> Result<Vec<IpAddr>, EgressFault> {
    let found = timeout(CONNECT_LIMIT, lookup_host((host, port))).await;
    let found = found.map_err(|_| no_answer())?;
    let addresses = found.map_err(|error| unreachable(&error))?;
    Ok(addresses.map(|address| address.ip()).collect())
}

/// Connects to the first of these addresses that answers.
pub(crate) async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, EgressFault> {
    let trying = async {
        let mut last = EgressFault::Unreachable {
            detail: "no address".to_owned(),
        };
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Small pieces go out as they come; without it they come later, not wrong.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = unreachable(&error),
            }
        }
        Err(last)
    };
    timeout(CONNECT_LIMIT, trying)
        .await
        .map_err(|_| no_answer())?
}

async fn shake_hands(
    tls: &TlsConnector,
    host: &str,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, EgressFault> {
    let failed = |detail: String| EgressFault::Protocol {
        detail: format!("TLS: {detail}"),
    };
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
    tls.connect(name, tcp)
        .await
        .map_err(|error| failed(error.to_string()))
}

fn unreachable(error: &std::io::Error) -> EgressFault {
    EgressFault::Unreachable {
        detail: error.to_string(),
    }
}

fn no_answer() -> EgressFault {
    EgressFault::Unreachable {
        detail: format!("no answer in {} s", CONNECT_LIMIT.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(scheme: Scheme, host: &str, reach: Reach) -> ModelRoute {
        ModelRoute {
            name: "m".to_owned(),
            scheme,
            host: host.to_owned(),
            port: 1,
            path: "/".to_owned(),
            reach,
            idle_seconds: 1,
        }
    }

    fn remote() -> Reach {
        Reach::Remote { secret: None }
    }

    #[test]
    fn a_remote_model_is_spoken_to_in_the_clear_on_this_machine_only() {
        assert!(model_allows(&route(Scheme::Http, "api.example.com", remote())).is_err());
        assert!(model_allows(&route(Scheme::Http, "192.168.1.2", remote())).is_err());
        let allows = |scheme, host| model_allows(&route(scheme, host, remote())).unwrap();
        assert_eq!(allows(Scheme::Http, "localhost"), Allowed::Loopback);
        assert_eq!(allows(Scheme::Https, "api.example.com"), Allowed::Public);
        let lan = Allowed::Exactly("192.168.1.2".parse().unwrap());
        assert_eq!(allows(Scheme::Https, "192.168.1.2"), lan);
    }

    #[tokio::test]
    async fn a_loopback_route_reaches_nothing_else() {
        let tls = tls(mozilla_roots()).unwrap();
        for host in ["192.0.2.1", "0.0.0.0", "10.0.0.1", "::ffff:127.0.0.1", "::"] {
            let route = route(Scheme::Http, host, Reach::Loopback);
            let refused = model(&route, &tls).await.map(drop);
            assert!(
                matches!(refused, Err(EgressFault::NotAllowed { .. })),
                "{host}: {refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_public_name_that_is_this_machine_is_refused() {
        // Every machine resolves its own `localhost`; here it stands for a name of somebody else.
        let refused = resolve(&Allowed::Public, "localhost", 1).await;
        assert!(
            matches!(refused, Err(EgressFault::NotAllowed { .. })),
            "{refused:?}"
        );
    }

    /// A TLS server with the test certificate on this address of the loopback network.
    async fn tls_server(address: &str) -> u16 {
        use tokio_rustls::TlsAcceptor;
        use tokio_rustls::rustls::ServerConfig;
        use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

        let certificate = CertificateDer::from_pem_slice(include_bytes!("../tests/tls/server.pem"));
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("../tests/tls/server.key"));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.unwrap()], key.unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            // Whether it goes through is what the other side tells.
            let _ = acceptor.accept(stream).await;
        });
        port
    }

    #[tokio::test]
    async fn a_certificate_has_to_be_trusted_and_for_this_host() {
        use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};

        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(include_bytes!("../tests/tls/ca.pem"));
        roots.add(authority.unwrap()).unwrap();
        let trusting = tls(roots).unwrap();
        let reach = |host: &str, port| ModelRoute {
            port,
            ..route(Scheme::Https, host, remote())
        };

        let port = tls_server("127.0.0.1").await;
        let stream = model(&reach("127.0.0.1", port), &trusting).await;
        assert!(matches!(stream, Ok(Stream::Tls(_))));
        let port = tls_server("127.0.0.2").await;
        let other = model(&reach("127.0.0.2", port), &trusting).await.map(drop);
        let Err(EgressFault::Protocol { detail }) = other else {
            panic!("{other:?}")
        };
        assert!(detail.contains("not valid for name"), "{detail}");
        let port = tls_server("127.0.0.1").await;
        let distrusting = tls(mozilla_roots()).unwrap();
        let unknown = model(&reach("127.0.0.1", port), &distrusting)
            .await
            .map(drop);
        assert!(
            matches!(unknown, Err(EgressFault::Protocol { .. })),
            "{unknown:?}"
        );
    }
}
