//! The real programs under a home of their own.
//!
//! Everything is done as a person would do it: a `bulkhead.toml` is written and `bulkhead`
//! is called. The programs are those beside the running test, built by the same command.

use std::fs;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// All that an installation needs.
const PROGRAMS: [&str; 12] = [
    "bulkhead",
    "bulkhead-supervisor",
    "bulkhead-gateway",
    "bulkhead-agent",
    "bulkhead-egress",
    "bulkhead-vault",
    "bulkhead-ledger",
    "bulkhead-sandbox",
    "bulkhead-workspace",
    "bulkhead-tool",
    "bulkhead-channel-web",
    "bulkhead-channel-telegram",
];

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running Bulkhead. Stopped when it is dropped.
pub struct System {
    home: tempfile::TempDir,
    config: String,
    web_port: u16,
    runs_as: Option<OtherUser>,
}

/// Somebody else than whoever runs the test.
struct OtherUser {
    id: u32,
    /// Copies of the programs that this user can reach.
    programs: tempfile::TempDir,
}

impl System {
    /// Writes a configuration for the model at this port of loopback, with `extra` behind
    /// it, and starts everything.
    pub fn start(model_port: u16, extra: &str) -> Self {
        let system = Self::prepare(model_port, extra);
        system.up();
        system
    }

