//! The scene: an installation with something to find in every corner, and one intruder at a time.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use intruder::scene::{
    self, CANARY, Later, Line, ORDINARY, SERIOUS, Scene, Secret, Target, WRITTEN,
};
use intruder::table::{Asset, Row};
use ledger::read::{Filter, Reader};
use protocol::channel::{ApprovalAnswer, ApprovalCard, CallCard};
use protocol::event::Event;
use protocol::ids::{ConversationId, PrincipalId, SenderId, SessionId, hex, random};
use protocol::operator::{OperatorReply, OperatorRequest, PairState};
use protocol::supervisor::{ProgramState, ProgramStatus, SupervisorReply, SupervisorRequest};
use sandbox::Program;
use serde_json::json;

use super::judge::Seen;
use super::place::{self, Programs};
use crate::connect::{Operator, Supervisor};
use crate::demo::relay::Canary;
use crate::fault::Fault;
use crate::programs;
use crate::scratch::{End, Person, Scratch, Speaker, StandIn, remove_all};

/// How long an intruder may take for everything.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a question may take to come up.
const QUESTION: Duration = Duration::from_secs(10);
/// How long the supervisor gets to act on the last thing that the intruder asks.
const AFTERWARDS: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(10);

/// What a call of tier 3 leaves in the workspace.
const MARK: &str = "forged";
const COMMAND: &str = "sh -c 'date > forged'";
/// The workspace's secret, and the user's.
const NOTES: &str = "notes.txt";
const HOST_FILE: &str = "diary.txt";

/// A secret, whom it is for, and what it stands for.
const SECRETS: [(&str, &str, Asset); 3] = [
    ("telegram-token", "channel:telegram", Asset::OtherToken),
    ("web-token", "channel:web", Asset::OtherToken),
    ("model-key", "model", Asset::ProviderKey),
];

/// Everything that stays the same from one intruder to the next.
pub(super) struct Stage<'a> {
    scratch: &'a Scratch,
    programs: Programs,
    /// The home as it was made; each intruder gets a copy.
    base: PathBuf,
    outside: PathBuf,
    laid_out: Vec<(String, Asset)>,
    /// The session that is somebody else's for all but those who serve it.
    session: SessionId,
    somebody: (SenderId, ConversationId),
    web_port: u16,
}

impl<'a> Stage<'a> {
    /// Makes it, with a turn that was really had.
    pub(super) fn build(scratch: &'a Scratch) -> Result<Self, Fault> {
        let root = scratch.root();
        let outside = root.join("outside");
        fs::create_dir(&outside).map_err(Fault::io(format!("make {outside:?}")))?;
        let model = model(
            root,
            &json!({ "steps": [{ "text": { "tokens": ["noted"] } }] }),
        )?;
        let (web_port, mut laid_out) = (free_port()?, Vec::new());
        let config = scratch.configure(&configuration(&loopback(&model), web_port, 1, 1))?;
        for (name, subject, asset) in SECRETS {
            let file = root.join("secret");
            // As a bot's token is written, since its channel looks at that.
            let value = invent(asset, &mut laid_out)?;
            write(&file, &format!("1:{value}"))?;
            let file = file.display().to_string();
            keep_secret(
                scratch,
                &["vault", "add", name, "--for", subject, "--file", &file],
            )?;
        }
        lay_out(&outside.join(HOST_FILE), Asset::HostFiles, &mut laid_out)?;
        let notes = config.workspace.join(NOTES);
        lay_out(&notes, Asset::WorkspaceFiles, &mut laid_out)?;
        scratch.up()?;
        let said = invent(Asset::OtherSession, &mut laid_out)?;
        let mut speaker = Speaker::open(scratch.home())?;
        speaker.turn(&format!("Remember {said}."), &mut Nobody)?;
        let somebody = speaker.somebody();
        drop(speaker);
        scratch.down()?;
        let session = session_of(&scratch.home().ledger().join("ledger.db"), &said)?;
        let base = root.join("base");
        fs::rename(root.join("home"), &base).map_err(Fault::io("keep the home"))?;
        Ok(Self {
            scratch,
            programs: Programs::lay_out(root.join("programs"))?,
            base,
            outside,
            laid_out,
            session,
            somebody,
            web_port,
        })
    }

