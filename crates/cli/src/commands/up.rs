//! `bulkhead up`: check, start the supervisor, wait until all programs are ready.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use config::{Config, FreezeMark, Home, IDENTITIES, ensure_key, is_frozen};
use protocol::ids::ChannelId;
use protocol::supervisor::{ProgramState, ProgramStatus, SupervisorReply, SupervisorRequest};
use protocol::vault::{KeySource, LockState};

use super::vault::{in_words, reminders};
use super::{Context, login, status};
use crate::connect::{Operator, Supervisor};
use crate::fault::Fault;
use crate::terminal::{can_ask, harmless};
use crate::vault_link::{VaultLink, unlocking};
use crate::{frozen, interrupt, output, programs};

/// How long the programs may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// How often the supervisor is asked meanwhile.
const GLANCE: Duration = Duration::from_millis(4);

/// How often a passphrase may be typed before the rest starts with a locked vault.
const TRIES: u32 = 3;

/// How much of the log is shown when the start fails, in bytes.
const LOG_TAIL: u64 = 4096;

/// What the programs inherit. Nothing else of the environment reaches them.
const ENVIRONMENT: [&str; 9] = [
    "HOME",
    "BULKHEAD_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    // Where systemd puts credentials: a path, not what is in it.
    "CREDENTIALS_DIRECTORY",
    "PATH",
    "LANG",
    "TZ",
];

/// What can be said with `up`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Come back when everything is ready, and leave it running.
    #[arg(long)]
    detach: bool,
    /// Read the passphrase of a locked vault from this file (`-`: standard input) instead of asking for it.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<(), Fault> {
    let home = &context.home;
    let config = Config::load(home)?;
    match Supervisor::connect(home) {
        Ok(_) => {
            output::line("Bulkhead runs already.")?;
            return status::run(&status::Arguments::default(), home);
        }
        Err(Fault::NotUp) => {}
        Err(fault) => return Err(fault),
    }
    prepare(home, &config)?;
    match arguments.detach {
        true => {
            start(context)?;
            let vault = look_at_vault(home, arguments.passphrase_file.as_deref());
            welcome(home, &config)?;
            match vault {
                Vault::AsWanted => Ok(()),
                Vault::StaysLocked => Err(Fault::VaultLocked),
            }
        }
        false => in_foreground(context, &config, arguments.passphrase_file.as_deref()),
    }
}

/// Makes what the first start needs: folders, keys, the workspace.
pub(crate) fn prepare(home: &Home, config: &Config) -> Result<(), Fault> {
    home.create()?;
    // A section that was written by hand has had no `channel add` to make its key.
    let telegram = config.telegram.is_some().then_some("telegram");
    for name in IDENTITIES.into_iter().chain(telegram) {
        let name = ChannelId::parse(name).map_err(|error| Fault::Usage(error.to_string()))?;
        ensure_key(home, &name)?;
    }
    let workspace = &config.workspace;
    std::fs::create_dir_all(workspace)
        .map_err(Fault::io(format!("make the workspace {workspace:?}")))
}

/// The supervisor as it has to be started.
pub(crate) fn supervisor(context: &Context) -> Result<Command, Fault> {
    let mut command = Command::new(programs::path("bulkhead-supervisor")?);
    if let Some(folder) = &context.chosen {
        command.arg("--home").arg(folder);
    }
    clean_environment(&mut command);
    Ok(command)
}

