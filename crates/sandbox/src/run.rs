//! One run in a box, seen from outside.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use protocol::call::Action;
use protocol::frame::LinkError;
use protocol::ids::CallRef;
use protocol::runner::{Changes, Fate, Limits, RunEnd, RunOutcome};
use protocol::script::SCRIPT_FLAG;
use protocol::workspace::{Base, GitFolders};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use crate::ablation;
use crate::boxes::{Body, Boxes, Ready, Remains};
use crate::engine::EngineLink;
use crate::layers::{HeldLayer, Layer, Layers};
use crate::native::mounts::TOOL;
use crate::native::spec::{End, Facts, Failure, Kind, Report, ToBox};
use crate::watch::{self, Disk, Holders};
use crate::way::{OpenDoor, Outside};
use crate::{check, receipt};

/// What to run, and what becomes of what it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// What runs.
    pub action: Action,
    /// Its bounds.
    pub limits: Limits,
    /// What becomes of its changes, if it ends by itself.
    pub then: Then,
}

/// What becomes of the changes of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// They are the workspace's.
    Keep {
        /// The call that it was; none if nobody asked through the gateway.
        origin: Option<CallRef>,
        /// Whether what git obeys on the host may be among them.
        git: GitFolders,
    },
    /// They are told and thrown away.
    Discard,
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

/// A run that is about to begin.
#[derive(Debug)]
pub struct Run {
    argv: Vec<String>,
    pipes: Pipes,
    /// Before the layer, which nobody may have while a box can write to it.
    body: Body,
    /// What it may reach, while it is there.
    way: Option<OpenDoor>,
    layer: HeldLayer,
    facts: Facts,
    held: Option<crate::cgroup::Held>,
    limits: Limits,
    then: Then,
    base: Base,
    init: Arc<OwnedFd>,
    cause: Arc<AtomicU8>,
    begun: Instant,
}

/// Kills a run from another thread.
#[derive(Clone, Debug)]
pub struct Killer(Way);

#[derive(Clone, Debug)]
enum Way {
    Native {
        init: Arc<OwnedFd>,
        cause: Arc<AtomicU8>,
    },
    Engine(Arc<EngineLink>),
}

impl Boxes {
    /// Runs it in a box of its own and waits for the outcome.
    pub fn run(&self, job: Job) -> Result<RunOutcome, Refused> {
        self.run_killable(job, drop)
    }

    /// The same; `begun` gets what kills it, before it begins.
    pub fn run_killable(
        &self,
        job: Job,
        begun: impl FnOnce(Killer),
    ) -> Result<RunOutcome, Refused> {
        self.run_online(job, &Outside::Nothing, begun)
    }

    /// The same, in a box that may reach something.
    pub fn run_online(
        &self,
        job: Job,
        outside: &Outside,
        begun: impl FnOnce(Killer),
    ) -> Result<RunOutcome, Refused> {
        let start = Start::of(&job.action)?.reaching(&job.action, outside)?;
        let run = Run::prepare(self.build(start.kind, &job.limits, outside)?, start, job)?;
        begun(run.killer());
        run.finish(self.layers().as_ref())
    }
}

impl Run {
    /// For a box that fits the job's kind and limits.
    pub(crate) fn prepare(ready: Ready, start: Start, job: Job) -> Result<Self, Refused> {
        let fault = |failure: Failure| check::refusal(&failure);
        let base = base_of(&ready.layer).map_err(fault)?;
        let init = ready.body.handle().map_err(Failure::at("copying a handle"));
        let pipes = Pipes::new(
            ready.stdin,
            ready.stdout,
            ready.stderr,
            start.input,
            &job.limits,
        );
        let pipes = pipes
            .map_err(Failure::at("preparing pipes"))
            .map_err(fault)?;
        Ok(Self {
            argv: start.argv,
            pipes,
            layer: ready.layer,
            body: ready.body,
            way: ready.way,
            facts: ready.facts,
            held: ready.held,
            limits: job.limits,
            then: job.then,
            base,
            init: Arc::new(init.map_err(fault)?),
            cause: Arc::new(AtomicU8::new(RUNNING)),
            begun: Instant::now(),
        })
    }

