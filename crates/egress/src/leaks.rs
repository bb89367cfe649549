//! The scan at the door: of what tools send, of what enters the model, and of answers for the
//! credential that was attached.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protocol::egress::{FetchFault, FetchReply};
use protocol::event::Event;
use protocol::ids::{SecretName, SessionId};
use protocol::marks::Marks;
use scan::{Finding, Kind, Scanner};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::json;
use crate::record::Record;
use crate::vault_link::VaultLink;

/// How long a tool's request waits for the first marks.
const PATIENCE: Duration = Duration::from_secs(5);

/// Marks that are older are asked for again, before a tool's request and after a model's.
const OLD: Duration = Duration::from_secs(5);

/// Longer texts are scanned beside what else egress does.
const LONG: usize = 16 * 1024;

/// The most rows about one text.
const MAX_ROWS: usize = 16;

/// What is looked for, and who is told.
#[derive(Clone)]
pub(crate) struct Leaks {
    vault: VaultLink,
    record: Record,
    known: watch::Sender<Known>,
    /// The gateway's link, for what it has to hear of without having asked.
    gateway: Arc<Mutex<Option<mpsc::Sender<FetchReply>>>>,
}

#[derive(Clone)]
struct Known {
    scanner: Arc<Scanner>,
    marks: Since,
}

/// Since when the vault's marks are known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Since {
    Never,
    Then(Instant),
}

/// Where something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    /// On the way out, from a tool.
    ToolRequest,
    /// On the way into the model.
    ModelRequest,
}

impl Where {
    fn as_str(self) -> &'static str {
        match self {
            Self::ToolRequest => "a tool's request",
            Self::ModelRequest => "a request to the model",
        }
    }
}

impl Leaks {
    pub(crate) fn new(vault: VaultLink, record: Record) -> Self {
        let known = Known {
            scanner: Arc::new(Scanner::of_formats()),
            marks: Since::Never,
        };
        Self {
            vault,
            record,
            known: watch::Sender::new(known),
            gateway: Arc::default(),
        }
    }

    /// Tells this link of the gateway's from now on.
    pub(crate) fn tell(&self, gateway: mpsc::Sender<FetchReply>) {
        *self.gateway.lock().unwrap_or_else(PoisonError::into_inner) = Some(gateway);
    }

    /// Asks the vault for its marks, if those that are known are old or none. Where it does
    /// not give any, those that are known stay.
    pub(crate) async fn refresh(&self) {
        let fresh = match self.known.borrow().marks {
            Since::Never => false,
            Since::Then(then) => then.elapsed() < OLD,
        };
        if fresh {
            return;
        }
        if let Ok(marks) = self.vault.marks().await {
            self.take(marks);
        }
    }

    /// Looks for these from now on.
    pub(crate) fn take(&self, marks: Marks) {
        self.known.send_replace(Known {
            scanner: Arc::new(Scanner::new(marks)),
            marks: Since::Then(Instant::now()),
        });
    }

    /// What to scan a tool's request with. None as long as nobody knows what the vault holds.
    pub(crate) async fn for_tools(&self) -> Option<Arc<Scanner>> {
        self.refresh().await;
        let mut known = self.known.subscribe();
        let with_marks = known.wait_for(|known| known.marks != Since::Never);
        let known = timeout(PATIENCE, with_marks).await.ok()?.ok()?;
        Some(Arc::clone(&known.scanner))
    }

    /// What a tool is about to send, as one text: nothing in it may be a secret.
    pub(crate) async fn check(&self, session: &SessionId, text: String) -> Result<(), FetchFault> {
        let Some(scanner) = self.for_tools().await else {
            return Err(FetchFault::NotAllowed {
                reason: "what must not leave is not known, since the vault does not answer; see \
                         `bulkhead status`"
                    .to_owned(),
            });
        };
        let findings = scan(scanner, text).await.1;
        if findings.is_empty() {
            return Ok(());
        }
        self.report(session, Where::ToolRequest, &findings);
        Err(leak(&findings))
    }

    /// The body of a request to the model, without what is a secret in it.
    pub(crate) async fn clean(&self, session: &SessionId, body: String) -> String {
        let scanner = Arc::clone(&self.known.borrow().scanner);
        let (body, findings) = scan(scanner, body).await;
        if findings.is_empty() {
            return body;
        }
        self.report(session, Where::ModelRequest, &findings);
        let cuts: Vec<_> = findings
            .iter()
            .map(|found| (found.start..found.end, format!("[redacted: {}]", found.kind)))
            .collect();
        json::without(&body, &cuts)
    }

    /// Writes down what was found, kinds and names only, and tells the gateway of decoys.
    fn report(&self, session: &SessionId, place: Where, findings: &[Finding]) {
        let mut told: Vec<(&str, Option<&SecretName>)> = findings
            .iter()
            .map(|found| (found.kind.as_str(), found.name.as_ref()))
            .collect();
        told.sort_unstable();
        told.dedup();
        for (kind, name) in told.into_iter().take(MAX_ROWS) {
            let event = Event::LeakStopped {
                place: place.as_str().to_owned(),
                kind: kind.to_owned(),
                name: name.cloned(),
            };
            self.record.note(session, event);
        }
        let honeytokens = honeytokens(findings);
        let gateway = self.gateway.lock().unwrap_or_else(PoisonError::into_inner);
        if let (false, Some(gateway)) = (honeytokens.is_empty(), gateway.as_ref()) {
            let session = session.clone();
            let told = gateway.try_send(FetchReply::Touched {
                session,
                honeytokens,
            });
            if told.is_err() {
                eprintln!("bulkhead-egress: the gateway was not told of a decoy that turned up");
            }
        }
    }
}

/// What was found, as the gateway is told.
pub(crate) fn leak(findings: &[Finding]) -> FetchFault {
    let mut kinds: Vec<String> = findings.iter().map(|it| it.kind.to_string()).collect();
    kinds.sort();
    kinds.dedup();
    FetchFault::Leak {
        kinds,
        honeytokens: honeytokens(findings),
    }
}

fn honeytokens(findings: &[Finding]) -> Vec<SecretName> {
    let decoys = findings.iter().filter(|it| it.kind == Kind::HONEYTOKEN);
    let mut names: Vec<SecretName> = decoys.filter_map(|it| it.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// The text, and what is a secret in it. Links are the matter of who shows a text.
async fn scan(scanner: Arc<Scanner>, text: String) -> (String, Vec<Finding>) {
    let secrets = |scanner: &Scanner, text: &str| {
        let mut findings = scanner.scan(text);
        findings.retain(|found| found.kind != Kind::IMAGE && found.kind != Kind::LINK);
        findings
    };
    if text.len() <= LONG {
        let findings = secrets(&scanner, &text);
        return (text, findings);
    }
    let scanned = spawn_blocking(move || {
        let findings = secrets(&scanner, &text);
        (text, findings)
    });
    match scanned.await {
        Ok(scanned) => scanned,
        // It does not come back only where the scan itself failed; nothing goes out then.
        Err(_) => (String::new(), Vec::new()),
    }
}