    /// Like [`Self::start`], but nothing is started yet.
    pub fn prepare(model_port: u16, extra: &str) -> Self {
        let home = tempfile::Builder::new()
            .prefix("bulkhead-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .expect("a temporary folder");
        let web_port = free_port();
        let config = format!(
            "[model]\napi = \"openai\"\nurl = \"http://127.0.0.1:{model_port}\"\nname = \"scripted\"\n\
             [channel.web]\nport = {web_port}\n{extra}"
        );
        let system = Self {
            home,
            config,
            web_port,
            runs_as: None,
        };
        system.configure(|config| config.to_owned());
        system
    }

    /// The same for another user, who owns the home and has no privilege. Only root can do this.
    pub fn prepare_as(user: u32, model_port: u16, extra: &str) -> Self {
        let mut system = Self::prepare(model_port, extra);
        let programs = tempfile::Builder::new()
            .prefix("bulkhead-programs-")
            .tempdir()
            .expect("a temporary folder");
        fs::set_permissions(programs.path(), fs::Permissions::from_mode(0o755))
            .expect("its mode is set");
        for name in PROGRAMS {
            fs::copy(program(name), programs.path().join(name)).expect("a program is copied");
        }
        for path in [
            system.home().to_owned(),
            system.home().join("bulkhead.toml"),
        ] {
            std::os::unix::fs::chown(&path, Some(user), Some(user))
                .expect("the home is given away");
        }
        system.runs_as = Some(OtherUser { id: user, programs });
        system
    }

    /// Writes the configuration anew; takes effect with the next [`Self::up`].
    pub fn configure(&self, change: impl Fn(&str) -> String) {
        fs::write(self.home().join("bulkhead.toml"), change(&self.config))
            .expect("the configuration is written");
    }

    /// The folder with everything in it.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The workspace.
    pub fn workspace(&self) -> PathBuf {
        self.home().join("workspace")
    }

    /// The page's port.
    pub fn web_port(&self) -> u16 {
        self.web_port
    }

    /// Starts everything and waits until it is ready.
    pub fn up(&self) {
        let output = self.bulkhead(&["up", "--detach"]);
        assert!(output.status.success(), "bulkhead up: {}", said(&output));
    }

    /// `bulkhead ARGUMENTS`, to be run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.runs_as {
            None => Command::new(program("bulkhead")),
            Some(user) => {
                let mut command = Command::new("setpriv");
                let id = user.id.to_string();
                command.args([
                    "--reuid",
                    &id,
                    "--regid",
                    &id,
                    "--clear-groups",
                    "--inh-caps=-all",
                    "--",
                ]);
                command
                    .arg(user.programs.path().join("bulkhead"))
                    .env("HOME", self.home())
                    .current_dir("/");
                command
            }
        };
        command
            .args(arguments)
            .env("BULKHEAD_HOME", self.home())
            .stdin(Stdio::null());
        command
    }

    /// Starts `bulkhead ARGUMENTS` and leaves it running.
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        Running::new(self.command(arguments))
    }

    /// Runs `bulkhead ARGUMENTS` to its end.
    pub fn bulkhead(&self, arguments: &[&str]) -> Output {
        finish(
            self.command(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("bulkhead starts"),
        )
    }

    /// Runs `bulkhead ARGUMENTS` with this standard input.
    pub fn bulkhead_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("bulkhead starts");
        // A program that needs no input may be gone already.
        let _ = child
            .stdin
            .take()
            .map(|mut stdin| stdin.write_all(input.as_bytes()));
        finish(child)
    }

    /// Runs `bulkhead ARGUMENTS --json` and reads what it prints.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let output = self.bulkhead(&arguments);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("bulkhead {arguments:?}: {error}: {}", said(&output)))
    }

    /// The answer to a question, asked in the terminal.
    pub fn ask(&self, text: &str) -> Value {
        self.json(&["ask", text])
    }

    /// The answer to a question, asked in the terminal in this session.
    pub fn ask_in(&self, session: &str, text: &str) -> Value {
        self.json(&["ask", "--session", session, text])
    }

    /// Waits until a person is asked something; the oldest question.
    pub fn wait_for_approval(&self) -> Value {
        wait_for("a question", || self.approvals().into_iter().next())
    }

    /// The same, while the question before it may still be there.
    pub fn wait_for_approval_other_than(&self, card: &Value) -> Value {
        let other = |other: &Value| other["approval"] != card["approval"];
        wait_for("another question", || {
            self.approvals().into_iter().find(other)
        })
    }

    /// What waits for an answer.
    pub fn approvals(&self) -> Vec<Value> {
        self.json_lines(&["approvals", "list"])
    }

    /// Keeps the token of the bot in the vault, for the channel that speaks as it.
    pub fn keep_telegram_token(&self, token: &str) {
        let add = [
            "vault",
            "add",
            "telegram-token",
            "--for",
            "channel:telegram",
        ];
        let kept = self.bulkhead_with(&add, token);
        assert!(kept.status.success(), "{}", said(&kept));
    }

    /// Says yes to this question, as the owner at a shell.
    pub fn approve(&self, card: &Value) -> Output {
        let text = |key: &str| card[key].as_str().expect("a text").to_owned();
        self.bulkhead(&[
            "approvals",
            "approve",
            &text("approval"),
            "--confirm-digest",
            &text("digest"),
        ])
    }

    /// Says no to this question, likewise.
    pub fn deny(&self, card: &Value) -> Output {
        self.bulkhead(&[
            "approvals",
            "deny",
            card["approval"].as_str().expect("an id"),
        ])
    }

    /// Runs `bulkhead ARGUMENTS --json` and reads the lines that it prints.
    pub fn json_lines(&self, arguments: &[&str]) -> Vec<Value> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let output = self.bulkhead(&arguments);
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line is JSON"))
            .collect()
    }

    /// The rows of the record, oldest first.
    pub fn record(&self) -> Vec<Value> {
        self.json_lines(&["audit", "log"])
    }

    /// The rows of one kind.
    pub fn rows(&self, kind: &str) -> Vec<Value> {
        self.record()
            .into_iter()
            .filter(|row| row["event"]["kind"] == kind)
            .collect()
    }

    /// Fails unless the whole record verifies.
    pub fn assert_record_is_sound(&self) {
        let output = self.bulkhead(&["audit", "verify", "--json"]);
        assert!(output.status.success(), "audit verify: {}", said(&output));
    }

    /// The process id of a running program.
    pub fn pid(&self, name: &str) -> u32 {
        wait_for(&format!("{name} runs"), || {
            let status = self.json(&["status"]);
            let programs = status["programs"].as_array()?.clone();
            let program = programs
                .into_iter()
                .find(|program| program["name"] == name)?;
            (program["state"]["state"] == "running").then(|| program["state"]["pid"].as_u64())?
        })
        .try_into()
        .expect("a process id")
    }

    /// The process ids of all programs below the supervisor, agents included.
    pub fn pids(&self) -> Vec<u32> {
        let status = self.json(&["status"]);
        let programs = status["programs"].as_array().cloned().unwrap_or_default();
        let supervisor = status["pid"].as_u64().into_iter();
        let pids = programs
            .iter()
            .filter_map(|program| program["state"]["pid"].as_u64());
        supervisor
            .chain(pids)
            .map(|pid| u32::try_from(pid).expect("a process id"))
            .collect()
    }

    /// Sends a signal to a program, by the number or name that kill(1) takes.
    pub fn signal(&self, name: &str, signal: &str) {
        let pid = self.pid(name).to_string();
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status()
            .expect("kill runs");
        assert!(status.success(), "kill -{signal} {name}");
    }

    /// A new one-time link to the page.
    pub fn login_link(&self) -> String {
        let output = self.bulkhead(&["login"]);
        assert!(output.status.success(), "bulkhead login: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if thread::panicking()
            && let Ok(log) = fs::read_to_string(self.home().join("log/bulkhead.log"))
        {
            eprintln!("--- what the programs said ---\n{log}");
        }
        self.bulkhead(&["down"]);
    }
}