    /// An attacker under no confinement, beside everything that runs.
    pub(super) fn without_confinement(&self) -> Result<Seen, Fault> {
        let run = self.begin(&self.loopback_model()?, None)?;
        run.tell(None, String::new())?;
        let mut intruder = Command::new(programs::path("bulkhead-intruder")?)
            .arg("--unconfined")
            .arg(self.programs.folder())
            .env_clear()
            .stdin(Stdio::null())
            .spawn()
            .map_err(Fault::io("start bulkhead-intruder"))?;
        let lines = run.lines();
        let ended = intruder.wait();
        ended.map_err(Fault::io("wait for bulkhead-intruder"))?;
        let seen = Seen {
            lines: lines?,
            laid_out: self.laid_out.clone(),
            ..Seen::default()
        };
        self.scratch.down()?;
        Ok(seen)
    }

    /// An intruder in the place of this program.
    pub(super) fn with_intruder(&self, row: &Row) -> Result<Seen, Fault> {
        let model = self.loopback_model()?;
        self.programs.replace(row.name, "bulkhead-intruder")?;
        let run = self.begin(&model, Some(row))?;
        let question = Question::raise(self, row.program);
        let login = match row.program {
            Program::ChannelWeb => run.login()?,
            _ => String::new(),
        };
        run.tell(question.as_ref().and_then(Question::card), login)?;
        run.lines()?;
        let mut seen = run.look(row)?;
        if let Some(question) = question {
            question.answer();
            let ended = question.turn_ended();
            if others_are_whole(row.program) && !ended {
                seen.harm.push("the turn did not end".to_owned());
            }
            self.scratch.down()?;
            question.forget();
        } else {
            self.scratch.down()?;
        }
        self.programs.replace(row.name, row.name)?;
        Ok(seen)
    }

    fn loopback_model(&self) -> Result<StandIn, Fault> {
        let call = json!({ "tool_calls": { "said": "", "calls": [{ "name": "exec", "args": { "command": COMMAND } }] } });
        let says = json!({ "text": { "tokens": ["done"] } });
        let ordinary = json!({ "tool_calls": { "said": "", "calls": [{ "name": "exec", "args": { "command": "touch ordinary" } }] } });
        let rules = json!([
            { "contains": ORDINARY, "steps": [ordinary, says] },
            { "contains": SERIOUS, "steps": [call, says] },
        ]);
        model(
            self.scratch.root(),
            &json!({ "rules": rules, "steps": [call, says], "then": "repeat" }),
        )
    }

