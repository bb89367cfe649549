//! What crosses between the service, the builder and a box.

use std::path::PathBuf;

use protocol::control::ControlEnd;
use protocol::ids::Digest;
use protocol::runner::Limits;
use protocol::workspace::LayerFolders;
use serde::{Deserialize, Serialize};

/// To the builder. With it comes the socket that is the box' own link.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ToBuilder {
    /// Make the first process of a box.
    Make,
}

/// From the builder.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum FromBuilder {
    /// It waits on its link. With it comes a handle on it (pidfd).
    Made {
        /// Its id in the builder's namespace.
        pid: u32,
    },
    /// There is none.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// To a box.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ToBox {
    /// First: what to build. With it come the command's standard input, output and error, and after them the
    /// files of cgroups that it enters through.
    Build {
        /// All about it but what it will run.
        spec: Box<BoxSpec>,
    },
    /// Then, to a box that told that it listens: there is somebody to take its connections.
    Served {
        /// The certificate of who inspects them, PEM; empty if nobody does.
        authority: String,
    },
    /// Then, once: run this.
    Go {
        /// The program and its arguments; never empty.
        argv: Vec<String>,
    },
}

/// A box to build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BoxSpec {
    /// Which list of system calls.
    pub(crate) kind: Kind,
    /// Its bounds; those on time, output and the workspace are the service's.
    pub(crate) limits: Limits,
    /// The workspace on the host.
    pub(crate) workspace: PathBuf,
    /// What the box changes instead of it.
    pub(crate) layer: LayerFolders,
    /// The program of the built-in tools on the host.
    pub(crate) tool_program: PathBuf,
    /// What holds the number of its processes.
    pub(crate) count: Count,
    /// The inodes of the service's own namespaces.
    pub(crate) outside: Vec<(String, u64)>,
}

/// What holds the number of a box' processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Count {
    /// The cgroup that it is in, and RLIMIT_NPROC where that counts.
    Cgroup,
    /// RLIMIT_NPROC: its user is not 0 on the host.
    ProcessLimit,
    /// The process-id namespace, which has so few ids: its user is 0 on the host.
    Ids,
}

/// What runs in the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Any program, which may start others.
    Exec,
    /// The built-in tools, which start none.
    Tool,
    /// Any program, with a way to egress: a port of the box' own loopback, and nothing else.
    Online,
}

/// From a box.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(
    tag = "type",
    content = "is",
    rename_all = "snake_case",
    deny_unknown_fields
)]
pub(crate) enum Report {
    /// It could not be built; nothing ran.
    Failed(Failure),
    /// With it comes the socket on which its own loopback is listened on. It waits for who takes its connections.
    Listening,
    /// It is built, everything is given up, and the command waits to begin.
    Ready(Box<Facts>),
    /// The command ended.
    Ended(End),
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// By itself.
    Exited(i32),
    /// By a signal.
    Signalled(i32),
}

/// What the command's process reads about itself from the kernel before it becomes the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Facts {
    /// Inodes of its namespaces.
    pub(crate) namespaces: Vec<(String, u64)>,
    /// The five capability sets, in the order inheritable, permitted, effective, bounding, ambient.
    pub(crate) capabilities: [String; 5],
    /// `NoNewPrivs: 1`
    pub(crate) no_new_privs: bool,
    /// `Seccomp:`; 2 is a filter.
    pub(crate) seccomp_mode: u32,
    /// The program that is the filter.
    pub(crate) seccomp: Digest,
    /// The Landlock ABI that was entered with.
    pub(crate) landlock_abi: u32,
    /// All four user ids.
    pub(crate) uids: [u32; 4],
    /// Network interfaces but the loopback.
    pub(crate) interfaces: Vec<String>,
    /// Whether the root is mounted read-only.
    pub(crate) root_read_only: bool,
    /// Whether the workspace is an overlay; otherwise it is a copy.
    pub(crate) overlay: bool,
    /// Bytes that `/tmp` can hold.
    pub(crate) tmp_bytes: u64,
    /// Of each process: memory, `RLIMIT_DATA`.
    pub(crate) data_bytes: u64,
    /// Of each process: seconds, `RLIMIT_CPU`.
    pub(crate) cpu_seconds: u64,
    /// Of the user: processes, `RLIMIT_NPROC`; or of the namespace, if the user is 0 on the host.
    pub(crate) pids: u64,
    /// Bytes of a core, `RLIMIT_CORE`.
    pub(crate) core_bytes: u64,
}

/// Why a box could not be built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failure {
    /// What was being done.
    pub(crate) doing: String,
    /// What came of it.
    pub(crate) error: String,
    /// errno(3), if the kernel refused.
    pub(crate) errno: Option<i32>,
}

impl Failure {
    /// The kernel refused while doing this.
    pub(crate) fn at<E: Into<std::io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |error| {
            let error = error.into();
            Self {
                doing: doing.into(),
                errno: error.raw_os_error(),
                error: error.to_string(),
            }
        }
    }

    /// Something else than the kernel's refusal.
    pub(crate) fn because(error: impl ToString) -> Self {
        Self {
            doing: "confining the box".to_owned(),
            error: error.to_string(),
            errno: None,
        }
    }
}

/// A box' end of its link to the service.
pub(crate) type BoxEnd = ControlEnd<Report, ToBox>;

/// The service's end.
pub(crate) type ServiceEnd = ControlEnd<ToBox, Report>;

/// The builder's end of its link to the service.
pub(crate) type BuilderEnd = ControlEnd<FromBuilder, ToBuilder>;

/// The service's end of that.
pub(crate) type ToBuilderEnd = ControlEnd<ToBuilder, FromBuilder>;
