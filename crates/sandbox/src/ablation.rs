//! The layers of a box by name, so that a test build can leave one out and see what the others hold.
//!
//! Shipped programs are built without the feature `ablation`: there a layer cannot be left out, and what
//! asks for it below is a constant. With it, a program leaves out what its arguments name (`--without=LAYER`)
//! and passes that on to the boxes that it starts.

/// One of the things that hold a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "ablation"), allow(dead_code))]
pub(crate) enum Layer {
    /// Reading back what was applied, and refusing to start on anything less.
    Check,
    /// The user namespace.
    User,
    /// The mount namespace.
    Mount,
    /// The process-id namespace.
    Pid,
    /// The network namespace.
    Net,
    /// The IPC namespace.
    Ipc,
    /// The namespace of the host's name.
    Uts,
    /// The cgroup namespace.
    Cgroup,
    /// Leaving the host's root.
    Root,
    /// Mounts that cannot be written.
    ReadOnly,
    /// A `/proc` that shows processes only, and only one's own.
    Proc,
    /// Dropping capabilities.
    Capabilities,
    /// `no_new_privs`.
    NoNewPrivs,
    /// The list of system calls.
    Seccomp,
    /// The Landlock domain.
    Landlock,
    /// Limits of a process.
    Rlimits,
    /// The small number of process ids in root's boxes.
    ProcessIds,
    /// No user namespace below the box' own.
    NoMoreUsers,
    /// The look at the memory of all processes together.
    MemoryWatch,
    /// Starting the box' builder with an empty environment.
    OuterEnvironment,
    /// Starting the command with an environment from a list.
    Environment,
    /// Closing what was inherited.
    Descriptors,
    /// A session of its own.
    Session,
    /// Closing the first process to the others.
    ClosedInit,
    /// The cgroup that holds memory and processes.
    CgroupLimits,
    /// The layer over the workspace.
    Overlay,
    /// The look at what is written to the workspace.
    DiskWatch,
}

/// Whether this layer is there.
#[cfg(not(feature = "ablation"))]
#[inline]
pub(crate) const fn on(_: Layer) -> bool {
    true
}

/// What a box' builder is started with besides.
#[cfg(not(feature = "ablation"))]
#[inline]
pub(crate) const fn arguments() -> [&'static str; 0] {
    []
}

#[cfg(feature = "ablation")]
pub(crate) use switch::{arguments, on};

/// For a test build only.
#[cfg(feature = "ablation")]
pub mod switch {
    use super::Layer;

    /// All layers, under the names of their arguments.
    pub const NAMES: &[&str] = &[
        "check",
        "user",
        "mount",
        "pid",
        "net",
        "ipc",
        "uts",
        "cgroup",
        "root",
        "read-only",
        "proc",
        "capabilities",
        "no-new-privs",
        "seccomp",
        "landlock",
        "rlimits",
        "process-ids",
        "no-more-users",
        "memory-watch",
        "outer-environment",
        "environment",
        "descriptors",
        "session",
        "closed-init",
        "cgroup-limits",
        "overlay",
        "disk-watch",
    ];
    const ALL: &[Layer] = &[
        Layer::Check,
        Layer::User,
        Layer::Mount,
        Layer::Pid,
        Layer::Net,
        Layer::Ipc,
        Layer::Uts,
        Layer::Cgroup,
        Layer::Root,
        Layer::ReadOnly,
        Layer::Proc,
        Layer::Capabilities,
        Layer::NoNewPrivs,
        Layer::Seccomp,
        Layer::Landlock,
        Layer::Rlimits,
        Layer::ProcessIds,
        Layer::NoMoreUsers,
        Layer::MemoryWatch,
        Layer::OuterEnvironment,
        Layer::Environment,
        Layer::Descriptors,
        Layer::Session,
        Layer::ClosedInit,
        Layer::CgroupLimits,
        Layer::Overlay,
        Layer::DiskWatch,
    ];

    /// How an argument begins that leaves out a layer.
    pub const WITHOUT: &str = "--without=";

    /// Whether this layer is there: no argument of this program leaves it out.
    pub(crate) fn on(layer: Layer) -> bool {
        arguments().iter().all(|argument| {
            let name = argument.trim_start_matches(WITHOUT);
            let at = NAMES.iter().position(|known| *known == name);
            at.and_then(|at| ALL.get(at)) != Some(&layer)
        })
    }

    /// The arguments of this program that leave out layers.
    pub(crate) fn arguments() -> Vec<String> {
        std::env::args()
            .filter(|argument| argument.starts_with(WITHOUT))
            .collect()
    }
}