    /// Kills it from elsewhere.
    pub fn killer(&self) -> Killer {
        Killer(Way::Native {
            init: Arc::clone(&self.init),
            cause: Arc::clone(&self.cause),
        })
    }

    fn end(&self, why: u8) {
        end(&self.init, &self.cause, why);
    }

    /// Tells the box what to run, waits until everything in it is gone, and has its changes decided about.
    pub fn finish(mut self, layers: &dyn Layers) -> Result<RunOutcome, Refused> {
        let argv = std::mem::take(&mut self.argv);
        // What waits for this in the box outlives its init by a moment, in which it would begin.
        if self.cause.load(Ordering::SeqCst) == RUNNING {
            // A box that is gone already says so by its end.
            if let Err(LinkError::TooLong(bytes)) = self.body.made.link.send(&ToBox::Go { argv }) {
                return Err(too_long(bytes));
            }
        }
        let told = self.watch().map_err(|failure| check::refusal(&failure))?;
        let duration = self.begun.elapsed();
        let mut cause = self.cause.load(Ordering::SeqCst);
        let starved = self.body.cgroup.as_ref();
        if cause == RUNNING
            && matches!(told, None | Some(End::Signalled(libc::SIGKILL)))
            && starved.is_some_and(|group| group.killed_for_memory() > 0)
        {
            cause = OVER_MEMORY;
        }
        let end = ended(cause, told);
        let note = over_limit(cause, &self.limits);
        let Pipes { out, err, .. } = self.pipes;
        let (stdout, mut stderr) = (out.text(), err.text());
        stderr.push_str(&note);
        let mut receipt = receipt::of(self.facts, self.held.as_ref(), &self.limits);
        if let Some(way) = &self.way {
            receipt.network = "egress".to_owned();
            receipt.rules.clone_from(&way.rules);
        }
        let remains = self.body.end();
        // Gone are the processes; the rest of the box goes while its changes are looked at.
        drop(self.body);
        drop(self.way);
        let then = match cause {
            RUNNING => self.then,
            // What was cut off in the middle leaves nothing half done behind.
            _ => Then::Discard,
        };
        Ok(RunOutcome {
            end,
            truncated: out.truncated || err.truncated,
            stdout,
            stderr,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            receipt,
            changes: match remains {
                Remains::Nothing => decide(layers, self.layer, then, self.base),
                Remains::Processes => unending(),
            },
        })
    }

    /// Passes on input and output until all is over, and sees to the limits that the kernel does not hold.
    fn watch(&mut self) -> Result<Option<End>, Failure> {
        let until = self.begun + Duration::from_secs(u64::from(self.limits.wall_seconds));
        let disk = Disk::of(
            self.layer.folders()?,
            self.limits.workspace_bytes,
            Holders::Below(self.body.made.pid),
        );
        let mut told = None;
        let mut looked = Instant::now();
        loop {
            match self.turn(told.is_none(), until)? {
                Heard::Over => break,
                Heard::Report(Report::Ended(end)) => told = Some(end),
                Heard::Report(Report::Failed(failure)) => return Err(failure),
                Heard::Report(Report::Ready(_) | Report::Listening) => {
                    return Err(Failure::because("the box was ready twice"));
                }
                Heard::Nothing => {}
            }
            if Instant::now() >= until {
                self.end(TIMED_OUT);
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                if self.held.is_none()
                    && ablation::on(ablation::Layer::MemoryWatch)
                    && watch::over_memory(self.body.made.pid, self.limits.memory_bytes)
                {
                    self.end(OVER_MEMORY);
                }
                if ablation::on(ablation::Layer::DiskWatch) && disk.is_over() {
                    self.end(OVER_DISK);
                }
            }
        }
        self.pipes.drain();
        if ablation::on(ablation::Layer::DiskWatch) && disk.is_over_now() {
            // It was done before anybody looked; it is not kept.
            self.end(OVER_DISK);
        }
        Ok(told)
    }

