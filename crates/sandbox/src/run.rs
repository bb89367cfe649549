//! One run in a box, seen from outside.

use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::call::Action;
use protocol::frame::LinkError;
use protocol::runner::{Changes, Limits, RunEnd, RunOutcome};
use protocol::workspace::LayerFolders;

use crate::native::mounts::TOOL;
use crate::native::spec::{BoxSpec, End, Facts, Kind, Report, ServiceEnd};
use crate::{check, native, receipt};

/// What to run, and over what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSpec {
    /// What runs.
    pub action: Action,
    /// Its bounds.
    pub limits: Limits,
    /// The workspace on the host.
    pub workspace: PathBuf,
    /// What the box changes instead of it.
    pub layer: LayerFolders,
    /// The program that holds the built-in tools, on the host.
    pub tool_program: PathBuf,
}

/// There is no box to run it in, so it did not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; {fix}")]
pub struct Refused {
    /// What is missing.
    pub reason: String,
    /// What to do about it.
    pub fix: String,
}

/// Runs it in a fresh box and waits for the outcome. `helper` is the program `bulkhead-sandbox`.
pub fn run_once(spec: RunSpec, helper: &Path) -> Result<RunOutcome, Refused> {
    Run::start(spec, helper)?.finish()
}

/// A run that has begun. The thread that started it has to stay: the box dies with it.
#[derive(Debug)]
pub struct Run {
    child: Child,
    link: ServiceEnd,
    killer: Killer,
    limits: Limits,
    begun: Instant,
    stdout: JoinHandle<io::Result<Kept>>,
    stderr: JoinHandle<io::Result<Kept>>,
    stdin: Option<JoinHandle<()>>,
}

/// Kills a run from another thread.
#[derive(Clone, Debug)]
pub struct Killer {
    socket: Arc<UnixStream>,
    cause: Arc<AtomicU8>,
}

/// How long the keeper may take to kill a box before it is killed itself, which kills the box too.
const GRACE: Duration = Duration::from_secs(5);

