//! A vault as far as egress sees it.

use std::sync::{Arc, Mutex};
use std::thread;

use protocol::control::Peer;
use protocol::frame::Link;
use protocol::ids::SecretName;
use protocol::marks::{MarkKey, MarkKind, Marks, marks_of};
use protocol::vault::{Purpose, SecretText, VaultReply, VaultRequest};

use crate::support::Egress;

/// What it holds.
#[derive(Clone)]
pub(crate) struct Secret {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) hosts: Vec<&'static str>,
    pub(crate) kind: MarkKind,
}

impl Secret {
    pub(crate) fn new(name: &'static str, value: &str, hosts: &[&'static str]) -> Self {
        Self {
            name,
            value: value.to_owned(),
            hosts: hosts.to_vec(),
            kind: MarkKind::Secret,
        }
    }
}

/// What it was asked to open, and for which host.
#[derive(Clone, Default)]
pub(crate) struct Opened(Arc<Mutex<Vec<String>>>);

impl Opened {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// The marks of a vault that holds these, of its first generation.
pub(crate) fn marks(secrets: &[Secret], after: u64) -> VaultReply {
    if after == 1 {
        return VaultReply::Unchanged;
    }
    let key = MarkKey::from_bytes([7; 32]);
    let marks = secrets.iter().filter_map(|secret| {
        let name: SecretName = secret.name.parse().unwrap();
        marks_of(&key, name, secret.kind, &secret.value).ok()
    });
    VaultReply::Marks {
        generation: 1,
        marks: Marks::new(&key, marks.collect()),
    }
}

/// Opens each for its hosts only, and tells the marks of all.
pub(crate) fn vault(egress: &Egress, secrets: Vec<Secret>) -> Opened {
    let opened = Opened::default();
    let link = Link::<VaultReply, VaultRequest>::new(egress.link(Peer::Vault));
    // It waits for questions as long as the test takes.
    link.set_timeout(None).unwrap();
    let log = opened.clone();
    thread::spawn(move || {
        while let Ok(request) = link.receive() {
            let reply = match request {
                VaultRequest::Marks { after } => marks(&secrets, after),
                VaultRequest::OpenFor {
                    name,
                    purpose: Purpose::Tool,
                    host,
                } => {
                    log.0.lock().unwrap().push(format!("{name} for {host}"));
                    let fits = |secret: &&Secret| {
                        secret.name == name.as_str() && secret.hosts.contains(&host.as_str())
                    };
                    match secrets.iter().find(fits) {
                        Some(secret) => VaultReply::Opened {
                            value: SecretText::new(secret.value.clone()),
                        },
                        None => VaultReply::Refused {
                            reason: format!("it is not for {host}"),
                        },
                    }
                }
                other => panic!("{other:?}"),
            };
            if link.send(&reply).is_err() {
                return;
            }
        }
    });
    opened
}