fn clean_environment(command: &mut Command) {
    command.env_clear();
    for name in ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// Starts everything in the background and comes back when it is ready. Its words go to the log.
pub(crate) fn start(context: &Context) -> Result<(), Fault> {
    let own = std::env::current_exe().map_err(Fault::io("find out where this program lies"))?;
    start_from(&own, context)
}

/// The same with the programs that lie beside this `bulkhead`.
pub(crate) fn start_from(own: &Path, context: &Context) -> Result<(), Fault> {
    let log = log_file(&context.home);
    let mut log_end = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log)
        .map_err(Fault::io(format!("open the log {log:?}")))?;
    let began = log_end
        .seek(SeekFrom::End(0))
        .map_err(Fault::io(format!("read the log {log:?}")))?;
    let mut command = Command::new(own);
    if let Some(folder) = &context.chosen {
        command.arg("--home").arg(folder);
    }
    clean_environment(&mut command);
    let mut child = command
        .arg("supervise")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log_end)
        .spawn()
        .map_err(Fault::io("start bulkhead-supervisor"))?;
    let ended = |child: &mut Child| {
        child
            .try_wait()
            .map_err(Fault::io("watch bulkhead-supervisor"))
    };
    match wait_until_ready(&context.home, || ended(&mut child)) {
        Ok(()) => Ok(()),
        Err(fault) => {
            protocol::log!("{}", harmless(tail(&log, began).trim_end()));
            give_up(&context.home, &mut child);
            Err(fault)
        }
    }
}

fn log_file(home: &Home) -> PathBuf {
    home.log().join("bulkhead.log")
}

/// What was written to the log since this start began, the end of it.
fn tail(log: &Path, began: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = std::fs::File::open(log)?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(began.max(end.saturating_sub(LOG_TAIL))))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// What ends the foreground.
enum End {
    /// The supervisor is gone.
    Died(io::Result<ExitStatus>),
    /// Somebody wants it to stop.
    Stop,
}

fn in_foreground(
    context: &Context,
    config: &Config,
    passphrase: Option<&Path>,
) -> Result<(), Fault> {
    let (tell, ends) = channel();
    let stops = tell.clone();
    interrupt::listen(move |_| {
        // Nobody listens any more only when the process ends.
        let _ = stops.send(End::Stop);
    })?;
    let mut child = supervisor(context)?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // Ctrl-C is for this process, which then stops everything in order.
        .process_group(0)
        .spawn()
        .map_err(Fault::io("start bulkhead-supervisor"))?;
    thread::spawn(move || {
        let _ = tell.send(End::Died(child.wait()));
    });
    let ready = wait_until_ready(&context.home, || match ends.try_recv() {
        Ok(End::Died(Ok(status))) => Ok(Some(status)),
        Ok(End::Died(Err(error))) => Err(Fault::io("watch bulkhead-supervisor")(error)),
        Ok(End::Stop) => Err(Fault::Refused(
            "stopped before everything was ready".to_owned(),
        )),
        Err(_) => Ok(None),
    });
    match ready {
        Ok(()) => {
            // Said; there is no exit code to say it with while this stays.
            let _ = look_at_vault(&context.home, passphrase);
            welcome(&context.home, config)?;
            protocol::log!("Ctrl-C stops it.");
            stay(&context.home, &ends)
        }
        Err(fault) => {
            stop(&context.home, &ends);
            Err(fault)
        }
    }
}

/// Stays until the supervisor is gone or somebody wants it to be.
fn stay(home: &Home, ends: &Receiver<End>) -> Result<(), Fault> {
    match ends.recv() {
        Ok(End::Stop) => {
            protocol::log!("\nstopping");
            Supervisor::connect(home)?.stop()?;
            match ends.recv_timeout(READY_LIMIT) {
                Ok(_) => Ok(()),
                Err(_) => Err(Fault::Refused("the supervisor does not end".to_owned())),
            }
        }
        Ok(End::Died(Ok(status))) if status.success() => Ok(()),
        Ok(End::Died(Ok(status))) => Err(Fault::Refused(format!("the supervisor ended: {status}"))),
        Ok(End::Died(Err(error))) => Err(Fault::io("watch bulkhead-supervisor")(error)),
        Err(_) => Err(Fault::Refused(
            "the supervisor cannot be watched".to_owned(),
        )),
    }
}

/// Stops what was started in vain. The fault that led here is what is reported.
fn stop(home: &Home, ends: &Receiver<End>) {
    if let Ok(supervisor) = Supervisor::connect(home) {
        let _ = supervisor.stop();
        let _ = ends.recv_timeout(READY_LIMIT);
    }
}