impl Run {
    /// Starts a box for it.
    pub fn start(spec: RunSpec, helper: &Path) -> Result<Self, Refused> {
        let Start { argv, kind, input } = command(&spec.action)?;
        let begun = Instant::now();
        let fault = |what: &str, e: &dyn std::fmt::Display| Refused {
            reason: format!("{what}: {e}"),
            fix: "look at `bulkhead doctor`; the machine may be out of processes or descriptors"
                .to_owned(),
        };
        let description = BoxSpec {
            parent: std::process::id(),
            argv,
            kind,
            limits: spec.limits.clone(),
            workspace: spec.workspace,
            layer: spec.layer,
            tool_program: spec.tool_program,
            host_root: rustix::process::geteuid().is_root(),
            outside: native::facts::namespaces()
                .map_err(|e| fault("cannot read /proc/self/ns", &e))?,
        };
        let (ours, theirs) = UnixStream::pair().map_err(|e| fault("cannot make a socket", &e))?;
        let (input_reader, input_writer) =
            io::pipe().map_err(|e| fault("cannot make a pipe", &e))?;
        let mut child = Command::new(helper)
            .arg0("bulkhead-sandbox")
            .arg("box")
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| fault(&format!("cannot start {}", helper.display()), &e))?;
        let killer = Killer {
            socket: Arc::new(
                ours.try_clone()
                    .map_err(|e| fault("cannot make a socket", &e))?,
            ),
            cause: Arc::new(AtomicU8::new(RUNNING)),
        };
        let link = ServiceEnd::new(ours);
        // If it is gone already, the link says so below.
        let _ = link.send_with(&description, input_reader.into());
        let keep = spec.limits.output_bytes as usize;
        let stdin = input.map(|bytes| std::thread::spawn(move || feed(input_writer, &bytes)));
        let stdout = child
            .stdout
            .take()
            .map(|from| std::thread::spawn(move || drain(from, keep)));
        let stderr = child
            .stderr
            .take()
            .map(|from| std::thread::spawn(move || drain(from, keep)));
        match (stdout, stderr) {
            (Some(stdout), Some(stderr)) => Ok(Self {
                child,
                link,
                killer,
                limits: spec.limits,
                begun,
                stdout,
                stderr,
                stdin,
            }),
            (_, _) => Err(fault("cannot read the box' output", &"no pipe")),
        }
    }

    /// Kills it from elsewhere.
    pub fn killer(&self) -> Killer {
        self.killer.clone()
    }

    /// Waits until everything in the box is gone.
    pub fn finish(mut self) -> Result<RunOutcome, Refused> {
        let told = self.listen();
        self.killer.close();
        reap(&mut self.child);
        let (stdout, mut stderr) = (joined(self.stdout), joined(self.stderr));
        if let Some(stdin) = self.stdin {
            // It ends at the latest when the last reader is gone, and has no result.
            let _ = stdin.join();
        }
        let cause = self.killer.cause.load(Ordering::SeqCst);
        // The command starts only when it could tell that it is ready, so without that nothing ran.
        let facts = match (told.facts, cause) {
            (Ok(facts), _) => facts,
            (Err(_), KILLED) => {
                return Err(early(
                    "it was stopped before it began",
                    "nothing ran, so there is nothing to undo",
                ));
            }
            (Err(_), TIMED_OUT) => {
                return Err(early(
                    "the time was up before it began",
                    "the machine is busy: try again",
                ));
            }
            (Err(refused), _) => return Err(refused),
        };
        let end = match (cause, told.end) {
            (TIMED_OUT, _) => RunEnd::TimedOut,
            (KILLED, _) => RunEnd::Killed,
            (OVER_MEMORY, _) => {
                stderr.text.push_str(&over_memory(&self.limits));
                RunEnd::Signalled {
                    signal: libc::SIGKILL,
                }
            }
            (_, Some(End::Exited(code))) => RunEnd::Exited { code },
            (_, Some(End::Signalled(signal))) => RunEnd::Signalled { signal },
            // Something outside killed the box, as the kernel does when memory is short.
            (_, None) => RunEnd::Signalled {
                signal: libc::SIGKILL,
            },
        };
        Ok(RunOutcome {
            end,
            truncated: stdout.truncated || stderr.truncated,
            stdout: stdout.text,
            stderr: stderr.text,
            duration_ms: u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            receipt: receipt::of(facts, &self.limits),
            changes: Changes::default(),
        })
    }

    /// What the box tells until its command ended, the time is up, or it is killed.
    fn listen(&self) -> Told {
        let until = self.begun + Duration::from_secs(u64::from(self.limits.wall_seconds));
        let mut facts = None;
        loop {
            match self.next(until) {
                Ok(Report::Ready(ready)) => facts = Some(ready),
                Ok(Report::Ended(end)) => {
                    return Told {
                        facts: facts.ok_or_else(silent),
                        end: Some(end),
                    };
                }
                Ok(Report::OverMemory) => self.killer.end(OVER_MEMORY),
                Ok(Report::Failed(failure)) => {
                    return Told {
                        facts: Err(check::refusal(&failure)),
                        end: None,
                    };
                }
                Err(_) => {
                    return Told {
                        facts: facts.ok_or_else(silent),
                        end: None,
                    };
                }
            }
        }
    }

    fn next(&self, until: Instant) -> Result<Report, LinkError> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.killer.end(TIMED_OUT);
            return Err(LinkError::Closed);
        }
        self.killer.socket.set_read_timeout(Some(left))?;
        match self.link.receive() {
            Ok((report, _)) => Ok(report),
            Err(LinkError::Io(e))
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                self.killer.end(TIMED_OUT);
                Err(LinkError::Closed)
            }
            Err(error) => Err(error),
        }
    }
}

const RUNNING: u8 = 0;
const TIMED_OUT: u8 = 1;
const KILLED: u8 = 2;
const OVER_MEMORY: u8 = 3;

impl Killer {
    /// Kills everything in the box.
    pub fn kill(&self) {
        self.end(KILLED);
    }

