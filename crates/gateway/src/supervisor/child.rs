//! One started program.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use protocol::control::{Control, Peer, Report, SupervisorEnd};
use protocol::frame::LinkError;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::freeze::Switch;
use super::plan::Plan;

/// How long a program may leave its control link full. One that stands still must not hold
/// up the supervisor.
const SEND_LIMIT: Duration = Duration::from_secs(1);

/// What a program did.
pub(super) enum ChildEvent {
    /// It said something.
    Said(Report),
    /// It is gone, and how.
    Gone(String),
}

/// A started program. Its threads report under the number `start`, so that what an earlier
/// start still had to say is not taken for this one's.
pub(super) struct Child {
    /// Its process.
    pub(super) pid: u32,
    /// Which start this is.
    pub(super) start: u64,
    control: SupervisorEnd<serde_json::Value>,
    process: Arc<OwnedFd>,
}

impl Child {
    /// Starts it and tells it its configuration. Has to be called from the main thread: the
    /// program asks to be killed when the thread that started it ends.
    ///
    /// What can fail comes before the program is there, so that none lives on unseen after an error.
    pub(super) fn start(
        plan: &Plan,
        start: u64,
        events: &SyncSender<(Peer, u64, ChildEvent)>,
        switch: &Switch,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_write_timeout(Some(SEND_LIMIT))?;
        let control = SupervisorEnd::new(ours);
        let reports = control.try_clone().map_err(io::Error::other)?;
        let listeners: Vec<OwnedFd> = (plan.listeners.iter())
            .map(OwnedFd::try_clone)
            .collect::<io::Result<_>>()?;
        let (peer, sender) = (plan.peer.clone(), events.clone());
        thread::Builder::new()
            .name(format!("{start}-reports"))
            .spawn(move || {
                while let Ok((report, _)) = reports.receive() {
                    if sender
                        .send((peer.clone(), start, ChildEvent::Said(report)))
                        .is_err()
                    {
                        return;
                    }
                }
            })?;
        let (peer, sender) = (plan.peer.clone(), events.clone());
        let (give, given) = sync_channel::<process::Child>(1);
        thread::Builder::new()
            .name(format!("{start}-wait"))
            .spawn(move || {
                // None comes if it cannot be started.
                let Ok(mut child) = given.recv() else { return };
                let how = match child.wait() {
                    Ok(status) => describe(status),
                    Err(error) => format!("could not be waited for: {error}"),
                };
                // A supervisor that no longer listens is ending itself.
                let _ = sender.send((peer, start, ChildEvent::Gone(how)));
            })?;
        let mut child = Command::new(&plan.path)
            .args(&plan.arguments)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Ctrl-C in the terminal is for the supervisor, which stops the others in order.
            .process_group(0)
            .spawn()?;
        let pid = child.id();
        // Not reaped yet, so the number still means this process.
        let process = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(process) => Arc::new(process),
            Err(error) => {
                // Waited for as any other; the loop knows no such start and drops its end.
                let _ = child.kill();
                let _ = give.send(child);
                return Err(error.into());
            }
        };
        switch.watch(&plan.peer, start, &process);
        // The thread waits for it.
        let _ = give.send(child);
        let child = Self {
            pid,
            start,
            control,
            process,
        };
        // One that does not take them, since a freeze killed it in this moment, it ended by itself or
        // it stands still, is reported gone, which says what becomes of it.
        let config = plan.config.clone();
        let told = child.tell(&Control::Start { config }).and_then(|()| {
            let mut listeners = listeners.into_iter();
            listeners.try_for_each(|listener| child.hand(&Control::Listener, listener))
        });
        if let Err(error) = told {
            protocol::log!(
                "bulkhead-supervisor: {} could not be told how to start: {error}",
                plan.name
            );
            child.kill();
        }
        Ok(child)
    }

    /// Sends it a frame. A program that does not take it is killed, if it is not just dying:
    /// half of the frame may have gone out. It is reported gone either way.
    pub(super) fn tell(&self, frame: &Control<serde_json::Value>) -> Result<(), LinkError> {
        self.control.send(frame).inspect_err(|_| self.kill())
    }

    /// Sends it a frame with a socket, likewise.
    pub(super) fn hand(
        &self,
        frame: &Control<serde_json::Value>,
        fd: OwnedFd,
    ) -> Result<(), LinkError> {
        self.control
            .send_with(frame, fd)
            .inspect_err(|_| self.kill())
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }
}

/// Links two programs: each gets one end, under the other's name.
pub(super) fn link(a: (&Peer, &Child), b: (&Peer, &Child)) -> Result<(), LinkError> {
    let (left, right) = UnixStream::pair()?;
    // One that is dying does not take its end, and is linked anew when it is started again.
    let _ = a.1.hand(&Control::Link { peer: b.0.clone() }, left.into());
    let _ = b.1.hand(&Control::Link { peer: a.0.clone() }, right.into());
    Ok(())
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use config::Home;
    use protocol::freeze::By;

    use super::*;

    fn plan(path: &str, config: serde_json::Value) -> Plan {
        Plan {
            name: "bulkhead-vault",
            path: PathBuf::from(path),
            arguments: vec!["60".into()],
            peer: Peer::Vault,
            links: Vec::new(),
            listeners: Vec::new(),
            config,
            stop_round: 0,
        }
    }

    #[test]
    fn a_program_that_a_freeze_kills_while_it_starts_is_reported_gone_and_has_not_failed() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("h")).unwrap();
        home.create().unwrap();
        let switch = Switch::new(&home);
        let _ = switch.throw(By::Terminal, "", || {});
        let (sender, events) = sync_channel(4);
        // More than fits into the socket, so that it cannot be told before it dies.
        let config = serde_json::Value::String("x".repeat(2 << 20));
        let child = Child::start(&plan("/bin/sleep", config), 3, &sender, &switch).unwrap();
        assert_eq!(child.start, 3);
        let gone = events.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(
            matches!(&gone, (Peer::Vault, 3, ChildEvent::Gone(how)) if how == "was ended by signal 9")
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_and_reports_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let switch = Switch::new(&Home::at(dir.path()).unwrap());
        let (sender, events) = sync_channel(4);
        let nowhere = plan("/nowhere/at-all", serde_json::Value::Null);
        assert!(Child::start(&nowhere, 3, &sender, &switch).is_err());
        drop(sender);
        assert!(events.recv_timeout(Duration::from_secs(10)).is_err());
    }
}
