//! `list_files`: what a folder holds.

use protocol::call::{ToolCall, WorkspacePath};
use serde::Deserialize;
use serde_json::json;

use super::Tool;
use crate::inside::{Entry, Kind, Root, ToolError, shown};
use crate::resolve::{Arguments, BadCall};

/// The most entries that are listed.
const MAX_ENTRIES: usize = 1000;

pub(crate) static TOOL: Tool = Tool {
    name: "list_files",
    description: "List a folder in the workspace: folders end in /, files have their size in bytes.",
    parameters: || {
        json!({
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "The folder, relative to the workspace. Default: the workspace itself."},
                "depth": {"type": "integer", "minimum": 1, "maximum": 5, "description": "How many levels; 1 is the folder alone. Default 1."},
            },
            "required": [],
            "additionalProperties": false,
        })
    },
    example: r#"{"path": "src", "depth": 2}"#,
    parse,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    #[serde(default)]
    path: String,
    #[serde(default = "one")]
    depth: u32,
}

fn one() -> u32 {
    1
}

fn parse(arguments: &Arguments<'_>) -> Result<ToolCall, BadCall> {
    let Args { path, depth } = arguments.read()?;
    Ok(ToolCall::ListFiles {
        path: arguments.path(&path)?,
        depth: arguments.within("depth", depth, 1..=5)?,
    })
}

/// A line for each entry, and a last line in brackets if there are more.
pub(crate) fn run(root: &Root, path: &WorkspacePath, depth: u32) -> Result<String, ToolError> {
    let mut lines = Vec::new();
    let end = root.walk(path, depth, &mut |entry| {
        if lines.len() == MAX_ENTRIES {
            return std::ops::ControlFlow::Break(());
        }
        lines.push(line(entry));
        std::ops::ControlFlow::Continue(())
    })?;
    let mut text = match lines.is_empty() {
        true => "[the folder is empty]\n".to_owned(),
        false => lines.concat(),
    };
    if end.is_cut() {
        text.push_str("[there is more that is not shown; list a folder further in]\n");
    }
    Ok(text)
}

fn line(entry: &Entry<'_>) -> String {
    let name = shown(entry.path);
    match &entry.kind {
        Kind::Folder => format!("{name}/\n"),
        Kind::File(bytes) => format!("{name}  {bytes}\n"),
        Kind::Link(to) => format!("{name} -> {}\n", shown(to)),
        Kind::Other(what) => format!("{name}  ({what})\n"),
    }
}
