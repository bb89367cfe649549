//! Tool calls, typed: what is judged, recorded, approved and run is this and nothing else.

use serde::{Deserialize, Serialize};

use crate::egress::HttpOrder;
use crate::ids::SecretName;
use crate::outbound::Method;
use crate::script::Script;

/// Where the workspace is inside the box.
pub const WORKSPACE: &str = "/workspace";

/// The longest path in bytes (`PATH_MAX` less its NUL).
const MAX_PATH: usize = 4095;

/// A path below the workspace: relative, without `.`, `..`, empty parts or control characters.
/// The workspace itself is the empty path, shown as `.`.
///
/// That no symbolic link leads out is not a property of the text; the tool opens it with
/// `openat2(RESOLVE_BENEATH)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkspacePath(String);

/// Why a text does not name something inside the workspace.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadPath {
    /// `..` leads above the workspace, or the path is absolute and elsewhere.
    #[error("{0:?} is outside the workspace")]
    Outside(String),
    /// A NUL, newline or another control character.
    #[error("a path must not hold control characters")]
    Control,
    /// Over `PATH_MAX`.
    #[error("a path has at most {MAX_PATH} bytes")]
    TooLong,
}

impl WorkspacePath {
    /// Reads a relative path, or an absolute one below `/workspace`.
    pub fn parse(text: &str) -> Result<Self, BadPath> {
        Self::parse_below(text, WORKSPACE)
    }

    /// Reads a relative path, or an absolute one below `/workspace` or below `root`.
    pub fn parse_below(text: &str, root: &str) -> Result<Self, BadPath> {
        if text.len() > MAX_PATH {
            return Err(BadPath::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(BadPath::Control);
        }
        let outside = || BadPath::Outside(text.to_owned());
        let below = |root: &str| -> Option<&str> {
            let rest = text.strip_prefix(root.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then_some(rest)
        };
        let relative = match text.starts_with('/') {
            false => text,
            true => below(WORKSPACE)
                .or_else(|| below(root))
                .ok_or_else(outside)?,
        };
        let mut parts = Vec::new();
        for part in relative.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop().ok_or_else(outside)?),
                name => parts.push(name),
            }
        }
        Ok(Self(parts.join("/")))
    }

    /// The path relative to the workspace; `.` for the workspace itself.
    pub fn as_str(&self) -> &str {
        if self.0.is_empty() { "." } else { &self.0 }
    }
}

impl TryFrom<String> for WorkspacePath {
    type Error = BadPath;
    fn try_from(text: String) -> Result<Self, BadPath> {
        Self::parse(&text)
    }
}

impl From<WorkspacePath> for String {
    fn from(path: WorkspacePath) -> String {
        path.as_str().to_owned()
    }
}

impl std::fmt::Display for WorkspacePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call of one of the tools that exist, with arguments that have their types.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "tool",
    content = "args",
    rename_all = "snake_case",
    deny_unknown_fields
)]
pub enum ToolCall {
    /// Read a text file.
    ReadFile {
        /// Which.
        path: WorkspacePath,
        /// The first line wanted, counted from 1.
        first_line: u32,
        /// At most so many lines.
        lines: u32,
    },
    /// Create a file or replace all of it.
    WriteFile {
        /// Which; missing folders are made.
        path: WorkspacePath,
        /// All of the new content.
        content: String,
    },
    /// Replace one piece of text, which must stand in the file exactly once.
    EditFile {
        /// Which.
        path: WorkspacePath,
        /// The text to find.
        old: String,
        /// What stands there afterwards.
        new: String,
    },
    /// List a folder.
    ListFiles {
        /// Which.
        path: WorkspacePath,
        /// How many levels; 1 is the folder alone.
        depth: u32,
    },
    /// Find lines that hold a text.
    SearchFiles {
        /// The text, taken literally.
        text: String,
        /// The file or folder to look in.
        path: WorkspacePath,
    },
    /// Ask a host on the network, by egress.
    HttpRequest {
        /// How.
        method: Method,
        /// Where, as egress asks for it.
        url: String,
        /// Lower-case names and their values; none that egress writes itself.
        headers: Vec<(String, String)>,
        /// What is sent.
        body: Option<String>,
        /// The secret that egress attaches, by its name.
        credential: Option<SecretName>,
    },
    /// Read a page of the web, by egress.
    WebFetch {
        /// Where, as egress asks for it.
        url: String,
    },
    /// Run a command in the box, with the workspace as its working directory.
    Exec {
        /// As the model wrote it.
        command: String,
    },
}

impl ToolCall {
    /// What the model calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ReadFile { .. } => "read_file",
            Self::WriteFile { .. } => "write_file",
            Self::EditFile { .. } => "edit_file",
            Self::ListFiles { .. } => "list_files",
            Self::SearchFiles { .. } => "search_files",
            Self::HttpRequest { .. } => "http_request",
            Self::WebFetch { .. } => "web_fetch",
            Self::Exec { .. } => "exec",
        }
    }
}

/// What policy says of a call, without conditions: the stable words of `policy explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Tier 1: runs.
    Allow,
    /// Tier 2: asked on first use, remembered.
    AskOnce,
    /// Tier 3: asked every time.
    AskAlways,
    /// Refused without asking.
    Deny,
}

/// What exactly runs in the box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "run", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// A program by its arguments, without a shell.
    Argv {
        /// The program's name or path, then its arguments.
        argv: Vec<String>,
    },
    /// Programs that were understood, with their pipes and redirections, without a shell.
    Script {
        /// What it was understood as.
        script: Script,
    },
    /// A script that was not understood, for `/bin/sh`.
    Shell {
        /// As the model wrote it.
        script: String,
    },
    /// A built-in tool that works on files.
    Tool {
        /// Never `exec`, and none that asks hosts.
        call: ToolCall,
    },
    /// A request to a host, which egress makes.
    Fetch {
        /// All of it.
        order: HttpOrder,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_paths_are_normalised_and_never_lead_out() {
        let ok = |text: &str| WorkspacePath::parse(text).unwrap().as_str().to_owned();
        assert_eq!(ok("a/./b//c/../d"), "a/b/d");
        assert_eq!(ok("/workspace/x"), "x");
        assert_eq!(ok("/workspace"), ".");
        assert_eq!(ok(""), ".");
        for bad in [
            "..",
            "a/../../b",
            "/etc/passwd",
            "/workspacex",
            "/workspace/../etc",
            "a\nb",
            "a\0",
        ] {
            assert!(WorkspacePath::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            WorkspacePath::parse_below("/home/u/w/a", "/home/u/w")
                .unwrap()
                .as_str(),
            "a"
        );
    }
}
