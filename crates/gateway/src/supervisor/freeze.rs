//! The switch that freezes everything. It needs no program, no record and not even the
//! supervisor's own loop: whoever reads a request throws it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use config::{FreezeMark, Home};
use protocol::control::Peer;
use protocol::freeze::{By, Frozen, MAX_REASON};
use protocol::supervisor::{FreezeStatus, Mark, Recorded, Thrown};
use protocol::time::Millis;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

/// How long the disk may take to keep the mark. What runs is not left running for a disk that
/// stands still.
const MARK_LIMIT: Duration = Duration::from_millis(250);

/// How long the kernel may take to end what was killed, before it is said that it has not.
const DEATH_LIMIT: Duration = Duration::from_secs(2);

/// What a freeze does to a program.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is killed, and not started while the freeze lasts.
    Dies,
    /// It goes on: it has to tell, to write the record or to keep what there is.
    Stays,
}

/// Who works, holds secrets or leads out dies; boxes die with the program that makes them.
pub(super) fn fate(peer: &Peer) -> Fate {
    match peer {
        Peer::Agent(_) | Peer::Sandbox | Peer::Egress | Peer::Vault => Fate::Dies,
        Peer::Gateway | Peer::Ledger | Peer::Workspace | Peer::Channel(_) => Fate::Stays,
    }
}

/// What a freeze did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) status: FreezeStatus,
    pub(super) thrown: Thrown,
    /// How many programs were killed.
    pub(super) killed: u32,
    /// How many of them are not gone yet.
    pub(super) left: u32,
}

/// The switch. Its copies are the same one.
#[derive(Clone)]
pub(super) struct Switch {
    mark: FreezeMark,
    shared: Arc<Mutex<Shared>>,
}

/// Why a freeze is not over.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReleased {
    /// Its mark is still there.
    #[error("its mark cannot be taken away: {0}. Make room or mend the disk, then do it again")]
    Mark(std::io::Error),
    /// Somebody froze everything again meanwhile.
    #[error("somebody froze everything again meanwhile; look why, then do it again")]
    ThrownAgain,
}

#[derive(Default)]
struct Shared {
    frozen: Option<FreezeStatus>,
    /// How often it was thrown, and by whom last.
    throws: u64,
    last: Option<Frozen>,
    /// Those that a freeze kills, by the number of their start.
    mortal: BTreeMap<u64, Arc<OwnedFd>>,
}

impl Switch {
    /// As the home has it: frozen if its mark is there.
    pub(super) fn new(home: &Home) -> Self {
        let mark = FreezeMark::of(home);
        let frozen = mark.read().map(|frozen| FreezeStatus {
            frozen,
            mark: Mark::Synced,
            recorded: Recorded::NotYet,
        });
        let mortal = BTreeMap::new();
        Self {
            mark,
            shared: Arc::new(Mutex::new(Shared {
                frozen,
                throws: 0,
                last: None,
                mortal,
            })),
        }
    }

    /// Keeps the room for the mark, as the disk may be full when it is needed.
    pub(super) fn reserve(&self) -> std::io::Result<()> {
        self.mark.reserve()
    }

    /// The freeze, while there is one.
    pub(super) fn status(&self) -> Option<FreezeStatus> {
        self.lock().frozen.clone()
    }

    /// Whether this program may be started now.
    pub(super) fn allows(&self, peer: &Peer) -> bool {
        fate(peer) == Fate::Stays || self.lock().frozen.is_none()
    }

    /// From now on this program can be killed by a freeze; at once, if one came meanwhile.
    pub(super) fn watch(&self, peer: &Peer, start: u64, process: &Arc<OwnedFd>) {
        if fate(peer) == Fate::Stays {
            return;
        }
        let mut shared = self.lock();
        shared.mortal.insert(start, Arc::clone(process));
        if shared.frozen.is_some() {
            kill(process);
        }
    }

    /// This program is gone.
    pub(super) fn forget(&self, start: u64) {
        self.lock().mortal.remove(&start);
    }

