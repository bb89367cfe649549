//! The certificate authority of one box: who inspects its connections signs for the servers that it asks for.
//!
//! It is made for one run. Its key is in the memory of egress and nowhere else, and nobody but the programs of
//! that box trusts it.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The most servers whose certificates are remembered.
const REMEMBERED: usize = 64;

/// An authority, and the certificates that it gave out.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    servers: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

impl Authority {
    /// A new one.
    pub(crate) fn new() -> Result<Self, String> {
        let key = KeyPair::generate().map_err(words)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(words)?;
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "Bulkhead, for this box alone");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(words)?;
        Ok(Self {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
            servers: Mutex::default(),
        })
    }

    /// Its certificate, for the box.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// How to be the server of this name, or this address, to a client that trusts the authority.
    pub(crate) fn server(&self, host: &str) -> Result<Arc<ServerConfig>, String> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = servers.get(host) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.sign_for(host)?);
        if servers.len() >= REMEMBERED {
            servers.clear();
        }
        servers.insert(host.to_owned(), Arc::clone(&config));
        Ok(config)
    }

    fn sign_for(&self, host: &str) -> Result<ServerConfig, String> {
        let key = KeyPair::generate().map_err(words)?;
        let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(words)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "Bulkhead");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Without it some clients do not find the authority.
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.issuer).map_err(words)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(words)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(words)?;
        // What is inspected is HTTP/1.1, and nothing is remembered from one connection to the next.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn words(error: impl Display) -> String {
    error.to_string()
}