fn give_up(home: &Home, child: &mut Child) {
    match Supervisor::connect(home) {
        Ok(supervisor) => drop(supervisor.stop()),
        // It never came as far as its socket.
        Err(_) => drop(child.kill()),
    }
    let _ = child.wait();
}

/// Waits until every program has said that it is ready, the supervisor has ended, a program
/// cannot run, or the time is up.
fn wait_until_ready(
    home: &Home,
    mut ended: impl FnMut() -> Result<Option<ExitStatus>, Fault>,
) -> Result<(), Fault> {
    let deadline = Instant::now() + READY_LIMIT;
    let mut link = None;
    loop {
        if let Some(status) = ended()? {
            return Err(Fault::Refused(format!(
                "the supervisor ended before everything was ready: {status}"
            )));
        }
        let programs = programs(home, &mut link)?;
        if let Some(reason) = programs.iter().find_map(failed) {
            return Err(Fault::Refused(reason));
        }
        if !programs.is_empty() && programs.iter().all(runs) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Fault::Refused(not_ready(&programs)));
        }
        thread::sleep(GLANCE);
    }
}

/// The programs as far as the supervisor tells of them. One that does not answer has yet to
/// begin, or has ended, which is seen by its process.
fn programs(home: &Home, link: &mut Option<Supervisor>) -> Result<Vec<ProgramStatus>, Fault> {
    let supervisor = match link.take() {
        Some(supervisor) => supervisor,
        None => match Supervisor::connect(home) {
            Ok(supervisor) => supervisor,
            Err(Fault::NotUp) => return Ok(Vec::new()),
            Err(fault) => return Err(fault),
        },
    };
    match supervisor.ask(&SupervisorRequest::Status) {
        Ok(SupervisorReply::Status { programs, .. }) => {
            *link = Some(supervisor);
            Ok(programs)
        }
        Ok(reply) => Err(frozen::refusal(reply)),
        Err(Fault::Link { .. }) => Ok(Vec::new()),
        Err(fault) => Err(fault),
    }
}

/// Whether it is as it is to be: what is frozen is not started before the freeze ends.
fn runs(program: &ProgramStatus) -> bool {
    matches!(
        program.state,
        ProgramState::Running { .. } | ProgramState::Frozen
    )
}

fn failed(program: &ProgramStatus) -> Option<String> {
    match &program.state {
        ProgramState::Failed { last } => Some(format!("{}: {}", program.name, harmless(last))),
        ProgramState::Starting { .. }
        | ProgramState::Running { .. }
        | ProgramState::Frozen
        | ProgramState::Waiting { .. } => None,
    }
}

fn not_ready(programs: &[ProgramStatus]) -> String {
    let waits: Vec<&str> = programs
        .iter()
        .filter(|program| !runs(program))
        .map(|program| program.name.as_str())
        .collect();
    let seconds = READY_LIMIT.as_secs();
    match waits.is_empty() {
        true => format!("the supervisor did not answer within {seconds} s"),
        false => format!("not ready after {seconds} s: {}", waits.join(", ")),
    }
}

/// Whether the vault is as whoever started this wanted it.
#[must_use]
enum Vault {
    AsWanted,
    /// What was to open it did not.
    StaysLocked,
}

/// Unlocks the vault, and says what its owner has to know of it. Whatever comes of it, the rest runs.
fn look_at_vault(home: &Home, passphrase: Option<&Path>) -> Vault {
    let Err(fault) = open_vault(home, passphrase) else {
        return Vault::AsWanted;
    };
    protocol::log!("bulkhead: the vault: {fault}");
    // While everything is frozen it is not even running, and that is said.
    match passphrase.is_some() && !is_frozen(home) {
        true => Vault::StaysLocked,
        false => Vault::AsWanted,
    }
}