    /// Waits for something to happen.
    fn turn(&mut self, listen: bool, until: Instant) -> Result<Heard, Failure> {
        let left = until
            .saturating_duration_since(Instant::now())
            .min(LOOK_EVERY);
        let mut events = Vec::with_capacity(5);
        events.push(PollFd::new(&self.body.made.handle, PollFlags::IN));
        let places = self.pipes.add_to(&mut events);
        let after_pipes = events.len();
        // Only while something is expected: the end of a link that is closed is told again and again, and
        // asking for nothing does not stop that (poll(2)). The box would be kept from ending by it.
        if listen {
            events.push(PollFd::new(&self.body.made.socket, PollFlags::IN));
        }
        match poll(&mut events, Some(&timespec(left))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::at("watching the box")(error)),
        }
        let happened: Vec<bool> = events.iter().map(|e| !e.revents().is_empty()).collect();
        self.pipes.pass_on(&happened[1..after_pipes], places);
        if happened.get(after_pipes) == Some(&true) {
            match self.body.made.link.receive() {
                Ok((report, _)) => return Ok(Heard::Report(report)),
                // Its end says the rest.
                Err(_) => return self.wait_for_end(),
            }
        }
        Ok(if happened[0] {
            Heard::Over
        } else {
            Heard::Nothing
        })
    }

    /// The link closed without a word: something killed the box.
    fn wait_for_end(&self) -> Result<Heard, Failure> {
        kill(&self.init);
        readable_within(&self.body.made.handle, Duration::from_secs(5));
        Ok(Heard::Over)
    }
}

enum Heard {
    Report(Report),
    Over,
    Nothing,
}

/// How often limits are looked at that the kernel does not hold.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

const RUNNING: u8 = 0;
const TIMED_OUT: u8 = 1;
const KILLED: u8 = 2;
const OVER_MEMORY: u8 = 3;
const OVER_DISK: u8 = 4;

impl Killer {
    /// Of a box that an engine runs.
    pub(crate) fn of_engine(link: Arc<EngineLink>) -> Self {
        Self(Way::Engine(link))
    }

    /// Kills everything in the box.
    pub fn kill(&self) {
        match &self.0 {
            Way::Native { init, cause } => end(init, cause, KILLED),
            // If it is gone, its box is too.
            Way::Engine(link) => drop(link.send(&protocol::engine::EngineRequest::Kill)),
        }
    }
}

/// The first cause is the one that is told.
fn end(init: &OwnedFd, cause: &AtomicU8, why: u8) {
    let _ = cause.compare_exchange(RUNNING, why, Ordering::SeqCst, Ordering::SeqCst);
    kill(init);
}

/// Kills a process by its handle.
pub(crate) fn kill(handle: &OwnedFd) {
    // It may be gone already.
    let _ = pidfd_send_signal(handle, Signal::KILL);
}

/// Whether there is something to read within this time; of a process' handle: whether it is gone.
pub(crate) fn readable_within(handle: &impl AsFd, time: Duration) -> bool {
    let mut events = [PollFd::new(handle, PollFlags::IN)];
    matches!(poll(&mut events, Some(&timespec(time))), Ok(1..))
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs().cast_signed(),
        tv_nsec: time.subsec_nanos().into(),
    }
}

fn ended(cause: u8, told: Option<End>) -> RunEnd {
    match (cause, told) {
        (TIMED_OUT, _) => RunEnd::TimedOut,
        (KILLED, _) => RunEnd::Killed,
        (OVER_MEMORY | OVER_DISK, _) => RunEnd::Signalled {
            signal: libc::SIGKILL,
        },
        (_, Some(End::Exited(code))) => RunEnd::Exited { code },
        (_, Some(End::Signalled(signal))) => RunEnd::Signalled { signal },
        // Something outside killed the box, as the kernel does when memory is short.
        (_, None) => RunEnd::Signalled {
            signal: libc::SIGKILL,
        },
    }
}

/// The last line of the error output of what was killed for a limit.
fn over_limit(cause: u8, limits: &Limits) -> String {
    match cause {
        OVER_MEMORY => format!(
            "\nkilled: together these processes used more than {} bytes of memory\n",
            limits.memory_bytes
        ),
        OVER_DISK => over_disk(limits),
        _ => String::new(),
    }
}

/// The same, of what was killed for what it wrote.
pub(crate) fn over_disk(limits: &Limits) -> String {
    format!(
        "\nkilled: it wrote more than {} bytes, or too many files, to the workspace\n",
        limits.workspace_bytes
    )
}