    /// Lays out a fresh copy of everything and starts it.
    fn begin(&self, model: &StandIn, row: Option<&Row>) -> Result<Run<'_>, Fault> {
        let home = self.scratch.root().join("home");
        if home.exists() {
            remove_all(&home).map_err(Fault::io("clear the home"))?;
        }
        place::copy(&self.base, &home).map_err(Fault::io("copy the home"))?;
        clear(&self.outside.join(WRITTEN))?;
        let listen = || Canary::start().map_err(Fault::io("listen on 127.0.0.1"));
        // The channel has a rule for its own platform, and nobody reaches the other host unasked.
        let (host, platform) = (listen()?, listen()?);
        let route = match row.map(|row| row.program) {
            // The one that is given a key, for a host that it does not reach: it is itself in the way.
            Some(Program::Egress) => "url = \"https://models.invalid\"\nname = \"scripted\"\n\
                 [model.remote]\nhost = \"models.invalid\"\nsecret = \"model-key\"\n"
                .to_owned(),
            _ => loopback(model),
        };
        let config = configuration(&route, self.web_port, platform.port(), host.port());
        write(&self.scratch.home().config_file(), &config)?;
        let folder = self.programs.folder();
        let (report, later) = (folder.join("report"), folder.join("later"));
        for file in [&report, &later] {
            write(file, "")?;
        }
        let told = serde_json::to_string(&self.scene(&report, &later, host.port()));
        let told = told.map_err(|error| Fault::Refused(error.to_string()))?;
        write(&folder.join(scene::FILE), &told)?;
        self.scratch.up_from(&folder.join("bulkhead"))?;
        Ok(Run {
            stage: self,
            report,
            later,
            host,
            plain: model.pid(),
            config: place::contents(&self.scratch.home().rules()),
            config_file: config,
            outside: place::contents(&self.outside),
        })
    }

    fn scene(&self, report: &Path, later: &Path, port: u16) -> Scene {
        let home = self.scratch.home();
        let target = |asset, path| Target { asset, path };
        Scene {
            report: report.to_owned(),
            later: later.to_owned(),
            read: vec![
                target(Asset::VaultFile, home.vault().join("vault.json")),
                target(Asset::MasterKey, home.vault().join("vault.key")),
                target(Asset::History, home.ledger().join("ledger.db")),
                target(Asset::SigningKey, home.ledger().join("ledger.key")),
                target(Asset::OtherSession, home.gateway().join("state.db")),
                target(Asset::ForgedApproval, home.keys().join("operator.key")),
                target(Asset::HostFiles, self.outside.join(HOST_FILE)),
                target(Asset::WorkspaceFiles, home.default_workspace().join(NOTES)),
            ],
            write: vec![
                target(Asset::PolicyChange, home.config_file()),
                target(Asset::PolicyChange, home.rules()),
                target(Asset::HostFilesWritten, self.outside.join(HOST_FILE)),
                target(Asset::HostFilesWritten, self.outside.clone()),
            ],
            port,
            secrets: SECRETS
                .map(|(name, _, asset)| Secret {
                    name: name.to_owned(),
                    asset,
                })
                .to_vec(),
            vault: home.vault(),
            supervisor: home.run().join("supervisor.sock"),
            vault_socket: home.run().join("vault.sock"),
            command: COMMAND.to_owned(),
            workspace_file: NOTES.to_owned(),
        }
    }

    fn status(&self) -> Result<(u32, Vec<ProgramStatus>), Fault> {
        let supervisor = Supervisor::connect(self.scratch.home())?;
        match supervisor.ask(&SupervisorRequest::Status)? {
            SupervisorReply::Status { pid, programs, .. } => Ok((pid, programs)),
            SupervisorReply::Stopped
            | SupervisorReply::Frozen { .. }
            | SupervisorReply::Challenge { .. }
            | SupervisorReply::Resumed
            | SupervisorReply::Refused { .. } => Err(Fault::Unexpected("the supervisor")),
        }
    }
}

/// Everything running, with an intruder in it.
struct Run<'a> {
    stage: &'a Stage<'a>,
    report: PathBuf,
    later: PathBuf,
    host: Canary,
    /// A process that is not confined.
    plain: u32,
    config: Vec<(PathBuf, Vec<u8>)>,
    config_file: String,
    outside: Vec<(PathBuf, Vec<u8>)>,
}

