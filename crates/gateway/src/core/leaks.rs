//! What is said to people and kept in the record holds no secret, and no link that carries
//! something away.
//!
//! The vault gives marks of what it holds ([`protocol::marks`]), by which its values are found
//! and from which nobody can read them. What enters the model and what tools send is looked
//! through by egress.

use std::os::unix::net::UnixStream;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use protocol::agent::{AgentRequest, TurnFault};
use protocol::channel::ChannelEvent;
use protocol::control::Peer;
use protocol::egress::{FetchBody, FetchOutcome, FetchReply};
use protocol::event::Event as Fact;
use protocol::frame::Link;
use protocol::ids::{SecretName, SessionId, TurnId};
use protocol::runner::{Change, Changes, Fate, RunOutcome, RunReply};
use protocol::time::Millis;
use protocol::vault::{VaultReply, VaultRequest};
use protocol::workspace::HistoryReply;
use scan::{Finding, Kind, Scanner, Stream, links, redact};

use super::state::Place;
use super::wire::{Event, LinkId};
use super::{Fatal, Gateway, texts};

/// How often the vault is asked whether what it holds is another thing.
const EVERY: Duration = Duration::from_secs(2);

/// The most rows about one text.
const MAX_ROWS: usize = 16;

/// So much of what was said in a session is looked through again with what is said next, in bytes: more than any
/// key but a private one has, and little enough to be looked through with every piece.
const KEPT: usize = 512;

/// The longest words of a model's server in a fault, in bytes, and how much of them is looked through.
const MAX_FAULT: usize = 500;

/// The longest word of an answer that is waited for, in bytes.
const MAX_WORD: usize = 4096;

/// What is looked for.
#[derive(Default)]
pub(super) struct Leaks {
    shared: Shared,
    link: LinkId,
}

/// What is looked for, also by the threads that read links: long texts hold up nobody but the
/// link that they came over.
#[derive(Clone)]
pub(super) struct Shared(Arc<RwLock<Arc<Scanner>>>);

impl Default for Shared {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(Arc::new(Scanner::of_formats()))))
    }
}

impl Shared {
    fn look_for(&self, scanner: Scanner) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(scanner);
    }

    fn now(&self) -> Arc<Scanner> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The vault's own values in the arguments of a call; a model was given none.
    pub(super) fn in_call(&self, request: &AgentRequest) -> Vec<Finding> {
        let AgentRequest::CallTool { args, .. } = request else {
            return Vec::new();
        };
        own(self.now().scan(args))
    }

    /// What came of a run, without secrets, and what was found.
    pub(super) fn out_of_run(&self, reply: RunReply) -> (RunReply, Vec<Finding>) {
        match reply {
            RunReply::Finished { call, outcome } => {
                let (stdout, mut found) = self.out_of(outcome.stdout);
                let (stderr, more) = self.out_of(outcome.stderr);
                found.extend(more);
                let changes = self.out_of_changes(outcome.changes, &mut found);
                let outcome = RunOutcome {
                    stdout,
                    stderr,
                    changes,
                    ..outcome
                };
                (RunReply::Finished { call, outcome }, found)
            }
            refused @ RunReply::Refused { .. } => (refused, Vec::new()),
        }
    }

    /// What became of a step that was undone, likewise.
    pub(super) fn out_of_history(&self, reply: HistoryReply) -> HistoryReply {
        match reply {
            HistoryReply::Undone { entry, changes } => {
                let changes = self.out_of_changes(changes, &mut Vec::new());
                HistoryReply::Undone { entry, changes }
            }
            other => other,
        }
    }

    /// The names of files are a run's own words.
    fn out_of_changes(&self, changes: Changes, found: &mut Vec<Finding>) -> Changes {
        let mut clean = |text: String| {
            let (text, more) = self.out_of(text);
            found.extend(more);
            text
        };
        let fate = match changes.fate {
            Fate::Conflict { paths } => Fate::Conflict {
                paths: paths.into_iter().map(&mut clean).collect(),
            },
            Fate::ReadOnly { paths } => Fate::ReadOnly {
                paths: paths.into_iter().map(&mut clean).collect(),
            },
            Fate::Failed { reason, fix } => Fate::Failed {
                reason: clean(reason),
                fix,
            },
            fate @ (Fate::Unchanged | Fate::Kept { .. } | Fate::Discarded) => fate,
        };
        let renamed = |change: Change| Change {
            path: clean(change.path),
            ..change
        };
        Changes {
            fate,
            list: changes.list.into_iter().map(renamed).collect(),
            ..changes
        }
    }

    /// The same of an answer of a host.
    pub(super) fn out_of_answer(&self, reply: FetchReply) -> (FetchReply, Vec<Finding>) {
        match reply {
            FetchReply::Fetched {
                call,
                outcome:
                    outcome @ FetchOutcome {
                        body: FetchBody::Text { .. },
                        ..
                    },
            } => {
                let text = match outcome.body {
                    FetchBody::Text { text } | FetchBody::Base64 { base64: text } => text,
                };
                let (text, found) = self.out_of(text);
                let outcome = FetchOutcome {
                    body: FetchBody::Text { text },
                    ..outcome
                };
                (FetchReply::Fetched { call, outcome }, found)
            }
            other @ (FetchReply::Fetched { .. }
            | FetchReply::Refused { .. }
            | FetchReply::Touched { .. }) => (other, Vec::new()),
        }
    }

    fn out_of(&self, text: String) -> (String, Vec<Finding>) {
        let findings = self.now().scan(&text);
        match findings.is_empty() {
            true => (text, findings),
            false => (redact(&text, &findings), findings),
        }
    }
}

