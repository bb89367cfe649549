//! Why a file tool did not do what it was asked; the model reads it.

use protocol::call::WorkspacePath;
use rustix::io::Errno;

/// Why a call came to nothing. Nothing was changed then, except that missing folders of a
/// new file may have been made.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// There is nothing of that name.
    #[error("{0} does not exist; see what is there with list_files")]
    Missing(WorkspacePath),
    /// A symbolic link where none is followed, or one that leads out of the workspace.
    #[error(
        "{0} is or goes through a symbolic link that is not followed: writing follows none, reading none that leaves the workspace or is absolute"
    )]
    Link(WorkspacePath),
    /// A folder, fifo, socket or device where a file is needed.
    #[error("{0} is {1}, not a regular file")]
    NotFile(WorkspacePath, &'static str),
    /// A file where a folder is needed.
    #[error("{0} is not a folder, or a part of the path is not one")]
    NotFolder(WorkspacePath),
    /// The file has other names, perhaps outside the workspace.
    #[error(
        "{0} is not written to, because the same file has {1} names (hard links); copy it to a new file first"
    )]
    HardLinked(WorkspacePath, u64),
    /// No write permission for its owner.
    #[error("{0} is read-only")]
    ReadOnly(WorkspacePath),
    /// Somebody put another file there meanwhile.
    #[error("{0} was changed by something else meanwhile and is left as it is; read it again")]
    Changed(WorkspacePath),
    /// Over the limit of this tool.
    #[error("{0} has or would have {1} bytes; the limit of this tool is {2}")]
    TooBig(WorkspacePath, u64, u64),
    /// Holds NUL or is not UTF-8.
    #[error("{0} is not a text file")]
    Binary(WorkspacePath),
    /// One line alone is over the limit of output.
    #[error("{0} has a line there that is longer than {1} bytes")]
    LineTooLong(WorkspacePath, usize),
    /// The wanted lines are beyond the part that is looked at.
    #[error("{0}: the wanted lines are not in its first {1} bytes, and further in is not looked")]
    TooFarIn(WorkspacePath, u64),
    /// The file is shorter.
    #[error("{0} has no line {1}; it ends after line {2}")]
    NoSuchLine(WorkspacePath, u32, u32),
    /// The old text is not in the file.
    #[error("the old text does not stand in {0}; read the file and take the text exactly as it is")]
    NoMatch(WorkspacePath),
    /// The old text is there more than once.
    #[error("the old text stands in {0} more than once; take more of its surroundings along")]
    ManyMatches(WorkspacePath),
    /// The workspace itself could not be opened.
    #[error("the workspace cannot be opened: {0}")]
    NoWorkspace(Errno),
    /// `exec` came here.
    #[error("exec is not a file tool")]
    NotBuiltIn,
    /// What came in is not a call.
    #[error("standard input holds no tool call: {0}")]
    BadCall(String),
    /// What came in is no script.
    #[error("standard input holds no script of programs: {0}")]
    BadScript(String),
    /// A program, a pipe or a stream that the kernel did not give.
    #[error("a program cannot be started: {0}")]
    Start(std::io::Error),
    /// The kernel gave no random bytes for the name of a temporary file.
    #[error(transparent)]
    NoRandom(#[from] protocol::ids::NoRandom),
    /// Anything else that the kernel said.
    #[error("{0}: {1}")]
    Io(WorkspacePath, Errno),
}

impl ToolError {
    /// From what the kernel said to opening or changing `path`.
    pub(crate) fn of(path: &WorkspacePath, errno: Errno) -> Self {
        let path = path.clone();
        match errno {
            Errno::NOENT => Self::Missing(path),
            Errno::LOOP | Errno::XDEV => Self::Link(path),
            Errno::NOTDIR => Self::NotFolder(path),
            Errno::ISDIR => Self::NotFile(path, "a folder"),
            Errno::NXIO => Self::NotFile(path, "a socket, fifo or device"),
            // rename and link refuse to put a file in the place of one that appeared.
            Errno::EXIST => Self::Changed(path),
            other => Self::Io(path, other),
        }
    }

    /// From an error of the standard library.
    pub(crate) fn io(path: &WorkspacePath, error: &std::io::Error) -> Self {
        Self::of(path, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }
}
