//! What there is to reach, as the side outside has set it up.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What every planted secret holds.
pub(crate) const CANARY: &str = "bulkhead-canary-7d1f";
/// The variable in the environment of what starts the box.
pub(crate) const SECRET_VARIABLE: &str = "BULKHEAD_PROBE_SECRET";

/// Where the things are that the attacks go for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scene {
    /// Which side of the box this is.
    pub(crate) side: Side,
    /// Marks every process that is started here.
    pub(crate) mark: String,
    /// A process of the same user that sleeps, with a canary in its memory and environment.
    pub(crate) victim: i32,
    /// Where in the victim's memory the canary is.
    pub(crate) canary_at: usize,
    /// The first process: of the box, or, outside, the victim.
    pub(crate) init: i32,
    /// A server on the host's loopback that greets.
    pub(crate) tcp: SocketAddr,
    /// A socket on the host's loopback that echoes.
    pub(crate) udp: SocketAddr,
    /// A server that answers name queries, on the host's loopback.
    pub(crate) dns: SocketAddr,
    /// The name of an abstract socket of the host.
    pub(crate) abstract_socket: String,
    /// A socket of the host outside of the workspace.
    pub(crate) path_socket: PathBuf,
    /// A file of the host outside of the workspace, which holds a canary.
    pub(crate) secret_file: PathBuf,
    /// The program that builds boxes.
    pub(crate) helper: PathBuf,
    /// The configuration.
    pub(crate) config: PathBuf,
    /// This program, where it lies on this side.
    pub(crate) own_program: PathBuf,
    /// The folder for short-lived files on this side.
    pub(crate) tmp: PathBuf,
    /// The key of a shared memory segment of the host.
    pub(crate) shared_memory: i32,
    /// The host's namespaces, as links in `/proc/self/ns`.
    pub(crate) namespaces: Vec<(String, u64)>,
    /// What the limits of a box for bombs allow.
    pub(crate) bounds: Bounds,
}

/// On which side of the box a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// In the box.
    Inside,
    /// On the host.
    Outside,
}

/// How much the bombs try for. Each is a little more than a box for bombs allows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bounds {
    /// Processes at once.
    pub(crate) processes: usize,
    /// Bytes of memory.
    pub(crate) memory: usize,
    /// Bytes in `/tmp`.
    pub(crate) tmp: u64,
    /// Bytes in the workspace.
    pub(crate) workspace: u64,
}