/// When the box begins, for whoever compares its changes with those of others.
pub(crate) fn base_of(layer: &HeldLayer) -> Result<Base, Failure> {
    let sequence = layer.sequence()?;
    let mut number = [0; 8];
    std::fs::File::open(sequence)
        .and_then(|mut file| file.read_exact(&mut number))
        .map_err(Failure::at(format!("reading {}", sequence.display())))?;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Ok(Base {
        entry: protocol::runner::EntryId(u64::from_le_bytes(number)),
        since: now
            .tv_sec
            .saturating_mul(1_000_000_000)
            .saturating_add(now.tv_nsec),
    })
}

/// Has the changes kept or thrown away. That it could not be done is told with them. The box is gone.
pub(crate) fn decide(layers: &dyn Layers, layer: HeldLayer, then: Then, base: Base) -> Changes {
    if layer.is_untouched() {
        layer.give_back();
        return Changes::default();
    }
    let Some(Layer { id, .. }) = layer.decide() else {
        return Changes::default();
    };
    let decided = match then {
        Then::Keep { origin, git } => layers.keep(id, base, origin, git),
        Then::Discard => layers.discard(id),
    };
    decided.unwrap_or_else(|Refused { reason, fix }| Changes {
        fate: Fate::Failed { reason, fix },
        ..Changes::default()
    })
}

fn too_long(bytes: usize) -> Refused {
    Refused {
        reason: format!("a command of {bytes} bytes is too long"),
        fix: "put what it works on into a file".to_owned(),
    }
}

/// What is told instead of the changes of a box that the kernel does not end.
fn unending() -> Changes {
    Changes {
        fate: Fate::Failed {
            reason: "the processes of the box do not end, so what they wrote was thrown away"
                .to_owned(),
            fix: "look for processes that wait for a device that does not answer (state D in ps)"
                .to_owned(),
        },
        ..Changes::default()
    }
}

/// The program to start, its list of system calls, and its standard input.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) argv: Vec<String>,
    pub(crate) kind: Kind,
    pub(crate) input: Vec<u8>,
}

impl Start {
    /// The same in a box that may reach something, if it is meant to: what was understood, and neither a shell's
    /// text, of which nobody knows which programs it starts, nor a file tool, which starts none.
    pub(crate) fn reaching(self, action: &Action, outside: &Outside) -> Result<Self, Refused> {
        match (outside, action) {
            (Outside::Nothing, _) => Ok(self),
            (Outside::Through { .. }, Action::Argv { .. } | Action::Script { .. }) => Ok(Self {
                kind: Kind::Online,
                ..self
            }),
            (
                Outside::Through { .. },
                Action::Shell { .. } | Action::Tool { .. } | Action::Fetch { .. },
            ) => Err(Refused {
                reason: "only programs that were understood get a way out of their box".to_owned(),
                fix: "write the command without what only a shell understands".to_owned(),
            }),
        }
    }

    pub(crate) fn of(action: &Action) -> Result<Self, Refused> {
        let wrong = |reason: &str| Refused {
            reason: reason.to_owned(),
            fix: "call it with a program's name".to_owned(),
        };
        let (argv, kind, input) = match action {
            Action::Argv { argv } => (argv.clone(), Kind::Exec, Vec::new()),
            Action::Script { script } => {
                if !script.is_whole() {
                    return Err(wrong(
                        "a part of the command is empty or holds a NUL character",
                    ));
                }
                let script = serde_json::to_vec(script)
                    .map_err(|e| wrong(&format!("the command cannot be written as JSON: {e}")))?;
                // It starts programs, so it gets the box of a program.
                let argv = vec![TOOL.to_owned(), SCRIPT_FLAG.to_owned()];
                (argv, Kind::Exec, script)
            }
            Action::Shell { script } => (
                vec!["/bin/sh".to_owned(), "-c".to_owned(), script.clone()],
                Kind::Exec,
                Vec::new(),
            ),
            Action::Tool { call } => {
                let call = serde_json::to_vec(call)
                    .map_err(|e| wrong(&format!("the call cannot be written as JSON: {e}")))?;
                (vec![TOOL.to_owned()], Kind::Tool, call)
            }
            Action::Fetch { .. } => {
                return Err(wrong("a box has no hosts; egress makes requests"));
            }
        };
        if argv.first().is_none_or(String::is_empty) {
            return Err(wrong("the command has no program"));
        }
        if argv.iter().any(|argument| argument.contains('\0')) {
            return Err(wrong("an argument holds a NUL character"));
        }
        Ok(Self { argv, kind, input })
    }
}

