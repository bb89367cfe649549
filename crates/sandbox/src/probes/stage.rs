//! The side outside of the box: sets up what there is to reach, has every attack tried inside and outside,
//! and tells what came of it.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use protocol::runner::{Limits, Receipt, RunEnd, RunOutcome};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::attempt::Attempt;
use super::boxes::Boxes;
use super::outside::{self, Outside};
use super::program::{Line, Mode, stand_in};
use super::scene::{CANARY, SECRET_VARIABLE, Scene};
use super::{Control, Judge, Place, Probe, all};
use crate::run::Refused;

/// What came of one probe. The form is stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The attack's name.
    pub probe: String,
    /// What stops it.
    pub mechanism: String,
    /// Whether it was stopped in the box.
    pub stopped: bool,
    /// Whether it got through outside, or a twin told the box' refusal from any other, and its harmless pair
    /// works in the box. If not, the test is blind.
    pub control: bool,
    /// What came of it, in the box and outside.
    pub detail: String,
}

/// What the program says at its end, as one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Told {
    /// There is no box to attack.
    Refused {
        /// What is missing.
        reason: String,
        /// What to do about it.
        fix: String,
    },
    /// In the order of the table.
    Findings(Vec<Finding>),
}

/// `start` has a process set the stage that has a secret in its environment and a terminal of its own; `set` is
/// that process; `twin` starts a box behind a filter.
pub(super) fn main(arguments: &[&str]) -> ExitCode {
    let done = match *arguments {
        ["start", ref rest @ ..] => return start(rest),
        ["set", helper, config, backend, scope, ..] => set(helper, config, backend, scope),
        ["twin", helper, workspace, backend, scene] => twin(helper, workspace, backend, scene),
        _ => Err(io::Error::other("wrong arguments")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &[&str]) -> ExitCode {
    let set = Command::new("/proc/self/exe")
        .args(["stage", "set"])
        .args(arguments)
        .env(SECRET_VARIABLE, CANARY)
        .status();
    match set {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bulkhead-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn set(helper: &str, config: &str, backend: &str, scope: &str) -> io::Result<()> {
    let boxes = Boxes::named(helper, backend)?;
    let scope = match scope {
        "full" => Scope::Full,
        "inside" => Scope::Inside,
        "start" => Scope::Start,
        other => return Err(io::Error::other(format!("no such scope: {other}"))),
    };
    // Whoever closes it hangs up on this process, so it stays until the end.
    std::mem::forget(take_terminal()?);
    let outside = Outside::new(Path::new(helper), Path::new(config))?;
    tell(&Run { boxes, outside }.all(scope)?)
}

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Everything.
    Full,
    /// Attacks in boxes only, for test builds with a layer left out: no control.
    Inside,
    /// Only whether a box starts.
    Start,
}

/// A terminal of our own as the controlling one, so that there is one to be reached. It lives as long as
/// the first of the two descriptors.
fn take_terminal() -> io::Result<(std::os::fd::OwnedFd, std::fs::File)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let name = name.to_str().map_err(io::Error::other)?;
    rustix::process::setsid()?;
    let slave = std::fs::File::options().read(true).write(true).open(name)?;
    rustix::process::ioctl_tiocsctty(&slave)?;
    Ok((master, slave))
}

fn tell(findings: &Result<Vec<Finding>, Refused>) -> io::Result<()> {
    let told = match findings {
        Ok(findings) => Told::Findings(findings.clone()),
        Err(Refused { reason, fix }) => Told::Refused {
            reason: reason.clone(),
            fix: fix.clone(),
        },
    };
    println!(
        "{}",
        serde_json::to_string(&told).map_err(io::Error::other)?
    );
    Ok(())
}

struct Run {
    boxes: Boxes,
    outside: Outside,
}

type Attempts = BTreeMap<String, Attempt>;

impl Run {
    fn all(&self, scope: Scope) -> io::Result<Result<Vec<Finding>, Refused>> {
        if scope == Scope::Start {
            return Ok(self.started().map(|()| Vec::new()));
        }
        let mut tried = match self.tried_inside(scope) {
            Ok(tried) => tried,
            Err(refused) => return Ok(Err(refused)),
        };
        if scope == Scope::Full {
            tried.outside = self.outside_together()?;
            for (name, attempt) in in_lanes(|probe, _| self.alone_outside(probe)) {
                tried.outside.insert(name, attempt?);
            }
            tried.twins = self.twins(&tried.outside)?;
        }
        Ok(Ok(all().map(|probe| tried.finding(probe)).collect()))
    }

    fn started(&self) -> Result<(), Refused> {
        let words = together(&self.outside.inside, Mode::Harmless, std::iter::empty());
        self.boxed(&words, Limits::default()).map(drop)
    }

    fn tried_inside(&self, scope: Scope) -> Result<Tried, Refused> {
        let mut tried = Tried {
            inside: self.in_one_box(Mode::Attack, shared().collect())?,
            ..Tried::default()
        };
        for (name, attempt) in in_lanes(|probe, limits| self.alone(probe, limits)) {
            tried.inside.insert(name, attempt?);
        }
        if scope == Scope::Full {
            let names = all().map(|probe| probe.name).collect();
            tried.harmless = self.in_one_box(Mode::Harmless, names)?;
        }
        Ok(tried)
    }

    fn in_one_box(&self, mode: Mode, names: Vec<&str>) -> Result<Attempts, Refused> {
        let words = together(&self.outside.inside, mode, names.into_iter());
        Ok(lines(&self.boxed(&words, Limits::default())?.stdout))
    }

    fn boxed(&self, arguments: &[String], limits: Limits) -> Result<RunOutcome, Refused> {
        self.boxes.run(&self.outside.workspace, arguments, limits)
    }

    fn alone(&self, probe: &Probe, adjust: fn(&mut Limits)) -> Result<Attempt, Refused> {
        let mut limits = Limits::default();
        adjust(&mut limits);
        let outcome = self.boxed(&one(&self.outside.inside, probe), limits)?;
        let attempt = self.judged(probe, &self.outside.inside, &outcome);
        outside::end(&self.outside.inside.mark, probe.name);
        Ok(attempt)
    }

    fn judged(&self, probe: &Probe, scene: &Scene, outcome: &RunOutcome) -> Attempt {
        match probe.judge {
            Judge::Outside(judge) => judge(scene, outcome),
            Judge::Inside => last_word(outcome),
        }
    }

    fn outside_together(&self) -> io::Result<Attempts> {
        let output = Command::new("/proc/self/exe")
            .args(together(&self.outside.outside, Mode::Attack, shared()))
            .current_dir(&self.outside.ground)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        Ok(lines(&String::from_utf8_lossy(&output.stdout)))
    }

    fn alone_outside(&self, probe: &Probe) -> io::Result<Attempt> {
        let scene = &self.outside.outside;
        let outcome = without_box(&one(scene, probe), &self.outside.ground)?;
        let attempt = self.judged(probe, scene, &outcome);
        outside::end(&scene.mark, probe.name);
        Ok(attempt)
    }

    /// The twins of those that the kernel refuses to whoever runs this anyway.
    fn twins(&self, outside: &Attempts) -> io::Result<BTreeMap<String, Twin>> {
        let wanted: Vec<&str> = all()
            .filter(|probe| matches!(probe.control, Control::Traced(_)))
            .filter(|probe| {
                outside
                    .get(probe.name)
                    .is_none_or(|attempt| !attempt.got_through)
            })
            .map(|probe| probe.name)
            .collect();
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let names = || wanted.iter().copied();
        let ground = &self.outside.ground;
        let without = without_box(
            &together(&self.outside.outside, Mode::Traced, names()),
            ground,
        )?;
        let mut arguments = ["stage", "twin"].map(str::to_owned).to_vec();
        arguments.push(self.boxes.helper().display().to_string());
        arguments.push(self.outside.workspace.display().to_string());
        arguments.push(self.boxes.name());
        arguments.push(json(&self.outside.inside));
        let within = without_box(&arguments, ground)?;
        let (without, within) = (lines(&without.stdout), lines(&within.stdout));
        let twin = |name: &str| {
            Some((
                name.to_owned(),
                Twin {
                    outside: without.get(name)?.clone(),
                    inside: within.get(name)?.clone(),
                },
            ))
        };
        Ok(names().filter_map(twin).collect())
    }
}

/// The same attempt on both sides, with a filter of ours in the kernel's place.
struct Twin {
    outside: Attempt,
    inside: Attempt,
}

fn twin(helper: &str, workspace: &str, backend: &str, scene: &str) -> io::Result<()> {
    let scene: Scene = serde_json::from_str(scene).map_err(io::Error::other)?;
    let boxes = Boxes::named(helper, backend)?;
    let traced = || {
        all().filter_map(|probe| match probe.control {
            Control::Traced(number) => Some((probe.name, number)),
            Control::Plain | Control::Throwaway | Control::Apart => None,
        })
    };
    let numbers: Vec<i64> = traced().map(|(_, number)| number).collect();
    stand_in(&numbers)?;
    let words = together(&scene, Mode::Traced, traced().map(|(name, _)| name));
    let outcome = boxes.run(Path::new(workspace), &words, Limits::default());
    print!("{}", outcome.map_err(io::Error::other)?.stdout);
    Ok(())
}

/// Those that run alone, a few at once: most of them wait most of the time.
fn in_lanes<T: Send>(attempt: impl Fn(&Probe, fn(&mut Limits)) -> T + Sync) -> Vec<(String, T)> {
    const LANES: usize = 4;
    let alone: Vec<_> = all()
        .filter_map(|probe| match probe.place {
            Place::Alone(limits) => Some((probe, limits)),
            Place::Shared => None,
        })
        .collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some((probe, limits)) = alone.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let came = (probe.name.to_owned(), attempt(probe, *limits));
                    // A lane that panicked ends the scope with a panic, so there is no reader.
                    if let Ok(mut done) = done.lock() {
                        done.push(came);
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_default()
}

fn shared() -> impl Iterator<Item = &'static str> {
    all()
        .filter(|probe| matches!(probe.place, Place::Shared))
        .map(|probe| probe.name)
}

fn json(scene: &Scene) -> String {
    // A scene has no map with keys that are not text, which is all that could fail.
    serde_json::to_string(scene).unwrap_or_default()
}

fn together<'a>(scene: &Scene, mode: Mode, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let first = ["together".to_owned(), json(scene), mode.word().to_owned()];
    first.into_iter().chain(names.map(str::to_owned)).collect()
}

fn one(scene: &Scene, probe: &Probe) -> Vec<String> {
    let mode = Mode::Attack.word().to_owned();
    vec!["one".to_owned(), json(scene), mode, probe.name.to_owned()]
}

/// The same without a box, for comparison: a polite end after a time, and what it said.
fn without_box(arguments: &[String], folder: &Path) -> io::Result<RunOutcome> {
    const SILENT: Duration = Duration::from_millis(300);
    const LONGEST: Duration = Duration::from_secs(30);
    let mut child = Command::new("/proc/self/exe")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let begun = Instant::now();
    let reader = child.stdout.take().map(|mut stdout| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stdout.read_to_end(&mut bytes);
            bytes
        })
    });
    let sleeps = arguments
        .last()
        .is_some_and(|name| name == "ignores-signals");
    let longest = if sleeps { SILENT } else { LONGEST };
    let mut ended = None;
    while ended.is_none() && begun.elapsed() < longest {
        std::thread::sleep(Duration::from_millis(5));
        ended = child.try_wait()?;
    }
    if ended.is_none() {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        pid.map(|pid| kill_process(pid, Signal::TERM));
        std::thread::sleep(SILENT);
    }
    let stdout = match ended {
        Some(_) => reader
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default(),
        None => Vec::new(),
    };
    Ok(RunOutcome {
        end: ended
            .and_then(|status| status.code())
            .map_or(RunEnd::TimedOut, |code| RunEnd::Exited { code }),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::new(),
        truncated: false,
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        receipt: Receipt::default(),
        changes: protocol::runner::Changes::default(),
    })
}

