//! The link between the gateway and the program that runs tools in boxes.

use serde::{Deserialize, Serialize};

use crate::call::Action;
use crate::ids::{CallRef, Digest};
use crate::outbound::EgressRule;

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
    /// Bytes that one run may write to the workspace.
    pub workspace_bytes: u64,
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
            workspace_bytes: 1024 * 1024 * 1024,
        }
    }
}

/// What a run may leave behind in the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaves {
    /// What it changed there.
    Changes,
    /// The same, if it did not touch what git obeys on the host: hooks, configuration. Else nothing.
    Files,
    /// Nothing: what it changed is told and thrown away.
    Nothing,
}

/// What a run may reach. It is a part of what is permitted, and so of its digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename_all = "snake_case", deny_unknown_fields)]
pub enum Network {
    /// Nothing: there is no interface but a loopback of its own.
    #[default]
    None,
    /// What these rules allow, by way of egress, which holds them.
    Rules {
        /// The rules of the programs that run; at least one.
        rules: Vec<EgressRule>,
    },
}

/// From the gateway to the runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
        /// What becomes of its changes.
        leaves: Leaves,
        /// What it may reach.
        #[serde(default)]
        network: Network,
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

/// Which kind of box. One that is not to be had is never replaced by another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// Made of namespaces by Bulkhead itself.
    #[default]
    Native,
    /// A container of the Docker engine.
    Docker,
    /// A container of Podman.
    Podman,
    /// A container of the Docker engine on gVisor's kernel.
    Gvisor,
}

impl Backend {
    /// Its name, as it is configured and told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Gvisor => "gvisor",
        }
    }
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
    /// What it changed in the workspace, and what became of that.
    #[serde(default)]
    pub changes: Changes,
}

impl RunOutcome {
    /// The same, short enough for a frame whatever it holds: what is cut off is said to be missing.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        /// As JSON six times as much, if each character has to be escaped.
        const OUTPUT: usize = 32 * 1024;
        for output in [&mut self.stdout, &mut self.stderr] {
            if output.len() > OUTPUT {
                output.truncate(output.floor_char_boundary(OUTPUT));
                self.truncated = true;
            }
        }
        self.changes.more += self.changes.list.len() as u64;
        self.changes.list.clear();
        self
    }
}

/// What was really applied to the box, as the kernel tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// [`Backend::name`].
    pub backend: String,
    /// The box' own namespaces, `user`, `mnt`, `pid`, `net`, `ipc`, `uts`, `cgroup`.
    pub namespaces: Vec<String>,
    /// The Landlock ABI in force; 0 if the box' kernel is gVisor's, which has none.
    pub landlock_abi: u32,
    /// SHA-256 of the seccomp program, none if there is none.
    pub seccomp: Option<Digest>,
    /// The five capability sets, as in `/proc/PID/status`; all zero.
    pub capabilities: String,
    /// Whether `no_new_privs` was set.
    pub no_new_privs: bool,
    /// The user id inside the box; never 0.
    pub uid: u32,
    /// `none`: no interface but a loopback of its own. `egress`: from that, one port leads to egress.
    pub network: String,
    /// The names of the rules that say what may be reached by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// `read-only`.
    #[serde(default)]
    pub root: String,
    /// How the workspace is there: `overlay` or `copy`.
    #[serde(default)]
    pub workspace: String,
    /// `cgroup v2`, `cgroup v1` or `best effort`.
    pub memory: String,
    /// The limits in force. Those of the kernel as it tells them; wall clock, output and
    /// workspace are held by the program around the box.
    pub limits: Limits,
}

/// What a run changed in the workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// What became of them.
    pub fate: Fate,
    /// In the order of the paths; at most [`Changes::MOST`].
    pub list: Vec<Change>,
    /// How many more there are.
    pub more: u64,
}

impl Changes {
    /// The most changes that are told one by one.
    pub const MOST: usize = 1000;
}

/// What became of the changes of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fate", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fate {
    /// There were none.
    #[default]
    Unchanged,
    /// They are in the workspace, as one step, and can be undone.
    Kept {
        /// The entry in the history.
        entry: EntryId,
    },
    /// They were thrown away: it was a run that leaves [`Leaves::Nothing`], or it was cut off.
    Discarded,
    /// They were thrown away, since somebody else changed the same files meanwhile.
    Conflict {
        /// Which; at most a few.
        paths: Vec<String>,
    },
    /// They were thrown away, since the owner keeps something read-only that they changed.
    ReadOnly {
        /// What; at most a few paths.
        paths: Vec<String>,
    },
    /// They were thrown away, since they could not be kept.
    Failed {
        /// Why.
        reason: String,
        /// What to do.
        fix: String,
    },
}

/// An entry in the history of a workspace, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryId(pub u64);

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One entry of the workspace that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Below the workspace; bytes that are not UTF-8 read as U+FFFD.
    pub path: String,
    /// What happened.
    pub kind: ChangeKind,
    /// How it was; none if it was not there.
    pub before: Option<FileState>,
    /// How it is; none if it is not there any more.
    pub after: Option<FileState>,
}

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// Its content, target, kind or mode is another.
    Changed,
    /// It is gone.
    Deleted,
}

/// How an entry of the workspace is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileState {
    /// What kind of entry.
    pub what: FileKind,
    /// Permission bits, `07777`.
    pub mode: u32,
    /// Bytes, of a file.
    pub size: u64,
    /// Names of the same file.
    pub links: u64,
    /// Of the content of a file, if it is small enough to be read.
    pub sha256: Option<Digest>,
    /// Of a symbolic link; bytes that are not UTF-8 read as U+FFFD.
    pub target: Option<String>,
}

/// Kinds of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
    /// A device node.
    Device,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::encode;

    #[test]
    fn what_is_too_long_for_a_frame_is_cut_and_said_to_be() {
        let outcome = RunOutcome {
            end: RunEnd::Exited { code: 0 },
            // Each character is escaped.
            stdout: "\u{1}".repeat(512 * 1024),
            stderr: "\u{1}".repeat(512 * 1024),
            truncated: false,
            duration_ms: 1,
            receipt: Receipt::default(),
            changes: Changes::default(),
        };
        assert!(encode(&outcome).is_err());
        let short = outcome.shortened();
        assert!(encode(&short).unwrap().len() < 512 * 1024);
        assert!(short.truncated);
        assert_eq!(short.end, RunEnd::Exited { code: 0 });
    }
}
