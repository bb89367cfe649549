//! Boxes kept ready, so that a call does not wait for the building of its box.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::runner::Limits;

use crate::boxes::{Boxes, Ready, Stamp};
use crate::native::spec::Kind;
use crate::run::{Job, Killer, Refused, Run, Start};
use crate::way::Outside;

/// Boxes that are ready, and the thread that makes more.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    maker: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    boxes: Boxes,
    limits: Limits,
    /// So many of each kind.
    spare: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<Ready>,
    running: usize,
    stopped: bool,
}

/// While something runs, the processors are its own for so long.
const HOLD_BACK: Duration = Duration::from_millis(20);
/// After a box could not be built.
const PAUSE: Duration = Duration::from_secs(5);

impl Pool {
    /// Keeps `spare` boxes of each kind ready for runs with these limits.
    pub fn start(boxes: Boxes, limits: Limits, spare: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            boxes,
            limits,
            spare,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let making = Arc::clone(&shared);
        let maker = std::thread::Builder::new()
            .name("spare boxes".to_owned())
            .spawn(move || making.make())?;
        Ok(Self {
            shared,
            maker: Some(maker),
        })
    }

    /// What makes the boxes.
    pub fn boxes(&self) -> &Boxes {
        &self.shared.boxes
    }

    /// Runs it in a box that is ready, or else in one that is built for it. `begun` gets what
    /// kills it, before it begins.
    pub fn run(
        &self,
        job: Job,
        begun: impl FnOnce(Killer),
    ) -> Result<protocol::runner::RunOutcome, Refused> {
        self.run_online(job, &Outside::Nothing, begun)
    }

    /// The same, in a box that may reach something; such a one is never ready before.
    pub fn run_online(
        &self,
        job: Job,
        outside: &Outside,
        begun: impl FnOnce(Killer),
    ) -> Result<protocol::runner::RunOutcome, Refused> {
        let shared = &self.shared;
        let start = Start::of(&job.action)?.reaching(&job.action, outside)?;
        shared.locked().running += 1;
        let outcome = shared
            .take(start.kind, &job.limits)
            .map_or_else(|| shared.boxes.build(start.kind, &job.limits, outside), Ok)
            .and_then(|ready| Run::prepare(ready, start, job))
            .and_then(|run| {
                begun(run.killer());
                run.finish(shared.boxes.layers().as_ref())
            });
        shared.locked().running -= 1;
        shared.changed.notify_all();
        outcome
    }

    /// Throws away what is ready, for instance since its layers are not there any more.
    pub fn flush(&self) {
        let old = std::mem::take(&mut self.shared.locked().ready);
        drop(old);
        self.shared.changed.notify_all();
    }

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.shared.locked().ready.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.locked().stopped = true;
        self.shared.changed.notify_all();
        if let Some(maker) = self.maker.take() {
            let _ = maker.join();
        }
    }
}

impl Shared {
    /// The state is whole after each statement, so that a panic elsewhere leaves nothing half done.
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, kind: Kind, limits: &Limits) -> Option<Ready> {
        let stamp = Stamp::of(self.boxes.workspace()).ok()?;
        let (taken, stale) = {
            let mut state = self.locked();
            let all = std::mem::take(&mut state.ready);
            let (mut fitting, rest): (Vec<_>, Vec<_>) = all
                .into_iter()
                .partition(|ready| ready.fits(kind, limits, stamp));
            let taken = fitting.pop();
            let (stale, good): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|ready| ready.is_stale(stamp));
            state.ready = good;
            state.ready.append(&mut fitting);
            (taken, stale)
        };
        drop(stale);
        taken
    }

    fn make(&self) {
        while let Some(kind) = self.next_kind() {
            match self.boxes.build(kind, &self.limits, &Outside::Nothing) {
                Ok(ready) => self.locked().ready.push(ready),
                // Whoever asks for a box gets the reason, and here it would be said again and again.
                Err(Refused { .. }) => self.pause(),
            }
        }
        self.locked().ready.clear();
    }

    /// Waits until a box is missing, and nothing that runs is kept from its processor; none at the end.
    fn next_kind(&self) -> Option<Kind> {
        let mut state = self.locked();
        let mut missing_since = None;
        loop {
            if state.stopped {
                return None;
            }
            let count = |kind| {
                state
                    .ready
                    .iter()
                    .filter(|ready| ready.kind == kind)
                    .count()
            };
            let missing = [Kind::Exec, Kind::Tool]
                .into_iter()
                .find(|kind| count(*kind) < self.spare);
            let Some(kind) = missing else {
                missing_since = None;
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let since = *missing_since.get_or_insert_with(Instant::now);
            let left = HOLD_BACK.saturating_sub(since.elapsed());
            if state.running == 0 || left.is_zero() {
                return Some(kind);
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn pause(&self) {
        let until = Instant::now() + PAUSE;
        let mut state = self.locked();
        while !state.stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
