//! What crosses between the service and a box' keeper and init.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use protocol::control::ControlEnd;
use protocol::frame::LinkError;
use protocol::ids::Digest;
use protocol::runner::Limits;
use protocol::workspace::LayerFolders;
use serde::{Deserialize, Serialize};

/// A box to build. With it comes the descriptor that is the command's standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BoxSpec {
    /// The service's process id; the box dies with it.
    pub(crate) parent: u32,
    /// The program and its arguments; never empty.
    pub(crate) argv: Vec<String>,
    /// Which list of system calls.
    pub(crate) kind: Kind,
    /// Its bounds; those on time and output are the service's.
    pub(crate) limits: Limits,
    /// The workspace on the host.
    pub(crate) workspace: PathBuf,
    /// What the box changes instead of it.
    pub(crate) layer: LayerFolders,
    /// The program of the built-in tools on the host.
    pub(crate) tool_program: PathBuf,
    /// Whether the box' user is 0 on the host.
    pub(crate) host_root: bool,
    /// The inodes of the service's own namespaces.
    pub(crate) outside: Vec<(String, u64)>,
}

/// What runs in the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Any program, which may start others.
    Exec,
    /// The built-in tools, which start none.
    Tool,
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
    /// It is built, everything is given up, and the command is about to start.
    Ready(Facts),
    /// The command ended.
    Ended(End),
    /// All together used more memory than they may, and are being killed.
    OverMemory,
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

/// The keeper's and init's end of the link to the service.
pub(crate) struct BoxEnd {
    link: ControlEnd<Report, BoxSpec>,
    socket: UnixStream,
}

/// The service's end.
pub(crate) type ServiceEnd = ControlEnd<BoxSpec, Report>;

impl BoxEnd {
    /// The link that is the standard input.
    pub(crate) fn from_stdin() -> Result<Self, LinkError> {
        let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self {
            link: ControlEnd::new(socket.try_clone()?),
            socket,
        })
    }

    /// The first frame, and the descriptor with it.
    pub(crate) fn receive(&self) -> Result<(BoxSpec, Option<OwnedFd>), LinkError> {
        self.link.receive()
    }

    /// Tells the service.
    pub(crate) fn send(&self, report: &Report) -> Result<(), LinkError> {
        self.link.send(report)
    }
}

impl AsFd for BoxEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
