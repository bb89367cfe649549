//! The scan at the door: of what tools send, of what enters the model, and of answers for the
//! credential that was attached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::egress::{EgressFault, FetchFault, FetchReply};
use protocol::event::Event;
use protocol::ids::{SecretName, SessionId};
use scan::{Finding, Kind, Scanner, Stream};
use tokio::sync::{Mutex as Asking, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::clean::Clean;
use crate::json;
use crate::record::Record;
use crate::tools::attempt::Hop;
use crate::tools::oauth::Tokens;
use crate::vault_link::VaultLink;

/// How long a tool's request waits for the first marks.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long one question to the vault holds up what waits for it.
const VAULT_LIMIT: Duration = Duration::from_secs(2);

/// How soon the vault is asked again that did not give them.
const AGAIN: Duration = Duration::from_millis(200);

/// Longer texts are scanned beside what else egress does.
const LONG: usize = 16 * 1024;

/// The most sessions of which is remembered what they sent.
const MAX_SESSIONS: usize = 256;

/// The most rows about one text.
const MAX_ROWS: usize = 16;

/// What is looked for, and who is told.
#[derive(Clone)]
pub(crate) struct Leaks {
    vault: VaultLink,
    record: Record,
    known: watch::Sender<Known>,
    asking: Arc<Asking<()>>,
    /// What is no secret of the vault, and was got with one.
    tokens: Tokens,
    /// What each session sent last, as far as it could be the beginning of something.
    sent: Arc<Mutex<HashMap<SessionId, Stream>>>,
    /// The gateway's link, for what it has to hear of without having asked.
    gateway: Arc<Mutex<Option<mpsc::Sender<FetchReply>>>>,
}

#[derive(Clone)]
struct Known {
    scanner: Arc<Scanner>,
    /// Of the vault; 0 asks for all.
    generation: u64,
    marks: Marked,
    /// What was scanned with these and held nothing.
    clean: Arc<Mutex<Clean>>,
}

/// Whether the vault has told its marks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marked {
    Never,
    Once,
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
    pub(crate) fn new(vault: VaultLink, record: Record, tokens: Tokens) -> Self {
        let known = Known {
            scanner: Arc::new(Scanner::of_formats()),
            generation: 0,
            marks: Marked::Never,
            clean: Arc::default(),
        };
        Self {
            vault,
            record,
            known: watch::Sender::new(known),
            asking: Arc::default(),
            tokens,
            sent: Arc::default(),
            gateway: Arc::default(),
        }
    }

    /// Tells this link of the gateway's from now on.
    pub(crate) fn tell(&self, gateway: mpsc::Sender<FetchReply>) {
        *self.gateway.lock().unwrap_or_else(PoisonError::into_inner) = Some(gateway);
    }

    /// Forgets which generation of the vault is known: it may have started again, with another key,
    /// or there are other tokens to look for.
    pub(crate) fn begin_anew(&self) {
        self.known.send_modify(|known| known.generation = 0);
    }

    /// Asks the vault for its marks, if it changed. Where it does not give any, those that are
    /// known stay.
    pub(crate) async fn refresh(&self) {
        let asked = async {
            // One question at a time: whoever comes meanwhile finds the answer there.
            let _asking = self.asking.lock().await;
            let known = self.known.borrow().generation;
            self.vault.marks_after(known).await
        };
        if let Ok(Ok(Some((generation, mut marks)))) = timeout(VAULT_LIMIT, asked).await {
            for (name, token) in self.tokens.all() {
                marks.add(name, token.expose());
            }
            self.known.send_replace(Known {
                scanner: Arc::new(Scanner::new(marks)),
                generation,
                marks: Marked::Once,
                clean: Arc::default(),
            });
        }
    }

    /// What is looked for now.
    pub(crate) fn known(&self) -> Arc<Scanner> {
        Arc::clone(&self.known.borrow().scanner)
    }

    /// What to scan a tool's request with. None as long as nobody knows what the vault holds.
    async fn for_tools(&self) -> Option<Arc<Scanner>> {
        let ends = Instant::now() + PATIENCE;
        loop {
            self.refresh().await;
            if self.known.borrow().marks == Marked::Once {
                return Some(self.known());
            }
            if Instant::now() >= ends {
                return None;
            }
            sleep(AGAIN).await;
        }
    }

    /// What a tool is about to send: nothing in it may be a secret, nor complete one of which
    /// the requests before it held a piece.
    pub(crate) async fn check(&self, session: &SessionId, hop: &Hop) -> Result<(), FetchFault> {
        let refused = |reason: &str| FetchFault::NotAllowed {
            reason: reason.to_owned(),
        };
        let scanner = self.for_tools().await.ok_or_else(|| {
            refused(
                "what must not leave is not known, since the vault does not answer; see \
                 `bulkhead status`",
            )
        })?;
        let unscanned = || refused("it could not be scanned for secrets");
        let scanned = scan(Arc::clone(&scanner), hop.text()).await;
        let (_, mut findings) = scanned.ok_or_else(unscanned)?;
        if findings.is_empty() {
            let mut before = self.take(session);
            let essence = hop.essence();
            let scanned = beside(essence.len(), move || {
                let mut found = before.push(&scanner, &essence).findings;
                found.extend(before.finish(&scanner).findings);
                (before, found)
            });
            let (before, found) = scanned.await.ok_or_else(unscanned)?;
            self.keep(session, before);
            findings = secrets(found);
        }
        if findings.is_empty() {
            return Ok(());
        }
        self.report(session, Where::ToolRequest, &findings);
        Err(leak(&findings))
    }

    /// What a session sent before.
    fn take(&self, session: &SessionId) -> Stream {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.remove(session).unwrap_or_default()
    }

    fn keep(&self, session: &SessionId, stream: Stream) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.len() >= MAX_SESSIONS {
            sent.clear();
        }
        sent.insert(session.clone(), stream);
    }

    /// The body of a request to the model, without what is a secret in it. What stood in an earlier
    /// one and held nothing is not scanned again.
    pub(crate) async fn clean(
        &self,
        session: &SessionId,
        body: String,
    ) -> Result<String, EgressFault> {
        self.refresh().await;
        let Known { scanner, clean, .. } = self.known.borrow().clone();
        let (rest, blocks) = locked(&clean).rest(&body);
        let scanned = beside(rest.len(), move || {
            let mut findings = secrets(scanner.scan(&body[rest.clone()]));
            if !findings.is_empty() && rest.len() < body.len() {
                // What was found may reach into what was left out.
                findings = secrets(scanner.scan(&body));
            }
            (body, findings)
        });
        let Some((body, findings)) = scanned.await else {
            return Err(EgressFault::NotAllowed {
                reason: "it could not be scanned for secrets".to_owned(),
            });
        };
        if findings.is_empty() {
            locked(&clean).keep(blocks);
            return Ok(body);
        }
        self.report(session, Where::ModelRequest, &findings);
        let cuts: Vec<_> = findings
            .iter()
            .map(|found| {
                let label = format!("[redacted: {}]", found.kind);
                (found.start..found.end, label)
            })
            .collect();
        Ok(json::without(&body, &cuts))
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
                what: kind.to_owned(),
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

/// A secret is in an answer out of which it cannot be cut.
pub(crate) fn leak_of_secret() -> FetchFault {
    FetchFault::Leak {
        kinds: vec![Kind::SECRET.to_string()],
        honeytokens: Vec::new(),
    }
}

fn locked(clean: &Mutex<Clean>) -> MutexGuard<'_, Clean> {
    clean.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was found, as the gateway is told.
fn leak(findings: &[Finding]) -> FetchFault {
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

/// Those that are secrets. Links are the matter of who shows a text.
fn secrets(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.retain(|found| found.kind != Kind::IMAGE && found.kind != Kind::LINK);
    findings
}

/// The text, and what is a secret in it. None if the scan itself failed.
async fn scan(scanner: Arc<Scanner>, text: String) -> Option<(String, Vec<Finding>)> {
    beside(text.len(), move || {
        let findings = secrets(scanner.scan(&text));
        (text, findings)
    })
    .await
}

/// Does this work here if it is short, and beside what else egress does if it is not. None if it
/// failed.
async fn beside<T: Send + 'static>(
    length: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if length <= LONG {
        return Some(work());
    }
    spawn_blocking(work).await.ok()
}