    /// Its row is written.
    pub(super) fn recorded(&self, since: Millis) {
        if let Some(status) = &mut self.lock().frozen
            && status.frozen.since == since
        {
            status.recorded = Recorded::Yes;
        }
    }

    /// Freezes everything: kills, keeps the mark, and comes back when what was killed is gone.
    /// Doing it again is harmless, and keeps who was first. `tell` is called just before the kills;
    /// it must not take long.
    pub(super) fn throw(&self, by: By, reason: &str, tell: impl FnOnce()) -> Done {
        let (frozen, thrown) = {
            let mut shared = self.lock();
            let frozen = Frozen {
                since: Millis::now(),
                by,
                reason: reason[..reason.floor_char_boundary(MAX_REASON)].to_owned(),
            };
            shared.throws += 1;
            shared.last = Some(frozen.clone());
            let thrown = match shared.frozen {
                None => Thrown::Now,
                Some(_) => Thrown::Before,
            };
            let status = shared.frozen.get_or_insert_with(|| unkept(frozen));
            (status.clone(), thrown)
        };
        // From here on nothing mortal starts. The kills do not wait for a disk; nobody is told that
        // everything is frozen before the mark is kept.
        tell();
        let mortal: Vec<Arc<OwnedFd>> = self.lock().mortal.values().cloned().collect();
        mortal.iter().for_each(|process| kill(process));
        let mark = match frozen.mark {
            Mark::Synced => Mark::Synced,
            Mark::Unconfirmed | Mark::Missing => self.keep(frozen.frozen.clone()),
        };
        {
            let mut shared = self.lock();
            if let Some(status) = &mut shared.frozen
                && status.mark != Mark::Synced
            {
                status.mark = mark;
            }
        }
        let left = wait(&mortal, Instant::now() + DEATH_LIMIT);
        let status = self.status().unwrap_or(FreezeStatus { mark, ..frozen });
        Done {
            status,
            thrown,
            killed: count(mortal.len()),
            left: count(left),
        }
    }