/// What an agent says while a turn runs, as far as it may be shown.
#[derive(Default)]
pub(super) struct Speech {
    stream: Stream,
    /// What no break is in yet: a link is made inert as a whole.
    word: String,
    /// How many secrets were found in what was said.
    found: usize,
}

impl Speech {
    /// What is said next, after this.
    pub(super) fn after(said: &str) -> Self {
        Self {
            stream: Stream::after(said),
            ..Self::default()
        }
    }
}

/// Reads the marks of the vault in a thread of its own until the link ends.
pub(super) fn read_vault(
    id: LinkId,
    stream: UnixStream,
    looked_for: Shared,
    events: SyncSender<Event>,
) -> std::io::Result<()> {
    let link = Link::<VaultRequest, VaultReply>::new(stream);
    let read = move || {
        let mut known = 0;
        while link.send(&VaultRequest::Marks { after: known }).is_ok() {
            match link.receive() {
                Ok(VaultReply::Marks { generation, marks }) => {
                    known = generation;
                    looked_for.look_for(Scanner::new(marks));
                }
                Ok(VaultReply::Unchanged | VaultReply::Locked | VaultReply::Refused { .. }) => {}
                // Whatever else it says, it does not keep to its link.
                Ok(_) | Err(_) => break,
            }
            thread::sleep(EVERY);
        }
        link.close();
        // If nobody listens any more, the gateway is ending.
        let _ = events.send(Event::MarksGone(id));
    };
    thread::Builder::new()
        .name("marks".to_owned())
        .spawn(read)
        .map(drop)
}

/// Those of the vault's own values.
pub(super) fn own(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.retain(|it| [Kind::SECRET, Kind::HONEYTOKEN].contains(&it.kind));
    findings
}

/// The end of what was said, as far as it can belong to what is said next.
pub(super) fn end_of(said: &str) -> &str {
    &said[said.floor_char_boundary(said.len().saturating_sub(KEPT))..]
}

/// Up to where a text can be shown before it goes on: no link reaches over it.
fn last_break(text: &str) -> Option<usize> {
    if text.len() > MAX_WORD {
        return Some(text.len());
    }
    // Some alphabets have no blanks between words.
    let foreign = || {
        let (at, sign) = text.char_indices().rfind(|(_, sign)| !sign.is_ascii())?;
        let plain = !text.contains([':', '/', '.', '@', '!', '[', '<', '&']);
        plain.then_some(at + sign.len_utf8())
    };
    text.rfind(char::is_whitespace).or_else(foreign)
}

