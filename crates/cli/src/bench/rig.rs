//! A workspace of a certain size, the program that keeps it, and boxes over it.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use protocol::call::Action;
use protocol::control::{BoxGroups, HistoryLimits, MemoryPolicy};
use protocol::runner::{Fate, Limits, RunEnd, RunOutcome};
use protocol::workspace::{Diff, HistoryReply, HistoryRequest, UndoTo};
use sandbox::boxes::{self, Boxes};
use sandbox::layers::{HistoryLink, Keeper};
use sandbox::pool::Pool;
use sandbox::run::{Job, Refused, Then};

use crate::fault::Fault;
use crate::programs;

/// Files of one folder of a workspace.
const IN_A_FOLDER: usize = 1000;
/// How long a box may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(1);
/// Kinds of boxes of which a pool keeps some.
const KINDS: usize = 2;

/// All of it. Boxes end before the program that keeps their layers.
pub(super) struct Rig {
    pool: Pool,
    spare: usize,
    history: HistoryLink,
    /// Ends with this.
    _keeper: Keeper,
}

impl Rig {
    /// Makes a workspace with so many files in the folder, and keeps so many boxes of each kind ready.
    /// Boxes die with the calling thread.
    pub(super) fn start(folder: &Path, files: usize, spare: usize) -> Result<Self, Fault> {
        let (workspace, history) = (folder.join("workspace"), folder.join("history"));
        fill(&workspace, files).map_err(Fault::io(format!("write to {workspace:?}")))?;
        let keeper = Keeper::start(
            &programs::path("bulkhead-workspace")?,
            &workspace,
            &history,
            HistoryLimits::default(),
        )
        .map_err(refused)?;
        let config = boxes::Config {
            program: programs::path("bulkhead-sandbox")?,
            tool_program: programs::path("bulkhead-tool")?,
            workspace,
            memory: MemoryPolicy::BestEffort,
            groups: BoxGroups::Own,
        };
        let boxes = Boxes::start(config, keeper.layers()).map_err(refused)?;
        let pool = Pool::start(boxes, Limits::default(), spare);
        Ok(Self {
            pool: pool.map_err(Fault::io("start a thread"))?,
            spare,
            history: keeper.history().map_err(refused)?,
            _keeper: keeper,
        })
    }

    /// Runs `/bin/true` in a box that is made for it.
    pub(super) fn cold(&self) -> Result<(Duration, RunOutcome), Fault> {
        timed(|| self.pool.boxes().run(job(&["/bin/true"])))
    }

    /// Waits until a box is ready, and runs `/bin/true` in it.
    pub(super) fn ready(&self) -> Result<(Duration, RunOutcome), Fault> {
        self.wait()?;
        timed(|| self.pool.run(job(&["/bin/true"]), drop))
    }

    /// Waits until a box is ready, and has it change a file.
    pub(super) fn change(&self, number: usize) -> Result<Duration, Fault> {
        self.wait()?;
        let script = format!("echo {number} > 0/0");
        let (time, outcome) = timed(|| {
            self.pool
                .run(job(&["/bin/sh", "-c", script.as_str()]), drop)
        })?;
        match outcome.changes.fate {
            Fate::Kept { .. } => Ok(time),
            fate => Err(Fault::Refused(format!("a change was not kept: {fate:?}"))),
        }
    }

    /// Looks at what the newest change did, and undoes it.
    pub(super) fn undo(&self) -> Result<Duration, Fault> {
        let began = Instant::now();
        let to = UndoTo::Newest;
        let (look, diff) = (to.clone(), Diff::None);
        let digest = match self.ask(&HistoryRequest::Preview { to: look, diff })? {
            HistoryReply::Preview { preview } => preview.digest,
            other => return Err(unexpected(other)),
        };
        match self.ask(&HistoryRequest::Undo { to, digest })? {
            HistoryReply::Undone { .. } => Ok(began.elapsed()),
            other => Err(unexpected(other)),
        }
    }

    /// How many boxes these threads together get through in a second, each made when it is wanted.
    pub(super) fn rate(&self, threads: usize, time: Duration) -> Result<f64, Fault> {
        let began = Instant::now();
        let work = || {
            let mut count = 0_u32;
            while began.elapsed() < time {
                self.cold()?;
                count += 1;
            }
            Ok::<u32, Fault>(count)
        };
        let counts = thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let counts = all.into_iter().map(|one| match one.join() {
                Ok(count) => count,
                Err(_) => Err(Fault::Refused("a thread of the bench failed".to_owned())),
            });
            counts.collect::<Result<Vec<u32>, Fault>>()
        })?;
        Ok(f64::from(counts.iter().sum::<u32>()) / began.elapsed().as_secs_f64())
    }

    fn wait(&self) -> Result<(), Fault> {
        let began = Instant::now();
        while self.pool.ready() < self.spare * KINDS {
            if began.elapsed() > PATIENCE {
                return Err(Fault::Refused("no box gets ready".to_owned()));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn ask(&self, request: &HistoryRequest) -> Result<HistoryReply, Fault> {
        let sent = self.history.send(request);
        sent.and_then(|()| self.history.receive())
            .map_err(Fault::link("bulkhead-workspace"))
    }
}

fn timed(
    run: impl FnOnce() -> Result<RunOutcome, Refused>,
) -> Result<(Duration, RunOutcome), Fault> {
    let began = Instant::now();
    let outcome = run();
    let time = began.elapsed();
    let outcome = outcome.map_err(refused)?;
    match outcome.end {
        RunEnd::Exited { code: 0 } => Ok((time, outcome)),
        end => Err(Fault::Refused(format!(
            "a command ended as {end:?} in its box: {}",
            outcome.stderr
        ))),
    }
}

fn job(argv: &[&str]) -> Job {
    Job {
        action: Action::Argv {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
        },
        limits: Limits::default(),
        then: Then::Keep {
            origin: None,
            git: protocol::workspace::GitFolders::Open,
        },
    }
}

fn fill(workspace: &Path, files: usize) -> std::io::Result<()> {
    for first in (0..files).step_by(IN_A_FOLDER) {
        let folder = workspace.join((first / IN_A_FOLDER).to_string());
        fs::create_dir_all(&folder)?;
        for number in first..files.min(first + IN_A_FOLDER) {
            fs::write(folder.join((number - first).to_string()), "as it was\n")?;
        }
    }
    Ok(())
}

fn refused(Refused { reason, fix }: Refused) -> Fault {
    Fault::Refused(format!("{reason}. {fix}"))
}

fn unexpected(reply: HistoryReply) -> Fault {
    match reply {
        HistoryReply::Refused { reason, fix } => Fault::Refused(format!("{reason}. {fix}")),
        HistoryReply::Entries { .. }
        | HistoryReply::Preview { .. }
        | HistoryReply::Undone { .. } => Fault::Unexpected("bulkhead-workspace"),
    }
}
