//! The key of a remote model, and TLS.

use std::io::Write as _;
use std::sync::mpsc::channel;
use std::thread;

use protocol::control::{ModelRoute, Peer, Reach, Scheme};
use protocol::egress::EgressFault;
use protocol::frame::Link;
use protocol::vault::{Purpose, SecretText, VaultReply, VaultRequest};

use crate::support::{
    Egress, LIMIT, Server, answer, chat, closed_port, fault, hear, ledger, loopback,
};
use crate::vault::marks;

const TOKEN: &str = "sk-hush-hush";

/// A model that counts as remote and is reached on loopback, where that is allowed in the clear.
fn remote(port: u16) -> ModelRoute {
    let secret = Some("model-key".parse().unwrap());
    ModelRoute {
        reach: Reach::Remote { secret },
        ..loopback(port)
    }
}

/// A vault without marks that answers every other question with this.
fn vault(egress: &Egress, reply: fn() -> VaultReply) {
    let link = Link::<VaultReply, VaultRequest>::new(egress.link(Peer::Vault));
    thread::spawn(move || {
        while let Ok(request) = link.receive() {
            let reply = match request {
                VaultRequest::Marks { after } => marks(&[], after),
                VaultRequest::OpenFor {
                    name,
                    purpose: Purpose::Model,
                    host,
                } => {
                    assert_eq!((name.as_str(), host.as_str()), ("model-key", "127.0.0.1"));
                    reply()
                }
                other => panic!("{other:?}"),
            };
            if link.send(&reply).is_err() {
                return;
            }
        }
    });
}

fn opened(text: &str) -> VaultReply {
    VaultReply::Opened {
        value: SecretText::new(text.to_owned()),
    }
}

#[test]
fn the_key_is_attached_at_the_door() {
    let (heard, requests) = channel();
    let server = Server::start(move |mut stream| {
        heard.send(hear(&stream)).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .unwrap();
    });
    let egress = Egress::start(remote(server.port), Vec::new());
    let events = ledger(egress.link(Peer::Ledger));
    vault(&egress, || opened(TOKEN));
    let agent = egress.agent();
    for id in 1..=2 {
        agent.send(&chat(id, "{}")).unwrap();
        assert_eq!(answer(&agent), (200, "ok".to_owned()));
        let request = requests.recv_timeout(LIMIT).unwrap();
        assert!(
            request.has_header("authorization", &format!("Bearer {TOKEN}")),
            "{}",
            request.head
        );
    }
    while let Ok(event) = events.try_recv() {
        assert!(!format!("{event:?}").contains(TOKEN));
    }
}

#[test]
fn without_the_key_nothing_is_sent() {
    let server = Server::start(|stream| {
        // It is connected to, and then hears nothing.
        assert!(hear(&stream).head.is_empty(), "something was sent");
    });
    let replies: [fn() -> VaultReply; 3] = [
        || VaultReply::Refused {
            reason: "not for you".to_owned(),
        },
        || VaultReply::Done,
        // A key that would add a header of its own.
        || opened("x\r\nX-Evil: 1"),
    ];
    for reply in replies {
        let egress = Egress::start(remote(server.port), Vec::new());
        let _events = ledger(egress.link(Peer::Ledger));
        vault(&egress, reply);
        let agent = egress.agent();
        agent.send(&chat(1, "{}")).unwrap();
        let fault = fault(&agent);
        assert!(matches!(fault, EgressFault::NotAllowed { .. }), "{fault:?}");
        assert!(!format!("{fault:?}").contains("X-Evil"));
    }
    let egress = Egress::start(remote(server.port), Vec::new());
    let _events = ledger(egress.link(Peer::Ledger));
    let agent = egress.agent();
    agent.send(&chat(1, "{}")).unwrap();
    assert!(
        matches!(fault(&agent), EgressFault::NotAllowed { .. }),
        "there is no vault"
    );
}

#[test]
fn the_key_is_not_asked_for_where_nobody_listens() {
    let egress = Egress::start(remote(closed_port()), Vec::new());
    let _events = ledger(egress.link(Peer::Ledger));
    vault(&egress, || panic!("it was asked for"));
    let agent = egress.agent();
    agent.send(&chat(1, "{}")).unwrap();
    assert!(matches!(fault(&agent), EgressFault::Unreachable { .. }));
}

#[test]
fn a_certificate_that_nobody_trusts_is_refused_before_the_request() {
    use std::sync::Arc;

    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::{ServerConfig, ServerConnection, crypto::ring};

    let certificate = include_bytes!("../tls/server.pem");
    let key = include_bytes!("../tls/server.key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate).unwrap()],
            PrivateKeyDer::from_pem_slice(key).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let (tried, attempts) = channel();
    let server = Server::start(move |mut stream| {
        let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let refused = connection.complete_io(&mut stream).is_err();
        tried.send(refused).unwrap();
    });
    for host in ["localhost", "127.0.0.1"] {
        let (scheme, host) = (Scheme::Https, host.to_owned());
        let egress = Egress::start(
            ModelRoute {
                scheme,
                host,
                ..remote(server.port)
            },
            Vec::new(),
        );
        let _events = ledger(egress.link(Peer::Ledger));
        vault(&egress, || panic!("the key was asked for"));
        let agent = egress.agent();
        agent.send(&chat(1, "{}")).unwrap();
        match fault(&agent) {
            EgressFault::Protocol { detail } => {
                assert!(detail.contains("UnknownIssuer"), "{detail}")
            }
            other => panic!("{other:?}"),
        }
        assert!(
            attempts.recv_timeout(LIMIT).unwrap(),
            "the handshake went through"
        );
    }
}