/// The command's input and outputs, as far as they are open.
#[derive(Debug)]
struct Pipes {
    stdin: Option<io::PipeWriter>,
    input: Vec<u8>,
    written: usize,
    stdout: Option<io::PipeReader>,
    stderr: Option<io::PipeReader>,
    out: Kept,
    err: Kept,
    buffer: Vec<u8>,
}

/// Which of the three pipes were waited for.
#[derive(Clone, Copy, Debug)]
struct Places([bool; 3]);

impl Pipes {
    fn new(
        stdin: io::PipeWriter,
        stdout: io::PipeReader,
        stderr: io::PipeReader,
        input: Vec<u8>,
        limits: &Limits,
    ) -> io::Result<Self> {
        for pipe in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let keep = limits.output_bytes as usize;
        Ok(Self {
            stdin: (!input.is_empty()).then_some(stdin),
            input,
            written: 0,
            stdout: Some(stdout),
            stderr: Some(stderr),
            out: Kept::most(keep),
            err: Kept::most(keep),
            buffer: vec![0; 64 * 1024],
        })
    }

    fn add_to<'a>(&'a self, events: &mut Vec<PollFd<'a>>) -> Places {
        let stdin = self
            .stdin
            .as_ref()
            .map(|pipe| PollFd::new(pipe, PollFlags::OUT));
        let stdout = self
            .stdout
            .as_ref()
            .map(|pipe| PollFd::new(pipe, PollFlags::IN));
        let stderr = self
            .stderr
            .as_ref()
            .map(|pipe| PollFd::new(pipe, PollFlags::IN));
        let places = Places([stdin.is_some(), stdout.is_some(), stderr.is_some()]);
        events.extend([stdin, stdout, stderr].into_iter().flatten());
        places
    }

    fn pass_on(&mut self, happened: &[bool], Places(waited): Places) {
        let mut happened = happened.iter().copied();
        let [stdin, stdout, stderr] = waited.map(|waited| waited && happened.next() == Some(true));
        if stdin {
            self.feed();
        }
        if stdout {
            read_some(&mut self.stdout, &mut self.out, &mut self.buffer);
        }
        if stderr {
            read_some(&mut self.stderr, &mut self.err, &mut self.buffer);
        }
    }

    fn feed(&mut self) {
        let Some(mut pipe) = self.stdin.take() else {
            return;
        };
        match pipe.write(&self.input[self.written..]) {
            Ok(count) => self.written += count,
            Err(error) if is_later(&error) => {}
            // A tool that does not read all of it has its reasons, and a result that tells.
            Err(_) => return,
        }
        if self.written < self.input.len() {
            self.stdin = Some(pipe);
        }
    }

    /// Reads what is left once nobody can write any more.
    fn drain(&mut self) {
        self.stdin = None;
        while read_some(&mut self.stdout, &mut self.out, &mut self.buffer) {}
        while read_some(&mut self.stderr, &mut self.err, &mut self.buffer) {}
    }
}

/// Whether there may be more at once.
fn read_some(pipe: &mut Option<io::PipeReader>, kept: &mut Kept, buffer: &mut [u8]) -> bool {
    let Some(open) = pipe else {
        return false;
    };
    match open.read(buffer) {
        Ok(0) => *pipe = None,
        Ok(count) => {
            kept.add(&buffer[..count]);
            return true;
        }
        Err(error) if is_later(&error) => {}
        // An output that could not be read to its end counts as cut.
        Err(_) => {
            kept.truncated = true;
            *pipe = None;
        }
    }
    false
}

fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// One output, as far as it is kept: its beginning.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    most: usize,
    truncated: bool,
}

impl Kept {
    fn most(most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            most,
            truncated: false,
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = self.most - self.bytes.len();
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.truncated |= bytes.len() > room;
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}
