//! From what the model wrote to a typed call, or to an error that the model can learn from.

use protocol::call::{BadPath, ToolCall, WorkspacePath};
use serde::de::DeserializeOwned;

use crate::tool::{self, Tool};

/// The longest arguments of a call, in bytes of JSON.
pub const MAX_ARGS: usize = 256 * 1024;

/// The longest command of `exec`, in bytes; the kernel takes no argument over 128 KiB.
pub const MAX_COMMAND: usize = 64 * 1024;

/// The longest piece of the model's own text that an error repeats, in characters.
const MAX_DETAIL: usize = 300;

/// Why a call is none. The text is for the model: what is wrong, and what would be right.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadCall {
    /// There is no such tool.
    #[error("there is no tool {name:?}; the tools are {known}")]
    UnknownTool {
        /// What was asked for, shortened.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// More than [`MAX_ARGS`].
    #[error(
        "the arguments have {0} bytes; at most {MAX_ARGS} are taken, so write large files in pieces"
    )]
    TooLong(usize),
    /// Not an object, an unknown or missing field, a wrong type.
    #[error("the arguments of {tool} are wrong: {detail}; they are a JSON object like {example}")]
    Arguments {
        /// The tool.
        tool: &'static str,
        /// What is wrong.
        detail: String,
        /// What it may look like.
        example: &'static str,
    },
    /// Right in type, but no value that the tool takes.
    #[error("{field} of {tool} {rule}")]
    Value {
        /// The tool.
        tool: &'static str,
        /// The argument.
        field: &'static str,
        /// What it has to be.
        rule: String,
    },
    /// The path leads nowhere that the tool may go.
    #[error(
        "path of {tool}: {why}; use a path relative to the workspace, such as \"notes/today.md\""
    )]
    Path {
        /// The tool.
        tool: &'static str,
        /// What is wrong with it.
        why: BadPath,
    },
}

/// Reads a call. Paths are relative, or absolute below `/workspace` or `workspace_root`.
pub fn resolve(name: &str, args: &str, workspace_root: &str) -> Result<ToolCall, BadCall> {
    let tool = tool::find(name).ok_or_else(|| BadCall::UnknownTool {
        name: shortened(name),
        known: tool::TOOLS.map(|tool| tool.name).join(", "),
    })?;
    if args.len() > MAX_ARGS {
        return Err(BadCall::TooLong(args.len()));
    }
    (tool.parse)(&Arguments {
        tool,
        json: args,
        root: workspace_root,
    })
}

/// What a tool reads its arguments from.
pub(crate) struct Arguments<'a> {
    tool: &'static Tool,
    json: &'a str,
    root: &'a str,
}

impl Arguments<'_> {
    /// The arguments as their struct, which refuses unknown and repeated fields.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, BadCall> {
        // serde reads a struct from an array, too; the schema says object.
        if !self.json.trim_start().starts_with('{') {
            return Err(self.wrong("not a JSON object"));
        }
        serde_json::from_str(self.json).map_err(|error| self.wrong(&error.to_string()))
    }

    /// A path inside the workspace.
    pub(crate) fn path(&self, text: &str) -> Result<WorkspacePath, BadCall> {
        let tool = self.tool.name;
        WorkspacePath::parse_below(text, self.root).map_err(|why| BadCall::Path {
            tool,
            why: match why {
                BadPath::Outside(path) => BadPath::Outside(shortened(&path)),
                BadPath::Control => BadPath::Control,
                BadPath::TooLong => BadPath::TooLong,
            },
        })
    }

    /// A path inside the workspace that can be a file, so is not the workspace itself.
    pub(crate) fn file(&self, text: &str) -> Result<WorkspacePath, BadCall> {
        let path = self.path(text)?;
        match path.as_str() {
            "." => Err(self.bad("path", "names the workspace itself; name a file in it")),
            _ => Ok(path),
        }
    }

    /// An address of the web, in the form in which it is judged and asked for.
    pub(crate) fn url(&self, text: &str) -> Result<String, BadCall> {
        match outbound::Url::parse(text) {
            Ok(url) => Ok(url.to_string()),
            Err(why) => Err(self.bad("url", format!("cannot be used: {why}"))),
        }
    }

    /// A number between two bounds, both included.
    pub(crate) fn within(
        &self,
        field: &'static str,
        value: u32,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<u32, BadCall> {
        if range.contains(&value) {
            return Ok(value);
        }
        Err(self.bad(
            field,
            format!(
                "is {value}; it goes from {} to {}",
                range.start(),
                range.end()
            ),
        ))
    }

    /// The error that an argument's value is not one of those the tool takes.
    pub(crate) fn bad(&self, field: &'static str, rule: impl Into<String>) -> BadCall {
        BadCall::Value {
            tool: self.tool.name,
            field,
            rule: rule.into(),
        }
    }

    fn wrong(&self, detail: &str) -> BadCall {
        BadCall::Arguments {
            tool: self.tool.name,
            detail: shortened(detail),
            example: self.tool.example,
        }
    }
}

/// The model's own words back to it: not longer than an error is read, nothing that moves a cursor.
fn shortened(text: &str) -> String {
    let mut kept: String = text
        .chars()
        .take(MAX_DETAIL)
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect();
    if text.chars().nth(MAX_DETAIL).is_some() {
        kept.push('…');
    }
    kept
}
