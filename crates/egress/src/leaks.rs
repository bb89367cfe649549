//! The scan at the door: of what tools send, of what enters the model, and of answers for the
//! credential that was attached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::egress::{EgressFault, FetchFault, FetchReply};
use protocol::event::Event;
use protocol::ids::{SecretName, SessionId};
use scan::{Finding, Kind, Passed, Scanner, Stream};
use tokio::sync::{Mutex as Asking, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::clean::Clean;
use crate::json;
use crate::record::Record;
use crate::tools::attempt::Hop;
use crate::tools::oauth::Tokens;
use crate::vault_link::VaultLink;

/// How long a request waits for the first marks.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long one question to the vault holds up what waits for it.
const VAULT_LIMIT: Duration = Duration::from_secs(2);

/// How soon the vault is asked again that did not give them.
const AGAIN: Duration = Duration::from_millis(200);

/// Longer texts are scanned beside what else egress does.
const LONG: usize = 16 * 1024;

/// The most sessions of which is remembered what they sent.
const MAX_SESSIONS: usize = 256;

/// Of what a session sent the last so many bytes are remembered. Only as much of a body is looked through once
/// more with them before it.
const REMEMBERED: usize = 4 * 1024;

/// The most rows about one text.
const MAX_ROWS: usize = 16;

/// What is looked for, and who is told.
#[derive(Clone)]
pub(crate) struct Leaks {
    vault: VaultLink,
    record: Record,
    known: watch::Sender<Known>,
    asking: Arc<Asking<()>>,
    /// What each session sent last.
    sent: Arc<Mutex<HashMap<SessionId, String>>>,
    /// What is no secret of the vault, and was got with one.
    tokens: Tokens,
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
    Tool,
    /// On the way out, from a program in a box.
    Box,
    /// On the way into the model.
    Model,
}

impl Where {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "a tool's request",
            Self::Box => "a request of a program in a box",
            Self::Model => "a request to the model",
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

    /// What to scan with what leaves. None as long as nobody knows what the vault holds.
    async fn for_requests(&self) -> Option<Arc<Scanner>> {
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

    /// What looks through a request of this session that is about to go out.
    pub(crate) async fn look(&self, session: &SessionId, place: Where) -> Result<Look, Stopped> {
        let scanner = self.for_requests().await.ok_or(Stopped::Unknown)?;
        Ok(Look {
            before: self.take(session),
            own: Stream::new(),
            begun: 0,
            leaks: self.clone(),
            session: session.clone(),
            place,
            scanner,
        })
    }

    /// What a tool is about to send: nothing in it may be a secret, nor complete one of which
    /// the requests before it held a piece.
    pub(crate) async fn check(&self, session: &SessionId, hop: &Hop) -> Result<(), Stopped> {
        let mut look = self.look(session, Where::Tool).await?;
        look.at(hop.text()).await?;
        look.after(hop.essence()).await
    }

    /// What a session sent before.
    fn take(&self, session: &SessionId) -> String {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.remove(session).unwrap_or_default()
    }

    fn keep(&self, session: &SessionId, text: String) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.len() >= MAX_SESSIONS {
            sent.clear();
        }
        sent.insert(session.clone(), text);
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
        self.report(session, Where::Model, &findings);
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
                protocol::log!(
                    "bulkhead-egress: the gateway was not told of a decoy that turned up"
                );
            }
        }
    }
}

/// Why a request does not go out.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// Nobody knows what the vault holds.
    Unknown,
    /// The scan failed.
    Unscanned,
    /// What is in it, which is written down already.
    Found(Vec<Finding>),
}

impl Stopped {
    /// Why, where nothing was found.
    pub(crate) fn unseen(&self) -> &'static str {
        match self {
            Self::Unknown => {
                "what must not leave is not known, since the vault does not answer; see \
                 `bulkhead status`"
            }
            Self::Unscanned | Self::Found(_) => "it could not be scanned for secrets",
        }
    }
}