fn open_vault(home: &Home, passphrase: Option<&Path>) -> Result<(), Fault> {
    let mut link = VaultLink::running(home)?;
    let mut state = link.state()?;
    for attempt in 1.. {
        if state.lock == LockState::Open {
            break;
        }
        let with = unlocking(&state, passphrase)?;
        match link.ask(|vault| vault.unlock(with)) {
            Ok(()) => state = link.state()?,
            // A person may mistype; a file does not change.
            Err(fault) if attempt < TRIES && passphrase.is_none() && can_ask() => {
                protocol::log!("bulkhead: {fault}");
            }
            Err(fault) => return Err(fault),
        }
    }
    if state.rolled_back.is_some() {
        in_words(&state)
            .iter()
            .for_each(|line| protocol::log!("bulkhead: the vault is {line}"));
    }
    let entries = link.ask(|vault| vault.list())?;
    if state.key == KeySource::KeyFile && !entries.is_empty() {
        protocol::log!(
            "bulkhead: the vault's key is kept under {}; `bulkhead vault protect` keeps it better",
            state.key
        );
    }
    let (expired, due) = reminders(&entries);
    for name in expired {
        protocol::log!(
            "bulkhead: the secret {name} has expired and stays closed; `bulkhead vault rotate {name}`"
        );
    }
    for name in due {
        protocol::log!(
            "bulkhead: the secret {name} is due for rotation; `bulkhead vault rotate {name}`"
        );
    }
    Ok(())
}

/// Waits until the gateway has found the row of the freeze, if it does so soon: from then on it can end.
fn wait_for_row(home: &Home) -> Result<(), Fault> {
    let supervisor = Supervisor::connect(home)?;
    if let SupervisorReply::Status {
        frozen: Some(frozen),
        ..
    } = supervisor.ask(&SupervisorRequest::Status)?
    {
        frozen::wait_for_row(&supervisor, frozen);
    }
    Ok(())
}

/// Tells where to go from here.
fn welcome(home: &Home, config: &Config) -> Result<(), Fault> {
    if let Some(freeze) = FreezeMark::of(home).read() {
        wait_for_row(home)?;
        output::line(format!(
            "Bulkhead is started, and FROZEN {}. `bulkhead resume` ends that.",
            frozen::line(&freeze)
        ))?;
        return Ok(());
    }
    output::line("Bulkhead is ready.")?;
    if config.web.is_some() {
        let link = login::link(&Operator::connect(home)?)?;
        // On a line of its own, so that it can be marked and copied whole.
        output::line("Web page; this link works once, for ten minutes:")?;
        output::line(link)?;
    }
    output::line("In the terminal: bulkhead ask \"...\", bulkhead chat")
}

#[cfg(test)]
mod tests {
    use protocol::time::Millis;

    use super::*;

    fn program(name: &str, state: ProgramState) -> ProgramStatus {
        ProgramStatus {
            name: name.to_owned(),
            state,
            restarts: 0,
        }
    }

    #[test]
    fn what_is_not_ready_is_named() {
        let running = ProgramState::Running {
            pid: 1,
            since: Millis(0),
        };
        let programs = [
            program("a", running),
            program("b", ProgramState::Starting { pid: 2 }),
        ];
        assert_eq!(not_ready(&programs), "not ready after 10 s: b");
        assert_eq!(not_ready(&[]), "the supervisor did not answer within 10 s");
    }

    #[test]
    fn a_program_that_cannot_run_is_told_with_its_reason() {
        let state = ProgramState::Failed {
            last: "no key; run setup".to_owned(),
        };
        assert_eq!(
            failed(&program("c", state)).as_deref(),
            Some("c: no key; run setup")
        );
    }

    #[test]
    fn only_the_end_of_this_start_s_log_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        std::fs::write(&log, "old\nnew\n").unwrap();
        assert_eq!(tail(&log, 4), "new\n");
        std::fs::write(&log, "x".repeat(10_000)).unwrap();
        assert_eq!(tail(&log, 4).len(), 4096);
    }
}