    /// Writes the mark in a thread of its own, since a disk can stand still.
    fn keep(&self, frozen: Frozen) -> Mark {
        let (tell, told) = sync_channel(2);
        let (mark, shared) = (self.mark.clone(), Arc::clone(&self.shared));
        let write = move || {
            let written = mark.write(&frozen);
            // Nobody listens any more when it took too long.
            let _ = tell.send(written.map(|()| Mark::Unconfirmed));
            let synced = mark.sync();
            if synced.is_ok()
                && let Some(status) = &mut lock(&shared).frozen
                && status.frozen == frozen
            {
                status.mark = Mark::Synced;
            }
            let _ = tell.send(synced.map(|()| Mark::Synced));
        };
        if let Err(error) = thread::Builder::new().name("mark".to_owned()).spawn(write) {
            protocol::log!("bulkhead-supervisor: the mark of the freeze: {error}");
            return Mark::Missing;
        }
        let end = Instant::now() + MARK_LIMIT;
        let mut kept = Mark::Missing;
        while kept != Mark::Synced {
            match told.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Ok(mark)) => kept = mark,
                Ok(Err(error)) => {
                    protocol::log!("bulkhead-supervisor: the mark of the freeze: {error}");
                    break;
                }
                Err(_) => break,
            }
        }
        kept
    }

    /// How often it was thrown until now, for [`Self::release`].
    pub(super) fn throws(&self) -> u64 {
        self.lock().throws
    }

    /// Ends the freeze: takes its mark away first, so that it is over after a restart too. The
    /// error leaves everything frozen. Whoever threw the switch since `throws` was asked for is told
    /// that everything is frozen, and so it stays: by a freeze of theirs, since the end of the other
    /// is in the record.
    pub(super) fn release(&self, throws: u64) -> Result<(), NotReleased> {
        if let Some(kept) = self.give_up_mark(throws)
            && let Err(error) = self.mark.remove()
        {
            if let Some(status) = &mut self.lock().frozen {
                status.mark = kept;
            }
            return Err(NotReleased::Mark(error));
        }
        let again = {
            let mut shared = self.lock();
            if shared.throws == throws {
                shared.frozen = None;
                return Ok(());
            }
            let again = shared.last.clone();
            shared.frozen = again.clone().map(unkept);
            again
        };
        if let Some(again) = again {
            let mark = self.keep(again);
            if let Some(status) = &mut self.lock().frozen {
                status.mark = mark;
            }
        }
        Err(NotReleased::ThrownAgain)
    }

    /// From now on the mark counts as gone, so that whoever throws the switch before it is has
    /// another one written; what it was. Nothing if somebody threw it already.
    fn give_up_mark(&self, throws: u64) -> Option<Mark> {
        let mut shared = self.lock();
        let shared = &mut *shared;
        let status = shared.frozen.as_mut()?;
        (shared.throws == throws).then(|| std::mem::replace(&mut status.mark, Mark::Missing))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

/// A freeze of which nothing is written yet.
fn unkept(frozen: Frozen) -> FreezeStatus {
    FreezeStatus {
        frozen,
        mark: Mark::Missing,
        recorded: Recorded::NotYet,
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(process: &OwnedFd) {
    // It may have ended by itself; then there is nothing to do.
    let _ = pidfd_send_signal(process, Signal::KILL);
}

/// How many of these are not gone by then. A pidfd can be read when its process has ended
/// (pidfd_open(2)).
fn wait(processes: &[Arc<OwnedFd>], end: Instant) -> usize {
    let mut left: Vec<&Arc<OwnedFd>> = processes.iter().collect();
    while !left.is_empty() {
        let mut polled: Vec<PollFd<'_>> = left
            .iter()
            .map(|process| PollFd::new(&***process, PollFlags::IN))
            .collect();
        let time = end.saturating_duration_since(Instant::now());
        let time = Timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        match poll(&mut polled, Some(&time)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => break,
        }
        let gone: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        let mut gone = gone.into_iter();
        left.retain(|_| !gone.next().unwrap_or(false));
    }
    left.len()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use protocol::ids::SessionId;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("h")).unwrap();
        home.create().unwrap();
        (dir, home)
    }

    fn sleeper() -> (Child, Arc<OwnedFd>) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        (child, Arc::new(process))
    }

    fn agent(name: &str) -> Peer {
        Peer::Agent(SessionId::parse(name).unwrap())
    }

    #[test]
    fn a_freeze_marks_the_home_and_kills_who_works_and_nobody_else() {
        let (_dir, home) = home();
        let switch = Switch::new(&home);
        let mut all = Vec::new();
        for (start, peer) in (0..).zip([agent("s"), Peer::Vault, Peer::Egress, Peer::Sandbox]) {
            let (child, process) = sleeper();
            switch.watch(&peer, start, &process);
            all.push(child);
        }
        let (mut gateway, process) = sleeper();
        switch.watch(&Peer::Gateway, 9, &process);
        let thrown = switch.throw(By::Terminal, "because", || {});
        assert_eq!((thrown.killed, thrown.left), (4, 0));
        assert_eq!(thrown.status.mark, Mark::Synced);
        assert_eq!(FreezeMark::of(&home).read(), Some(thrown.status.frozen));
        for child in &mut all {
            assert!(!child.wait().unwrap().success());
        }
        assert!(gateway.try_wait().unwrap().is_none());
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }

    #[test]
    fn what_starts_in_the_same_moment_dies_too() {
        let (_dir, home) = home();
        let switch = Switch::new(&home);
        assert!(switch.allows(&agent("s")));
        let _ = switch.throw(By::Terminal, "", || {});
        assert!(!switch.allows(&agent("s")) && switch.allows(&Peer::Ledger));
        let (mut child, process) = sleeper();
        switch.watch(&agent("s"), 1, &process);
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_freeze_lasts_over_a_restart_until_it_is_released_and_the_first_one_counts() {
        let (_dir, home) = home();
        let first = Switch::new(&home)
            .throw(By::Terminal, "first", || {})
            .status
            .frozen;
        let switch = Switch::new(&home);
        assert_eq!(switch.status().unwrap().frozen, first);
        assert_eq!(
            switch.throw(By::Unknown, "second", || {}).status.frozen,
            first
        );
        switch.release(switch.throws()).unwrap();
        assert_eq!(switch.status(), None);
        assert_eq!(Switch::new(&home).status(), None);
        assert!(switch.allows(&Peer::Vault));
    }

    #[test]
    fn a_freeze_that_comes_while_another_is_ended_is_not_lost() {
        let (_dir, home) = home();
        let switch = Switch::new(&home);
        let _ = switch.throw(By::Terminal, "first", || {});
        let before = switch.throws();
        let _ = switch.throw(By::Unknown, "second", || {});
        assert!(matches!(
            switch.release(before),
            Err(NotReleased::ThrownAgain)
        ));
        let status = switch.status().unwrap();
        assert_eq!(
            (status.frozen.by.clone(), status.frozen.reason.as_str()),
            (By::Unknown, "second")
        );
        assert_eq!(status.recorded, Recorded::NotYet);
        assert_eq!(Switch::new(&home).status().unwrap().frozen, status.frozen);
        assert!(!switch.allows(&Peer::Vault));
    }

    #[test]
    fn a_freeze_in_the_moment_in_which_a_mark_is_taken_away_writes_its_own() {
        let (_dir, home) = home();
        let switch = Switch::new(&home);
        let _ = switch.throw(By::Terminal, "first", || {});
        let before = switch.throws();
        assert_eq!(switch.give_up_mark(before), Some(Mark::Synced));
        switch.mark.remove().unwrap();
        let done = switch.throw(By::Unknown, "second", || {});
        assert_eq!(
            (done.status.mark, done.thrown),
            (Mark::Synced, Thrown::Before)
        );
        assert!(FreezeMark::of(&home).read().is_some());
        assert_eq!(switch.give_up_mark(before), None);
    }

    #[test]
    fn who_works_is_killed_before_the_disk_is_asked_for_anything() {
        let (_dir, home) = home();
        let switch = Switch::new(&home);
        let (mut child, process) = sleeper();
        switch.watch(&Peer::Vault, 1, &process);
        // A mark that cannot be written before somebody reads it, as on a disk that stands still.
        rustix::fs::mkfifoat(rustix::fs::CWD, home.freeze_spare(), rustix::fs::Mode::RWXU).unwrap();
        let throwing = switch.clone();
        let began = Instant::now();
        let thrower = thread::spawn(move || throwing.throw(By::Terminal, "", || {}));
        assert!(!child.wait().unwrap().success());
        let took = began.elapsed();
        assert!(took < MARK_LIMIT, "{took:?}");
        let done = thrower.join().unwrap();
        assert_eq!((done.killed, done.status.mark), (1, Mark::Missing));
    }

    #[test]
    fn a_mark_that_cannot_be_taken_away_is_still_one() {
        let (_dir, home) = home();
        let switch = Switch::new(&home);
        let first = switch.throw(By::Terminal, "first", || {}).status;
        std::fs::remove_file(home.freeze_mark()).unwrap();
        std::fs::create_dir_all(home.freeze_mark().join("full")).unwrap();
        assert!(matches!(
            switch.release(switch.throws()),
            Err(NotReleased::Mark(_))
        ));
        assert_eq!(switch.status(), Some(first));
    }

    #[test]
    fn without_a_place_for_its_mark_everything_is_frozen_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("nowhere")).unwrap();
        let switch = Switch::new(&home);
        let (mut child, process) = sleeper();
        switch.watch(&Peer::Vault, 1, &process);
        let thrown = switch.throw(By::Terminal, &"é".repeat(MAX_REASON), || {});
        assert_eq!(thrown.status.mark, Mark::Missing);
        assert_eq!(thrown.status.frozen.reason.len(), MAX_REASON);
        assert!(!child.wait().unwrap().success());
        assert!(!switch.allows(&Peer::Vault));
    }
}