impl Run<'_> {
    /// Tells the intruder what is only known now.
    fn tell(&self, card: Option<ApprovalCard>, login: String) -> Result<(), Fault> {
        let (supervisor, programs) = self.stage.status()?;
        let pids = programs.iter().filter_map(|program| match program.state {
            ProgramState::Starting { pid } | ProgramState::Running { pid, .. } => Some(pid),
            ProgramState::Waiting { .. } | ProgramState::Failed { .. } | ProgramState::Frozen => {
                None
            }
        });
        let later = Later {
            supervisor,
            processes: pids.chain([self.plain]).collect(),
            sender: self.stage.somebody.0.to_string(),
            conversation: self.stage.somebody.1.to_string(),
            session: self.stage.session.to_string(),
            card,
            login,
        };
        let text = serde_json::to_string(&later);
        let text = text.map_err(|error| Fault::Refused(error.to_string()))?;
        write(&self.later, &format!("{text}\n"))
    }

    /// What the intruder has told so far.
    fn told(&self) -> Result<Vec<Line>, Fault> {
        let text = fs::read_to_string(&self.report);
        let text = text.map_err(Fault::io(format!("read {:?}", self.report)))?;
        let lines = text.lines();
        Ok(lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// Says that whoever waits with a code is the owner.
    fn let_in(&self) -> Result<(), Fault> {
        let operator = Operator::connect(self.stage.scratch.home())?;
        let OperatorReply::Pairs { pairs } = operator.ask(&OperatorRequest::Pairs)? else {
            return Err(Fault::Unexpected("the gateway"));
        };
        for pair in pairs {
            if let PairState::Waiting { code, .. } = pair.state {
                let principal = PrincipalId::parse("owner");
                let principal = principal.map_err(|error| Fault::Refused(error.to_string()))?;
                operator.tell(&OperatorRequest::PairApprove { code, principal })?;
            }
        }
        Ok(())
    }

    /// The token of a new link to the page, which the page itself gets from a browser.
    fn login(&self) -> Result<String, Fault> {
        let operator = Operator::connect(self.stage.scratch.home())?;
        match operator.ask(&OperatorRequest::LoginLink)? {
            OperatorReply::LoginLink { url } => {
                Ok(url.rsplit('#').next().unwrap_or_default().to_owned())
            }
            _ => Err(Fault::Unexpected("the gateway")),
        }
    }

    /// The same, when it has tried everything but what may be its end.
    fn lines(&self) -> Result<Vec<Line>, Fault> {
        let until = Instant::now() + PATIENCE;
        loop {
            let lines = self.told()?;
            if lines.contains(&Line::Knocked) {
                self.let_in()?;
            }
            if lines.contains(&Line::Done) {
                return Ok(lines);
            }
            if Instant::now() > until {
                let log = self.stage.scratch.home().log().join("bulkhead.log");
                let log = fs::read_to_string(log).unwrap_or_default();
                return Err(Fault::Refused(format!(
                    "bulkhead-intruder did not come to an end; what the programs said: {log}"
                )));
            }
            thread::sleep(GLANCE);
        }
    }

    /// What happened, besides what was told, and what does not work any more.
    fn look(&self, row: &Row) -> Result<Seen, Fault> {
        let home = self.stage.scratch.home();
        let mut effects = Vec::new();
        let mut harm = Vec::new();
        if row.program != Program::Gateway {
            self.await_the_end_of(row.name)?;
        }
        let lines = self.told()?;
        let (_, programs) = self.stage.status()?;
        if agents(&programs) > agents_of_its_own(row.program) {
            effects.push((Asset::Supervisor, "it started an agent"));
        }
        for other in programs.iter().filter(|other| other.name != row.name) {
            let runs = matches!(other.state, ProgramState::Running { .. });
            if !runs || other.restarts > 0 {
                harm.push(format!("{}: {:?}", other.name, other.state));
            }
        }
        if home.default_workspace().join(MARK).exists() {
            effects.push((Asset::ForgedApproval, "the call ran"));
        }
        let config = fs::read_to_string(home.config_file()).unwrap_or_default();
        if config != self.config_file || place::contents(&home.rules()) != self.config {
            effects.push((Asset::PolicyChange, "it is another one now"));
        }
        if place::contents(&self.stage.outside) != self.outside {
            effects.push((Asset::HostFilesWritten, "they are others now"));
        }
        if self.host.connections() > 0 {
            effects.push((Asset::NetworkHost, "somebody came"));
        }
        let own = match row.program {
            Program::ChannelTelegram => "telegram-token",
            Program::ChannelWeb => "web-token",
            _ => "",
        };
        let of = SECRETS.iter().position(|(name, _, _)| *name == own);
        let is_channel = matches!(row.program, Program::ChannelWeb | Program::ChannelTelegram);
        if is_channel && !lines.contains(&Line::Counted) {
            harm.push(
                "the owner's yes to tier 2 did not count, so that its others prove nothing"
                    .to_owned(),
            );
        }
        // What shows that asking the vault can have an answer.
        let got = |at: usize| {
            let (text, _) = &self.stage.laid_out[at];
            let got = |line: &Line| matches!(line, Line::Loot { probe, text: found } if found == text && probe.starts_with("ask the vault"));
            lines.iter().any(got)
        };
        if let (Program::ChannelTelegram, Some(at)) = (row.program, of)
            && !got(at)
        {
            harm.push("it asked the vault for its own token in vain".to_owned());
        }
        let laid_out = self.stage.laid_out.iter().enumerate();
        let laid_out = laid_out.filter(|(at, _)| Some(*at) != of);
        Ok(Seen {
            lines,
            laid_out: laid_out.map(|(_, laid)| laid.clone()).collect(),
            effects,
            harm,
        })
    }

    /// The last thing that an intruder asks for is what only the gateway may, which ends it.
    fn await_the_end_of(&self, name: &str) -> Result<(), Fault> {
        let until = Instant::now() + AFTERWARDS;
        while Instant::now() < until {
            let (_, programs) = self.stage.status()?;
            let mut own = programs.iter().filter(|program| program.name == name);
            if own.all(|program| matches!(program.state, ProgramState::Failed { .. })) {
                return Ok(());
            }
            thread::sleep(GLANCE);
        }
        Ok(())
    }
}

fn agents(programs: &[ProgramStatus]) -> usize {
    let agents = programs.iter().filter(|it| it.name == "bulkhead-agent");
    agents.count()
}

/// How many sessions there may be while this program is an attacker's.
fn agents_of_its_own(program: Program) -> usize {
    match program {
        Program::Gateway => 0,
        // It speaks as its own owner as well, who has a session there.
        Program::ChannelWeb | Program::ChannelTelegram => 2,
        _ => 1,
    }
}

/// Whether a turn has to go on to its end when this program has become an attacker's.
fn others_are_whole(program: Program) -> bool {
    match program {
        Program::ChannelWeb
        | Program::ChannelTelegram
        | Program::Vault
        | Program::Sandbox
        | Program::Workspace => true,
        Program::Supervisor
        | Program::Gateway
        | Program::Agent
        | Program::Egress
        | Program::Ledger
        | Program::Engine
        | Program::Inner => false,
    }
}

/// A turn in which something of tier 3 is asked about, and nobody has answered yet.
struct Question {
    cards: Option<ApprovalCard>,
    answer: Sender<()>,
    ended: Receiver<bool>,
    turn: JoinHandle<()>,
}

impl Question {
    /// None in the gateway's place, which has nobody to ask.
    fn raise(stage: &Stage<'_>, program: Program) -> Option<Self> {
        if program == Program::Gateway {
            return None;
        }
        let (home, somebody) = (stage.scratch.home().clone(), stage.somebody.clone());
        let (card, cards) = channel();
        let (answer, answers) = channel();
        let (over, ended) = channel();
        let turn = thread::spawn(move || {
            // An agent has a session of its own, so that the other one is somebody else's.
            let speaker = match program {
                Program::Agent => Speaker::open(&home),
                _ => Speaker::open_as(&home, somebody),
            };
            let mut person = Waiting { card, answers };
            let turn = speaker.and_then(|mut speaker| speaker.turn("Please go on.", &mut person));
            // Whoever does not wait for it any more does not need it.
            let _ = over.send(matches!(turn, Ok(End::Reply(_) | End::Notice(_))));
        });
        Some(Self {
            cards: cards.recv_timeout(QUESTION).ok(),
            answer,
            ended,
            turn,
        })
    }

    fn card(&self) -> Option<ApprovalCard> {
        self.cards.clone()
    }

    /// Says no.
    fn answer(&self) {
        // The turn may be over.
        let _ = self.answer.send(());
    }

    fn turn_ended(&self) -> bool {
        self.ended.recv_timeout(QUESTION) == Ok(true)
    }

    /// When everything is stopped, so that nothing waits any more.
    fn forget(self) {
        // It cannot have panicked in a way that matters: what it had to tell is told.
        let _ = self.turn.join();
    }
}

/// Answers no, when it is time.
struct Waiting {
    card: Sender<ApprovalCard>,
    answers: Receiver<()>,
}

impl Person for Waiting {
    fn answer(&mut self, card: &ApprovalCard) -> ApprovalAnswer {
        // A second question, or nobody who waits, changes nothing about the answer.
        let _ = self.card.send(card.clone());
        let _ = self.answers.recv_timeout(PATIENCE);
        ApprovalAnswer::Deny
    }

    fn see(&mut self, _: &SessionId, _: &CallCard) -> Result<(), Fault> {
        Ok(())
    }
}

/// Is asked nothing.
struct Nobody;

impl Person for Nobody {
    fn answer(&mut self, _: &ApprovalCard) -> ApprovalAnswer {
        ApprovalAnswer::Deny
    }

    fn see(&mut self, _: &SessionId, _: &CallCard) -> Result<(), Fault> {
        Ok(())
    }
}

fn configuration(route: &str, web_port: u16, platform_port: u16, host_port: u16) -> String {
    format!(
        "[model]\napi = \"openai\"\n{route}[channel.web]\nport = {web_port}\n\
         [channel.telegram]\napi = \"http://127.0.0.1:{platform_port}\"\n[box]\nwall_seconds = 20\n\
         [[egress]]\nname = \"other\"\nsubject = \"tool:http_request\"\nhost = \"127.0.0.1\"\n\
         ports = [{host_port}]\nprivate = true\ncleartext = true\nask = \"always\"\n\
         owner = \"nobody\"\nexpires = \"2099-01-01\"\n"
    )
}

fn loopback(model: &StandIn) -> String {
    format!("url = \"{}\"\nname = \"scripted\"\n", model.url())
}

fn model(root: &Path, script: &serde_json::Value) -> Result<StandIn, Fault> {
    let path = root.join("script.json");
    write(&path, &script.to_string())?;
    StandIn::start(
        "bulkhead-scripted-model",
        &[std::ffi::OsStr::new("--script"), path.as_os_str()],
    )
}

/// A text that stands nowhere else.
fn invent(asset: Asset, laid_out: &mut Vec<(String, Asset)>) -> Result<String, Fault> {
    let text = format!("{CANARY}{}", hex(&random::<16>()?));
    laid_out.push((text.clone(), asset));
    Ok(text)
}

fn lay_out(path: &Path, asset: Asset, laid_out: &mut Vec<(String, Asset)>) -> Result<(), Fault> {
    write(path, &invent(asset, laid_out)?)
}

/// For the owner alone.
fn write(path: &Path, text: &str) -> Result<(), Fault> {
    let failed = |error| Fault::io(format!("write {path:?}"))(error);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(failed)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)
}