impl Gateway {
    /// For a thread that reads a link.
    pub(super) fn looked_for(&self) -> Shared {
        self.leaks.shared.clone()
    }

    /// A link to the vault is in use from now on.
    pub(super) fn vault_linked(&mut self, id: LinkId) {
        self.leaks.link = id;
    }

    /// The vault is gone. What was looked for stays.
    pub(super) fn marks_gone(&mut self, link: LinkId) {
        if link == self.leaks.link && !self.is_frozen() {
            self.unlinked.push(Peer::Vault);
        }
    }

    /// A piece of an answer, as far as it can be shown already.
    pub(super) fn speak(&mut self, id: &SessionId, turn: TurnId, text: &str) -> Result<(), Fatal> {
        let scanner = self.leaks.shared.now();
        let Some(running) = self.sessions.get_mut(id).and_then(|it| it.turn(turn)) else {
            return Ok(());
        };
        let passed = running.speech.stream.push(&scanner, text);
        running.speech.found += passed.findings.len();
        running.speech.word.push_str(&passed.text);
        let rest = match last_break(&running.speech.word) {
            Some(at) => running.speech.word.split_off(at),
            None => return self.leaked(id, "an answer", &passed.findings),
        };
        let ready = std::mem::replace(&mut running.speech.word, rest);
        let place = running.message.place.clone();
        self.show_piece(&place, turn, &ready);
        self.leaked(id, "an answer", &passed.findings)
    }

    /// What was held back of an answer, now that nothing follows for a while.
    pub(super) fn speak_out(&mut self, id: &SessionId, turn: TurnId) -> Result<(), Fatal> {
        let scanner = self.leaks.shared.now();
        let Some(running) = self.sessions.get_mut(id).and_then(|it| it.turn(turn)) else {
            return Ok(());
        };
        let passed = running.speech.stream.finish(&scanner);
        running.speech.found += passed.findings.len();
        let ready = std::mem::take(&mut running.speech.word) + &passed.text;
        let place = running.message.place.clone();
        self.show_piece(&place, turn, &ready);
        self.leaked(id, "an answer", &passed.findings)
    }

    fn show_piece(&self, place: &Place, turn: TurnId, text: &str) {
        if text.is_empty() {
            return;
        }
        let conversation = place.conversation.clone();
        let text = self.inert(text);
        let piece = ChannelEvent::Token {
            conversation,
            turn,
            text,
        };
        self.surfaces.stream(place, &piece);
    }

    /// An answer as it is kept and delivered. What was found in it is told already where it was
    /// streamed; an agent need not have streamed it.
    pub(super) fn presentable(
        &mut self,
        id: &SessionId,
        turn: TurnId,
        text: &str,
    ) -> Result<String, Fatal> {
        let session = self.sessions.get_mut(id);
        let turn = session.and_then(|session| session.turn(turn));
        let told = turn.map_or(0, |turn| turn.speech.found);
        self.said_next(id, "an answer", told, text)
    }

    /// A fault as an agent words it, within bounds and as safe as an answer: its words come from a
    /// model's server.
    pub(super) fn presentable_fault(
        &mut self,
        id: &SessionId,
        fault: TurnFault,
    ) -> Result<TurnFault, Fatal> {
        let mut said = |words: String| {
            // What is found may reach over where it is cut.
            let words = texts::shortened(&words, 16 * MAX_FAULT);
            let words = self.said_next(id, "a fault of the model", 0, &words)?;
            Ok::<_, Fatal>(texts::shortened(&words, MAX_FAULT))
        };
        Ok(match fault {
            TurnFault::ModelRefused { status, message } => TurnFault::ModelRefused {
                status,
                message: said(message)?,
            },
            TurnFault::ModelBroken { detail } => TurnFault::ModelBroken {
                detail: said(detail)?,
            },
            other => other,
        })
    }

