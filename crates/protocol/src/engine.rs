//! The links of the program that has a container engine run a box.
//!
//! `bulkhead-engine` is started for one box and holds the engine's socket, which is as much as being
//! root, so nothing else has it. The first link is its standard input, from the program that runs
//! tools in boxes. The second is the standard input and output of the first process of the container
//! (`bulkhead-sandbox inner`), as the engine carries them.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::call::Action;
use crate::control::MemoryPolicy;
use crate::ids::{Digest, Nonce};
use crate::runner::{Backend, Limits, RunOutcome};
use crate::workspace::{LayerFolders, LayerKind};

/// To `bulkhead-engine`: Connect, then Run, then perhaps Kill. When the link closes, the container is
/// killed and removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum EngineRequest {
    /// Reach the engine, look whether it can do what is needed, and remove what an earlier run left.
    Connect {
        /// Which, and with what.
        config: EngineConfig,
    },
    /// Run this in a container.
    Run {
        /// What runs.
        action: Action,
        /// Its bounds.
        limits: Limits,
        /// The workspace on the host.
        workspace: PathBuf,
        /// What the box changes instead of it; of the kind that the engine told.
        layer: LayerFolders,
    },
    /// Kill everything in the box; its outcome still comes.
    Kill,
}

/// Which engine, and what of Bulkhead goes into its containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Any but native.
    pub backend: Backend,
    /// The engine's socket; none for the usual places.
    pub socket: Option<PathBuf>,
    /// Which installation of Bulkhead this is; what it left is told by that.
    pub home: Digest,
    /// The program `bulkhead-sandbox` on the host.
    pub sandbox_program: PathBuf,
    /// The program of the built-in tools on the host.
    pub tool_program: PathBuf,
    /// A folder of this installation. Podman reads the list of system calls from a file there.
    pub files: PathBuf,
    /// What to do where nothing holds the memory of a box as a whole.
    pub memory: MemoryPolicy,
}

/// From `bulkhead-engine`: one for Connect and one for Run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum EngineReply {
    /// To Connect: the engine is there and has what is needed.
    Connected {
        /// The layers that its boxes can have over a workspace.
        layer: LayerKind,
    },
    /// To Run: it ran and is over; the container is gone.
    Finished {
        /// What came of it. Its changes are empty, since the layer tells them.
        outcome: RunOutcome,
    },
    /// Not done; nothing ran.
    Refused {
        /// What is missing.
        reason: String,
        /// What to do about it.
        fix: String,
    },
}

/// To the first process of a container: Run once, the others until it is over. When nothing comes for
/// [`SILENCE`], or the link closes, it ends, and everything in the container with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum InnerRequest {
    /// Run this.
    Run {
        /// What every later frame of both ways carries. gVisor lets a command open the descriptors that
        /// these frames go through, and it cannot know this.
        nonce: Nonce,
        /// What runs.
        action: Action,
        /// Its bounds.
        limits: Limits,
        /// What makes the box.
        walls: Walls,
        /// Where the workspace is in the container.
        workspace: PathBuf,
        /// What the box changes instead of it, in the container.
        layer: LayerFolders,
    },
    /// Somebody is still there; every [`HEARTBEAT`].
    Alive {
        /// That of the run.
        nonce: Nonce,
    },
    /// Kill everything in the box; its outcome still comes.
    Kill {
        /// That of the run.
        nonce: Nonce,
    },
}

/// How often the first process of a container hears that it is still wanted.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// After so much silence it is wanted no more. An engine that ends does not always close the
/// standard input of its containers.
pub const SILENCE: Duration = Duration::from_secs(20);

/// What makes the box inside of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Walls {
    /// Bulkhead's own namespaces and mounts, within the container's.
    Own,
    /// The container's mounts and a kernel of its own (gVisor), which offers no others. What else a
    /// box has, this one has too.
    Container {
        /// The user in the container to whom the workspace belongs. In the box it is another.
        uid: u32,
        /// Their group.
        gid: u32,
    },
}

/// From the first process of a container: Here, then one of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum InnerReply {
    /// What it reads about itself and the container. It waits to be told what to run.
    Here {
        /// All of it.
        around: Around,
    },
    /// It ran and is over.
    Finished {
        /// That of the run.
        nonce: Nonce,
        /// What came of it.
        outcome: RunOutcome,
    },
    /// There is no box to run it in, so it did not run.
    Refused {
        /// That of the run.
        nonce: Nonce,
        /// What is missing.
        reason: String,
        /// What to do about it.
        fix: String,
    },
}

/// What the first process of a container reads about itself from its kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Around {
    /// Its process id; 1 in a process-id namespace of its own.
    pub pid: u32,
    /// Its effective user id.
    pub uid: u32,
    /// Inodes of its namespaces, as far as the kernel tells.
    pub namespaces: Vec<(String, u64)>,
    /// The capability sets that `/proc/self/status` has, by their names there.
    pub capabilities: Vec<(String, String)>,
    /// Whether `no_new_privs` is set.
    pub no_new_privs: bool,
    /// `Seccomp:`; 2 is a filter.
    pub seccomp_mode: u32,
    /// Network interfaces but the loopback.
    pub interfaces: Vec<String>,
    /// Whether the root is mounted read-only.
    pub root_read_only: bool,
    /// Release and version of the kernel, uname(2).
    pub kernel: String,
    /// `cgroup v1` or `cgroup v2`, if one that can be seen limits memory.
    pub cgroup: Option<String>,
    /// Bytes of memory that this cgroup lets all processes of the container have.
    pub memory_bytes: Option<u64>,
    /// Processes that it lets the container have.
    pub pids: Option<u64>,
}