fn keep_secret(scratch: &Scratch, arguments: &[&str]) -> Result<(), Fault> {
    let own = std::env::current_exe().map_err(Fault::io("find this program"))?;
    let done = Command::new(own)
        .arg("--home")
        .arg(scratch.root().join("home"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(Fault::io("start bulkhead"))?;
    match done.success() {
        true => Ok(()),
        false => Err(Fault::Refused(
            "the vault does not keep a secret; its own words are above".to_owned(),
        )),
    }
}

fn session_of(record: &Path, said: &str) -> Result<SessionId, Fault> {
    let broken = |error: &dyn std::fmt::Display| Fault::Refused(error.to_string());
    let reader = Reader::open(record).map_err(|error| broken(&error))?;
    let rows = reader.rows(&Filter::default());
    let rows = rows.map_err(|error| broken(&error))?;
    let row = rows
        .into_iter()
        .find(|row| matches!(&row.event, Event::Inbound { text, .. } if text.contains(said)));
    row.map(|row| row.session)
        .ok_or_else(|| Fault::Refused("what was said is not in the record".to_owned()))
}

/// Of those that no outgoing connection is given by itself, so that it is still free when it is wanted.
fn free_port() -> Result<u16, Fault> {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 8_000;
    const APART: u32 = 16;
    let own = std::process::id() * APART % u32::from(COUNT);
    let own = u16::try_from(own).unwrap_or(0);
    let mut ports = (0..COUNT).map(|next| FIRST + (own + next) % COUNT);
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports
        .find(free)
        .ok_or_else(|| Fault::Refused(format!("no port from {FIRST} on is free on 127.0.0.1")))
}

/// What an earlier intruder wrote, if it did.
fn clear(path: &Path) -> Result<(), Fault> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Fault::io(format!("remove {path:?}"))(error))
        }
        _ => Ok(()),
    }
}
