//! `edit_file`: one piece of text for another.

use protocol::call::{ToolCall, WorkspacePath};
use serde::Deserialize;
use serde_json::json;

use super::Tool;
use crate::inside::{Root, ToolError};
use crate::resolve::{Arguments, BadCall};

pub(crate) static TOOL: Tool = Tool {
    name: "edit_file",
    description: "Replace a piece of text in a file in the workspace. The old text must stand in the \
        file exactly once; take enough of its surroundings along.",
    parameters: || {
        json!({
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "The file, relative to the workspace."},
                "old": {"type": "string", "minLength": 1, "description": "The text to find, exactly as it stands in the file."},
                "new": {"type": "string", "description": "What stands there afterwards."},
            },
            "required": ["path", "old", "new"],
            "additionalProperties": false,
        })
    },
    example: r#"{"path": "notes/today.md", "old": "Call the dentist.", "new": "Called the dentist."}"#,
    parse,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    path: String,
    old: String,
    new: String,
}

fn parse(arguments: &Arguments<'_>) -> Result<ToolCall, BadCall> {
    let Args { path, old, new } = arguments.read()?;
    if old.is_empty() {
        return Err(arguments.bad("old", "is empty; to write a whole file use write_file"));
    }
    if old == new {
        return Err(arguments.bad("new", "is the same as old, so nothing would change"));
    }
    Ok(ToolCall::EditFile {
        path: arguments.file(&path)?,
        old,
        new,
    })
}

/// Says what was done.
pub(crate) fn run(
    root: &Root,
    path: &WorkspacePath,
    old: &str,
    new: &str,
) -> Result<String, ToolError> {
    let target = root.target(path)?;
    let text = target.read()?;
    let at = text
        .find(old)
        .ok_or_else(|| ToolError::NoMatch(path.clone()))?;
    // Matches that overlap are two places, too.
    let step = old.chars().next().map_or(1, char::len_utf8);
    if text[at + step..].contains(old) {
        return Err(ToolError::ManyMatches(path.clone()));
    }
    let line = text[..at].matches('\n').count() + 1;
    let after = [&text[..at], new, &text[at + old.len()..]].concat();
    target.replace(after.as_bytes())?;
    Ok(format!("edited {path} at line {line}\n"))
}