    /// What is said next in a session, without what is found in it and in what was said before together.
    /// So many findings are told already.
    fn said_next(
        &mut self,
        id: &SessionId,
        place: &str,
        told: usize,
        text: &str,
    ) -> Result<String, Fatal> {
        let scanner = self.leaks.shared.now();
        let Some(session) = self.sessions.get_mut(id) else {
            return Ok(String::new());
        };
        let before = session.said.len();
        session.said.push_str(text);
        let mut findings = scanner.scan(&session.said);
        findings.retain(|it| it.end > before);
        for it in &mut findings {
            (it.start, it.end) = (it.start.saturating_sub(before), it.end - before);
        }
        let clean = redact(text, &findings);
        session.said.truncate(before);
        session.said.push_str(&clean);
        session.said = end_of(&session.said).to_owned();
        if told >= findings.len() {
            findings.retain(|it| it.kind == Kind::HONEYTOKEN);
        }
        self.leaked(id, place, &findings)?;
        Ok(self.inert(&clean))
    }

    /// The text without a live link to a host that no egress rule names.
    fn inert(&self, text: &str) -> String {
        let (rules, now) = (self.rules.in_force.egress().rules(), Millis::now());
        let allowed = |host: &str| {
            rules
                .iter()
                .any(|rule| rule.is_in_force(now) && rule.host.covers(host))
        };
        links::defang(text, &allowed)
    }

    /// The text without secrets, and what was found in it.
    pub(super) fn out_of(&self, text: &str) -> (String, Vec<Finding>) {
        self.leaks.shared.out_of(text.to_owned())
    }

    /// The text without secrets, for a card or a list.
    pub(super) fn redacted(&self, text: &str) -> String {
        self.out_of(text).0
    }

    /// Records what was found and redacted, and tells it. A decoy among it halts the session.
    pub(super) fn leaked(
        &mut self,
        id: &SessionId,
        place: &str,
        findings: &[Finding],
    ) -> Result<(), Fatal> {
        if findings.is_empty() {
            return Ok(());
        }
        let row = |finding: &Finding| Fact::LeakStopped {
            place: place.to_owned(),
            what: finding.kind.to_string(),
            name: finding.name.clone(),
        };
        let rows = findings.iter().take(MAX_ROWS).map(row).collect();
        if let Err(error) = self.record.write(id, rows) {
            return self.record_lost(&error);
        }
        let is_decoy = |it: &&Finding| it.kind == Kind::HONEYTOKEN;
        let decoys: Vec<SecretName> = findings
            .iter()
            .filter(is_decoy)
            .filter_map(|it| it.name.clone())
            .collect();
        match decoys.is_empty() {
            false => self.touched(id, &decoys),
            true => match self.state.place(id)? {
                Some(whose) => {
                    self.notice(&whose, None, texts::leak_stopped(place, findings.len()))
                }
                None => Ok(()),
            },
        }
    }

    /// A decoy turned up in a session: it has no turn any more, this one and those to come.
    pub(super) fn touched(&mut self, id: &SessionId, decoys: &[SecretName]) -> Result<(), Fatal> {
        let Some(decoy) = decoys.first() else {
            return Ok(());
        };
        // On the disk before anything else: what halts a session outlives a crash.
        if !self.state.halt(id, decoy, Millis::now())? {
            return Ok(());
        }
        protocol::log!(
            "bulkhead-gateway: session {id} is halted: the decoy {decoy} turned up in it"
        );
        let halted = Fact::SessionHalted {
            decoy: decoy.clone(),
        };
        if let Err(error) = self.record.write(id, vec![halted]) {
            return self.record_lost(&error);
        }
        self.cancel(id)?;
        match self.state.place(id)? {
            Some(place) => self.notice(&place, None, texts::halted(decoy)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_up_to_where_no_link_reaches_over() {
        for (text, shown) in [
            ("two words", "two"),
            ("one", ""),
            ("言葉と言", "言葉と言"),
            ("слово", "слово"),
            ("見て[ここ](https://a.example/言", ""),
            ("見て https://a.example/言", "見て"),
            ("https://пример", ""),
        ] {
            assert_eq!(&text[..last_break(text).unwrap_or(0)], shown);
        }
        let long = "x".repeat(MAX_WORD + 1);
        assert_eq!(last_break(&long), Some(long.len()));
    }
}
