//! The side outside of the box: sets up what there is to reach, has every attack tried inside and outside,
//! and tells what came of it.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use protocol::call::Action;
use protocol::runner::{Limits, Receipt, RunEnd, RunOutcome};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::attempt::Attempt;
use super::outside::{self, Outside};
use super::program::{Line, Mode, stand_in};
use super::scene::{CANARY, SECRET_VARIABLE, Scene};
use super::{Control, Judge, Place, Probe, all};
use crate::native::mounts::TOOL;
use crate::run::{Refused, RunSpec, run_once};

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

/// `stage HELPER CONFIG` sets the stage in a process that has a secret in its environment and a terminal;
/// `set HELPER CONFIG` is that process; `twin` starts a box behind a filter.
pub(super) fn main(arguments: &[&str]) -> ExitCode {
    let done = match *arguments {
        ["start", helper, config] => return start(helper, config),
        ["set", helper, config] => take_terminal()
            .and_then(|_terminal| tell(&findings(Path::new(helper), Path::new(config)))),
        ["twin", helper, workspace, scene] => twin(helper, workspace, scene),
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

fn start(helper: &str, config: &str) -> ExitCode {
    let set = Command::new("/proc/self/exe")
        .args(["stage", "set", helper, config])
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

fn tell(findings: &io::Result<Result<Vec<Finding>, Refused>>) -> io::Result<()> {
    let told = match findings {
        Ok(Ok(findings)) => Told::Findings(findings.clone()),
        Ok(Err(Refused { reason, fix })) => Told::Refused {
            reason: reason.clone(),
            fix: fix.clone(),
        },
        Err(error) => return Err(io::Error::other(error.to_string())),
    };
    println!(
        "{}",
        serde_json::to_string(&told).map_err(io::Error::other)?
    );
    Ok(())
}

fn findings(helper: &Path, config: &Path) -> io::Result<Result<Vec<Finding>, Refused>> {
    let run = Run {
        helper: helper.to_owned(),
        outside: Outside::new(helper, config)?,
    };
    run.all()
}

struct Run {
    helper: PathBuf,
    outside: Outside,
}

type Attempts = BTreeMap<String, Attempt>;

impl Run {
    fn all(&self) -> io::Result<Result<Vec<Finding>, Refused>> {
        let (mut inside, harmless) = match self.in_one_box() {
            Ok(both) => both,
            Err(refused) => return Ok(Err(refused)),
        };
        let mut outside = self.outside_together()?;
        for probe in all() {
            if let Place::Alone(limits) = probe.place {
                match self.alone(probe, limits) {
                    Ok(attempt) => inside.insert(probe.name.to_owned(), attempt),
                    Err(refused) => return Ok(Err(refused)),
                };
                outside.insert(probe.name.to_owned(), self.alone_outside(probe)?);
            }
        }
        let twins = self.twins(&outside)?;
        let of = |attempts: &Attempts, name: &str| {
            attempts
                .get(name)
                .cloned()
                .unwrap_or_else(|| Attempt::stopped("it said nothing"))
        };
        let judge = |probe: &Probe| {
            finding(
                probe,
                &of(&inside, probe.name),
                &of(&outside, probe.name),
                twins.get(probe.name),
                &of(&harmless, probe.name),
            )
        };
        Ok(Ok(all().map(judge).collect()))
    }

    /// The attacks that share a box, and all harmless pairs.
    fn in_one_box(&self) -> Result<(Attempts, Attempts), Refused> {
        let attacks = self.boxed(
            &together(&self.outside.inside, Mode::Attack, shared()),
            Limits::default(),
        )?;
        let harmless = self.boxed(
            &together(
                &self.outside.inside,
                Mode::Harmless,
                all().map(|probe| probe.name),
            ),
            Limits::default(),
        )?;
        Ok((lines(&attacks.stdout), lines(&harmless.stdout)))
    }

    fn boxed(&self, arguments: &[String], limits: Limits) -> Result<RunOutcome, Refused> {
        boxed(&self.helper, &self.outside.workspace, arguments, limits)
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
        arguments.push(self.helper.display().to_string());
        arguments.push(self.outside.workspace.display().to_string());
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

fn twin(helper: &str, workspace: &str, scene: &str) -> io::Result<()> {
    let scene: Scene = serde_json::from_str(scene).map_err(io::Error::other)?;
    let traced = || {
        all().filter_map(|probe| match probe.control {
            Control::Traced(number) => Some((probe.name, number)),
            Control::Plain | Control::Throwaway | Control::Apart => None,
        })
    };
    let numbers: Vec<i64> = traced().map(|(_, number)| number).collect();
    stand_in(&numbers)?;
    let arguments = together(&scene, Mode::Traced, traced().map(|(name, _)| name));
    let outcome = boxed(
        Path::new(helper),
        Path::new(workspace),
        &arguments,
        Limits::default(),
    );
    print!("{}", outcome.map_err(io::Error::other)?.stdout);
    Ok(())
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

fn boxed(
    helper: &Path,
    workspace: &Path,
    arguments: &[String],
    limits: Limits,
) -> Result<RunOutcome, Refused> {
    let argv = std::iter::once(TOOL.to_owned())
        .chain(arguments.iter().cloned())
        .collect();
    let own = std::env::current_exe().map_err(|error| Refused {
        reason: format!("cannot find this program: {error}"),
        fix: "install it into a folder that can be read".to_owned(),
    })?;
    let spec = RunSpec {
        action: Action::Argv { argv },
        limits,
        workspace: workspace.to_owned(),
        tool_program: own,
    };
    run_once(spec, helper)
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

fn finding(
    probe: &Probe,
    inside: &Attempt,
    outside: &Attempt,
    twin: Option<&Twin>,
    harmless: &Attempt,
) -> Finding {
    let differs = outside.answer != inside.answer;
    let twin_tells = twin.is_some_and(|twin| twin.outside.got_through && !twin.inside.got_through);
    let seen = outside.got_through
        || match probe.control {
            Control::Apart => differs,
            Control::Traced(_) => twin_tells,
            Control::Plain | Control::Throwaway => false,
        };
    let mut detail = format!("box: {}; outside: {}", inside.detail, outside.detail);
    if !outside.got_through && twin_tells {
        detail.push_str("; a twin with a filter in the kernel's place: refused before it in the box, reached outside");
    }
    if !harmless.got_through {
        detail.push_str(&format!(
            "; the harmless pair fails in the box: {}",
            harmless.detail
        ));
    }
    Finding {
        probe: probe.name.to_owned(),
        mechanism: probe.stopped_by.to_owned(),
        stopped: !inside.got_through,
        control: seen && harmless.got_through,
        detail,
    }
}
