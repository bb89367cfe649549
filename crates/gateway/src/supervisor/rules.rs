//! Whether rules can be used: asked of a program of its own, so that what reads them neither stays
//! in this one's memory nor can harm it.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use protocol::rules::{OwnerRules, RulesCheck};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long it may take. Reading the largest rules takes a small part of it.
const LIMIT: Duration = Duration::from_secs(5);

/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// Where the program is that checks.
#[derive(Clone, Debug)]
pub(super) struct Checker {
    program: PathBuf,
    limit: Duration,
}

impl Checker {
    /// The one beside this program.
    pub(super) fn beside(programs: &Path) -> Self {
        Self {
            program: programs.join("bulkhead-gateway"),
            limit: LIMIT,
        }
    }

    /// Why these rules cannot be used. A check that fails, for whatever reason, is a reason.
    pub(super) fn check(&self, rules: &OwnerRules) -> Result<(), String> {
        let failed =
            |why: String| format!("the rules could not be checked, so they are not taken: {why}");
        match self.ask(rules).map_err(failed)? {
            RulesCheck::Sound => Ok(()),
            RulesCheck::Broken { reason } => Err(reason),
        }
    }

    fn ask(&self, rules: &OwnerRules) -> Result<RulesCheck, String> {
        let json = serde_json::to_vec(rules).map_err(|error| error.to_string())?;
        let mut child = Command::new(&self.program)
            .arg("--check-rules")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{:?}: {error}", self.program))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let answer = self.guarded(&child, || talk(input, output, &json));
        // It has ended, or was killed, or has said all that is read of it.
        drop(child.kill());
        let ended = child.wait().map_err(|error| error.to_string())?;
        let text = answer?;
        serde_json::from_slice(&text).map_err(|_| match text.is_empty() {
            true => format!("it said nothing and ended: {ended}"),
            false => "it said what cannot be understood".to_owned(),
        })
    }

    /// Does this, and kills the program if that takes too long.
    fn guarded<T>(
        &self,
        child: &Child,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty());
        let process = process.map_err(|error| error.to_string())?;
        let (done, over) = sync_channel::<()>(1);
        let limit = self.limit;
        let guard = thread::Builder::new()
            .name("limit".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || match over.recv_timeout(limit) {
                Err(RecvTimeoutError::Timeout) => {
                    // It may have ended in this moment; then there is nothing to do.
                    let _ = pidfd_send_signal(&process, Signal::KILL);
                }
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            })
            .map_err(|error| error.to_string())?;
        let result = work();
        drop(done);
        // The guard does nothing that could panic.
        let _ = guard.join();
        result
    }
}

fn talk(
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
    json: &[u8],
) -> Result<Vec<u8>, String> {
    let (Some(mut input), Some(output)) = (input, output) else {
        return Err("its pipes are not there".to_owned());
    };
    // One that reads no further has ended, or is killed; its answer tells.
    let _ = input.write_all(json);
    drop(input);
    let mut text = Vec::new();
    output
        .take(MAX_ANSWER)
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Instant;

    use super::*;

    /// A program that does this instead of checking.
    fn checker(script: &str, limit: Duration) -> (tempfile::TempDir, Checker) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("checker");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        (dir, Checker { program, limit })
    }

    fn check(script: &str) -> Result<(), String> {
        let (_dir, checker) = checker(script, Duration::from_secs(30));
        checker.check(&OwnerRules::default())
    }

    #[test]
    fn what_the_program_says_counts_and_no_answer_is_a_no() {
        let sound = "cat > /dev/null; echo '{\"rules\":\"sound\"}'";
        assert_eq!(check(sound), Ok(()));
        let broken = "cat > /dev/null; echo '{\"rules\":\"broken\",\"reason\":\"mine.cedar:1:2\"}'";
        assert_eq!(check(broken), Err("mine.cedar:1:2".to_owned()));
        for script in [
            "exit 0",
            "cat > /dev/null; exit 3",
            "kill -9 $$",
            "cat > /dev/null; echo sound",
            "cat > /dev/null; echo '{\"rules\":\"fine\"}'",
        ] {
            let error = check(script).unwrap_err();
            assert!(error.contains("not taken"), "{script}: {error}");
        }
        let missing = Checker::beside(Path::new("/nowhere"));
        assert!(missing.check(&OwnerRules::default()).is_err());
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_its_rules_are_not_taken() {
        for script in ["exec sleep 60", "cat > /dev/null; exec sleep 60"] {
            let began = Instant::now();
            let (_dir, checker) = checker(script, Duration::from_millis(300));
            let error = checker.check(&OwnerRules::default()).unwrap_err();
            assert!(error.contains("signal: 9"), "{error}");
            assert!(began.elapsed() < Duration::from_secs(20));
        }
    }
}