fn lines(text: &str) -> Attempts {
    text.lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .map(|line| (line.probe, line.attempt))
        .collect()
}

fn last_word(outcome: &RunOutcome) -> Attempt {
    outcome
        .stdout
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok())
        .unwrap_or_else(|| Attempt::stopped(format_args!("ended: {:?}", outcome.end)))
}

/// What came of everything, by the names of the probes.
#[derive(Default)]
struct Tried {
    inside: Attempts,
    outside: Attempts,
    harmless: Attempts,
    twins: BTreeMap<String, Twin>,
}

impl Tried {
    fn finding(&self, probe: &Probe) -> Finding {
        let of = |attempts: &Attempts| {
            let attempt = attempts.get(probe.name).cloned();
            attempt.unwrap_or_else(|| Attempt::stopped("it said nothing"))
        };
        let (inside, outside, harmless) = (of(&self.inside), of(&self.outside), of(&self.harmless));
        let twin = self.twins.get(probe.name);
        let twin_tells =
            twin.is_some_and(|twin| twin.outside.got_through && !twin.inside.got_through);
        let seen = outside.got_through
            || match probe.control {
                Control::Apart => outside.answer != inside.answer,
                Control::Traced(_) => twin_tells,
                Control::Plain | Control::Throwaway => false,
            };
        let mut detail = format!("box: {}; outside: {}", inside.detail, outside.detail);
        if !outside.got_through && twin_tells {
            detail.push_str(
                "; a twin with a filter in the kernel's place: refused before it in the box, reached outside",
            );
        }
        if !harmless.got_through {
            detail.push_str("; the harmless pair fails in the box: ");
            detail.push_str(&harmless.detail);
        }
        Finding {
            probe: probe.name.to_owned(),
            mechanism: probe.stopped_by.to_owned(),
            // Silence is no proof.
            stopped: self.inside.contains_key(probe.name) && !inside.got_through,
            control: seen && harmless.got_through,
            detail,
        }
    }
}