impl From<Stopped> for FetchFault {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Found(findings) => Self::Leak {
                kinds: kinds(&findings),
                honeytokens: honeytokens(&findings),
            },
            Stopped::Unknown | Stopped::Unscanned => Self::NotAllowed {
                reason: stopped.unseen().to_owned(),
            },
        }
    }
}

/// Looks through one request. What the session sent before is remembered while it does, and what this request
/// sent when it is dropped.
///
/// What comes in pieces is looked through by itself, and its beginning once more after what was sent before:
/// whatever stood there, a key at the beginning would be the middle of something.
pub(crate) struct Look {
    leaks: Leaks,
    session: SessionId,
    place: Where,
    scanner: Arc<Scanner>,
    /// What the session sent last.
    before: String,
    own: Stream,
    /// Bytes of the body so far.
    begun: usize,
}

impl Look {
    /// A text that stands by itself.
    pub(crate) async fn at(&self, text: String) -> Result<(), Stopped> {
        let scanner = Arc::clone(&self.scanner);
        let scanned = beside(text.len(), move || scanner.scan(&text));
        self.judge(scanned.await.ok_or(Stopped::Unscanned)?)
    }

    /// A text that goes on where the session left off. One that completes a secret is not remembered: it does
    /// not leave, and what stood before it still waits for its other half.
    pub(crate) async fn after(&mut self, text: String) -> Result<(), Stopped> {
        let whole = format!("{}{text}", self.before);
        let (scanner, border) = (Arc::clone(&self.scanner), self.before.len());
        let scanned = spawn_blocking(move || {
            let mut findings = scanner.scan(&whole);
            findings.retain(|found| found.end > border);
            findings
        });
        let findings = scanned.await.map_err(|_| Stopped::Unscanned)?;
        self.judge(findings)?;
        self.remember(&text);
        Ok(())
    }

    /// The next piece of a body; how many bytes of all of it are let through by that.
    pub(crate) async fn along(&mut self, more: String) -> Result<usize, Stopped> {
        let end = more.floor_char_boundary(REMEMBERED.saturating_sub(self.begun));
        if end > 0 {
            self.after(more[..end].to_owned()).await?;
        }
        self.begun = self.begun.saturating_add(more.len());
        self.remember(&more[end..]);
        self.own(move |stream, scanner| stream.push(scanner, &more))
            .await
    }

    fn remember(&mut self, text: &str) {
        self.before.push_str(text);
        let gone = self.before.len().saturating_sub(REMEMBERED);
        self.before.drain(..self.before.ceil_char_boundary(gone));
    }

    /// Nothing goes on from here: all of it is let through.
    pub(crate) async fn end(&mut self) -> Result<usize, Stopped> {
        self.own(Stream::finish).await
    }

    /// However short a piece is, what was held back before is scanned with it, so all else goes on meanwhile.
    async fn own(
        &mut self,
        step: impl FnOnce(&mut Stream, &Scanner) -> Passed + Send + 'static,
    ) -> Result<usize, Stopped> {
        let mut stream = std::mem::take(&mut self.own);
        let scanner = Arc::clone(&self.scanner);
        let passed = spawn_blocking(move || {
            let passed = step(&mut stream, &scanner);
            (stream, passed)
        });
        let (stream, passed) = passed.await.map_err(|_| Stopped::Unscanned)?;
        self.own = stream;
        self.judge(passed.findings)?;
        Ok(passed.text.len())
    }

    /// Writes down what was found.
    fn judge(&self, findings: Vec<Finding>) -> Result<(), Stopped> {
        let findings = secrets(findings);
        if findings.is_empty() {
            return Ok(());
        }
        self.leaks.report(&self.session, self.place, &findings);
        Err(Stopped::Found(findings))
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        let sent = std::mem::take(&mut self.before);
        self.leaks.keep(&self.session, sent);
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

/// The kinds of what was found, each once.
pub(crate) fn kinds(findings: &[Finding]) -> Vec<String> {
    let mut kinds: Vec<String> = findings.iter().map(|it| it.kind.to_string()).collect();
    kinds.sort();
    kinds.dedup();
    kinds
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