    /// The first cause is the one that is told.
    fn end(&self, cause: u8) {
        let _ = self
            .cause
            .compare_exchange(RUNNING, cause, Ordering::SeqCst, Ordering::SeqCst);
        self.close();
    }

    /// The keeper kills the box when its link closes.
    fn close(&self) {
        // It may be closed from the other side already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

struct Told {
    facts: Result<Facts, Refused>,
    end: Option<End>,
}

/// The last line of the error output of what was killed for it.
fn over_memory(limits: &Limits) -> String {
    format!(
        "\nkilled: together these processes used more than {} bytes of memory\n",
        limits.memory_bytes
    )
}

fn early(reason: &str, fix: &str) -> Refused {
    Refused {
        reason: reason.to_owned(),
        fix: fix.to_owned(),
    }
}

fn silent() -> Refused {
    early(
        "the box ended before it was built",
        "look at `bulkhead doctor`, and at the kernel's log for a process that was killed",
    )
}

/// The program to start, its list of system calls, and its standard input.
pub(crate) struct Start {
    pub(crate) argv: Vec<String>,
    pub(crate) kind: Kind,
    pub(crate) input: Option<Vec<u8>>,
}

pub(crate) fn command(action: &Action) -> Result<Start, Refused> {
    let wrong = |reason: &str| Refused {
        reason: reason.to_owned(),
        fix: "call it with a program's name".to_owned(),
    };
    let (argv, kind, input) = match action {
        Action::Argv { argv } => (argv.clone(), Kind::Exec, None),
        Action::Shell { script } => (
            vec!["/bin/sh".to_owned(), "-c".to_owned(), script.clone()],
            Kind::Exec,
            None,
        ),
        Action::Tool { call } => {
            let call = serde_json::to_vec(call)
                .map_err(|e| wrong(&format!("the call cannot be written as JSON: {e}")))?;
            (vec![TOOL.to_owned()], Kind::Tool, Some(call))
        }
    };
    if argv.first().is_none_or(String::is_empty) {
        return Err(wrong("the command has no program"));
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        return Err(wrong("an argument holds a NUL character"));
    }
    Ok(Start { argv, kind, input })
}

pub(crate) fn feed(mut to: io::PipeWriter, bytes: &[u8]) {
    // A tool that does not read all of it has its reasons, and a result that tells.
    let _ = to.write_all(bytes);
}

/// One output, as far as it was kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) text: String,
    pub(crate) truncated: bool,
}

/// Reads to the end and keeps the beginning.
pub(crate) fn drain(mut from: impl Read, keep: usize) -> io::Result<Kept> {
    let mut kept = Vec::new();
    from.by_ref().take(keep as u64).read_to_end(&mut kept)?;
    let rest = io::copy(&mut from, &mut io::sink())?;
    Ok(Kept {
        text: String::from_utf8_lossy(&kept).into_owned(),
        truncated: rest > 0,
    })
}

/// An output that could not be read to its end counts as cut.
pub(crate) fn joined(thread: JoinHandle<io::Result<Kept>>) -> Kept {
    match thread.join() {
        Ok(Ok(kept)) => kept,
        Ok(Err(_)) | Err(_) => Kept {
            text: String::new(),
            truncated: true,
        },
    }
}

/// Waits for the keeper, which waits for the box.
fn reap(child: &mut Child) {
    let until = Instant::now() + GRACE;
    let handle = rustix::process::pidfd_open(
        rustix::process::Pid::from_child(child),
        rustix::process::PidfdFlags::empty(),
    );
    if let Ok(handle) = handle {
        let mut events = [rustix::event::PollFd::new(
            &handle,
            rustix::event::PollFlags::IN,
        )];
        let left = until.saturating_duration_since(Instant::now());
        let limit = rustix::event::Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        if matches!(rustix::event::poll(&mut events, Some(&limit)), Ok(1..)) {
            let _ = child.wait();
            return;
        }
    }
    // The kernel kills init with the keeper, and the box with init.
    let _ = child.kill();
    let _ = child.wait();
}