/// A command that was started and is still running. Ended when it is dropped.
pub struct Running {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Running {
    /// Starts it, and reads what it prints as it comes.
    pub fn new(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let (out, err) = (
            Arc::<Mutex<String>>::default(),
            Arc::<Mutex<String>>::default(),
        );
        let stdout = gather(child.stdout.take().expect("a pipe"), &out);
        let stderr = gather(child.stderr.take().expect("a pipe"), &err);
        Self {
            child,
            out,
            err,
            readers: vec![stdout, stderr],
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn out(&self) -> String {
        self.out.lock().expect("no reader panics").clone()
    }

    /// What it has said on standard error so far.
    pub fn err(&self) -> String {
        self.err.lock().expect("no reader panics").clone()
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("it can be waited for")
            .is_some()
    }

    /// Waits until it ends: exit code, standard output, standard error.
    pub fn finish(mut self) -> (Option<i32>, String, String) {
        let status = wait_for("the command ends", || {
            self.child.try_wait().expect("it can be waited for")
        });
        self.readers
            .drain(..)
            .for_each(|reader| reader.join().expect("no reader panics"));
        (status.code(), self.out(), self.err())
    }

    /// Waits until it ends, and reads the JSON that it printed.
    pub fn json(self) -> Value {
        let (code, out, err) = self.finish();
        serde_json::from_str(&out)
            .unwrap_or_else(|error| panic!("{error}: exit {code:?}\n{out}\n{err}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(mut from: impl Read + Send + 'static, to: &Arc<Mutex<String>>) -> thread::JoinHandle<()> {
    let to = Arc::clone(to);
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            to.lock()
                .expect("no reader panics")
                .push_str(&String::from_utf8_lossy(&piece[..length]));
        }
    })
}

/// Whether this process exists and is not just waiting to be reaped.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The processes whose command line holds this text.
pub fn processes_with(text: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("/proc can be read");
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line)
            .replace('\0', " ")
            .contains(text)
    };
    pids.filter(|pid| has(pid) && is_alive(*pid)).collect()
}

/// One of the programs, beside the test that runs.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let folder = own
        .ancestors()
        .find(|folder| folder.join("bulkhead").is_file());
    folder
        .expect("the programs are built first: ./test, or cargo build --workspace --bins")
        .join(name)
}

/// A port of loopback that nobody listens on at the moment.
///
/// It is below the range from which the kernel takes ports for connections (32768 and above,
/// ip(7)), and tests that run beside this one in other processes begin elsewhere: nobody else
/// takes it before it is used.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    /// Ports from one process to the next.
    const APART: u32 = 16;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() * APART % u32::from(COUNT)).expect("less than that");
    let mut ports = (0..COUNT).map(|_| {
        let next = u32::from(own) + u32::from(TAKEN.fetch_add(1, Ordering::Relaxed));
        FIRST + u16::try_from(next % u32::from(COUNT)).expect("less than that")
    });
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.find(free).expect("a free port")
}

/// Waits until there is something, and fails with `what` if it does not come.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Both outputs and the exit code, for the message of a failed assertion.
pub fn said(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{}\n{out}\n{err}", output.status)
}

/// Waits for a program, but not for ever.
fn finish(child: Child) -> Output {
    let pid = child.id();
    let (done, over) = std::sync::mpsc::channel();
    let watch = thread::spawn(move || {
        if over.recv_timeout(PATIENCE * 4).is_err() {
            // The numbers of processes that were not waited for are not used again.
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    });
    let output = child
        .wait_with_output()
        .expect("a child's output can be read");
    // The watch may be over already.
    let _ = done.send(());
    watch.join().expect("the watch does not panic");
    output
}
