//! The link between the gateway and the program that runs tools in boxes.

use serde::{Deserialize, Serialize};

use crate::call::Action;
use crate::ids::{CallRef, Digest};

/// Bounds of one run. All of them are enforced by the kernel or by the program around the box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Seconds by the clock on the wall.
    pub wall_seconds: u32,
    /// Seconds of CPU time, per process.
    pub cpu_seconds: u32,
    /// Bytes kept of each of the two outputs; the rest is read and thrown away.
    pub output_bytes: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes of `/tmp`.
    pub tmp_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_seconds: 300,
            cpu_seconds: 300,
            output_bytes: 64 * 1024,
            memory_bytes: 512 * 1024 * 1024,
            pids: 256,
            tmp_bytes: 64 * 1024 * 1024,
        }
    }
}

/// From the gateway to the runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum RunRequest {
    /// Run this in a fresh box over the configured workspace. Many may run at once.
    Run {
        /// The call it belongs to.
        call: CallRef,
        /// What runs.
        action: Action,
        /// Its bounds.
        limits: Limits,
    },
    /// Kill everything in the box of this call; its outcome still comes.
    Kill {
        /// Which.
        call: CallRef,
    },
}

/// From the runner to the gateway: one for each [`RunRequest::Run`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum RunReply {
    /// It ran and is over; nothing of it is alive.
    Finished {
        /// Which call.
        call: CallRef,
        /// What came of it.
        outcome: RunOutcome,
    },
    /// There is no box to run it in, so it did not run.
    Refused {
        /// Which call.
        call: CallRef,
        /// What is missing.
        reason: String,
        /// What to do about it.
        fix: String,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case", deny_unknown_fields)]
pub enum RunEnd {
    /// The program ended by itself.
    Exited {
        /// Its exit code, 0 to 255.
        code: i32,
    },
    /// A signal ended the program.
    Signalled {
        /// The signal's number, signal(7).
        signal: i32,
    },
    /// The time was up; everything in the box was killed.
    TimedOut,
    /// Somebody stopped it; everything in the box was killed.
    Killed,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunOutcome {
    /// How it ended.
    pub end: RunEnd,
    /// Standard output; bytes that are not UTF-8 read as U+FFFD.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// Whether output was thrown away.
    pub truncated: bool,
    /// From the start of the box to its end.
    pub duration_ms: u64,
    /// What was really applied.
    pub receipt: Receipt,
}

/// What was really applied to the box, as the kernel tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// `native`.
    pub backend: String,
    /// The box' own namespaces, `user`, `mnt`, `pid`, `net`, `ipc`, `uts`, `cgroup`.
    pub namespaces: Vec<String>,
    /// The Landlock ABI in force.
    pub landlock_abi: u32,
    /// SHA-256 of the seccomp program, none if there is none.
    pub seccomp: Option<Digest>,
    /// The five capability sets, as in `/proc/PID/status`; all zero.
    pub capabilities: String,
    /// Whether `no_new_privs` was set.
    pub no_new_privs: bool,
    /// The user id inside the box; never 0.
    pub uid: u32,
    /// `none`.
    pub network: String,
    /// `cgroup v2`, `cgroup v1` or `best effort`.
    pub memory: String,
    /// The limits asked for.
    pub limits: Limits,
}
