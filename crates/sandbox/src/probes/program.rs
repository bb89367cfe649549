//! The program `bulkhead-probe`: one attack, many one after the other, or the side outside of the box.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::WaitOptions;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::attempt::{self, Attempt};
use super::calls::NONE;
use super::scene::{CANARY, Scene, Side};
use super::{Control, Probe, find, stage};
use crate::sys::{self, probe::Fork};

/// What is asked of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The attack.
    Attack,
    /// Its harmless pair.
    Harmless,
    /// The twin of [`Control::Traced`].
    Traced,
}

impl Mode {
    /// As an argument.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Attack => "attack",
            Self::Harmless => "harmless",
            Self::Traced => "traced",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Attack, Self::Harmless, Self::Traced]
            .into_iter()
            .find(|mode| mode.word() == word)
    }
}

/// What one of several said.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    /// The probe.
    pub(super) probe: String,
    /// What came of it.
    pub(super) attempt: Attempt,
}

/// How long one of several may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The main function of `bulkhead-probe`.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match *arguments.as_slice() {
        ["stage", ref rest @ ..] => return stage::main(rest),
        ["victim"] => victim(),
        ["together", scene, mode, ref names @ ..] => together(scene, mode, names),
        ["one", scene, mode, name] => one(scene, mode, name),
        _ => Err(io::Error::other(
            "`bulkhead sandbox probe` starts it; it has nothing to say by itself",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-probe: {error}");
            ExitCode::from(2)
        }
    }
}

/// Sleeps with a canary in its memory until its input ends.
fn victim() -> io::Result<()> {
    sys::probe::allow_tracing();
    let canary = CANARY.to_owned().into_bytes();
    println!("{}", canary.as_ptr() as usize);
    io::stdin().read_line(&mut String::new())?;
    drop(std::hint::black_box(canary));
    Ok(())
}

fn parsed(scene: &str, mode: &str, name: &str) -> io::Result<(Scene, Mode, &'static Probe)> {
    let scene = serde_json::from_str(scene).map_err(io::Error::other)?;
    let mode = Mode::parse(mode).ok_or_else(|| io::Error::other("no such mode"))?;
    let probe = find(name).ok_or_else(|| io::Error::other(format!("no probe {name:?}")))?;
    Ok((scene, mode, probe))
}

fn one(scene: &str, mode: &str, name: &str) -> io::Result<()> {
    let (scene, mode, probe) = parsed(scene, mode, name)?;
    if scene.side == Side::Outside && probe.control == Control::Throwaway {
        enter_throwaway()?;
    }
    let attempt = match mode {
        Mode::Attack => (probe.attack)(&scene),
        Mode::Harmless => (probe.harmless)(&scene),
        Mode::Traced => traced(&scene, probe)?,
    };
    let mut out = io::stdout().lock();
    out.write_all(b"\n")?;
    serde_json::to_writer(&mut out, &attempt)?;
    out.write_all(b"\n")
}

/// Becomes root of new namespaces, as any user may. They go with the process.
fn enter_throwaway() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    sys::unshare(
        UnshareFlags::NEWUSER
            | UnshareFlags::NEWNS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWNET
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWCGROUP,
    )?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    match sys::probe::fork()? {
        Fork::Child => Ok(()),
        Fork::Parent(child) => {
            let ended = rustix::process::waitpid(Some(child), WaitOptions::empty())?;
            let code = ended.and_then(|(_, status)| status.exit_status());
            std::process::exit(code.unwrap_or(1))
        }
    }
}

/// Makes the call where a filter of ours stands in for the kernel. In the box it stands there already: what
/// started the box has installed it.
fn traced(scene: &Scene, probe: &Probe) -> io::Result<Attempt> {
    let Control::Traced(number) = probe.control else {
        return Err(io::Error::other("it has no such twin"));
    };
    if scene.side == Side::Outside {
        stand_in(&[number])?;
    }
    let answer = sys::probe::call(number, [NONE; 5]);
    Ok(match answer.err().and_then(|error| error.raw_os_error()) {
        Some(libc::ENOSYS) => Attempt::through("no other filter stood in the way"),
        Some(other) => Attempt::stopped(attempt::name(other)),
        None => Attempt::through("the call worked"),
    })
}

/// Has a filter answer these calls in the kernel's place.
pub(super) fn stand_in(numbers: &[i64]) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    sys::probe::trace_calls(numbers)
}

/// Each in a process of its own, with a line each.
fn together(scene: &str, mode: &str, names: &[&str]) -> io::Result<()> {
    for name in names {
        let line = Line {
            probe: (*name).to_owned(),
            attempt: apart(scene, mode, name)?,
        };
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn apart(scene: &str, mode: &str, name: &str) -> io::Result<Attempt> {
    let mut child = Command::new("/proc/self/exe")
        .args(["one", scene, mode, name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let said = listen(&mut child, PATIENCE);
    if said.is_none() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    Ok(said.unwrap_or_else(|| silent(&status)))
}

/// The last line that a program says within a time, if it is what came of an attempt.
fn listen(child: &mut Child, patience: Duration) -> Option<Attempt> {
    let stdout = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    // It ends with the pipe, or with this process.
    std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let mut attempts = lines.filter_map(|line| serde_json::from_str(&line).ok());
        let _ = sender.send(attempts.next());
    });
    receiver.recv_timeout(patience).ok().flatten()
}

/// What it means that a probe said nothing.
fn silent(status: &std::process::ExitStatus) -> Attempt {
    use std::os::unix::process::ExitStatusExt as _;
    match status.signal() {
        Some(libc::SIGSYS) => Attempt::stopped("killed by a filter (SIGSYS)"),
        Some(libc::SIGSEGV) => Attempt::stopped("killed (SIGSEGV)"),
        Some(signal) => Attempt::stopped(format_args!("killed by signal {signal}")),
        None => Attempt::stopped(format_args!("it said nothing, and ended with {status}")),
    }
}
