//! `write_file`: a new file, or all of an old one.

use protocol::call::{ToolCall, WorkspacePath};
use serde::Deserialize;
use serde_json::json;

use super::Tool;
use crate::inside::{Root, ToolError};
use crate::resolve::{Arguments, BadCall};

pub(crate) static TOOL: Tool = Tool {
    name: "write_file",
    description: "Create a text file in the workspace, or replace all of it. Missing folders are made.",
    parameters: || {
        json!({
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "The file, relative to the workspace."},
                "content": {"type": "string", "description": "All of the new content."},
            },
            "required": ["path", "content"],
            "additionalProperties": false,
        })
    },
    example: r#"{"path": "notes/today.md", "content": "Call the dentist.\n"}"#,
    parse,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    path: String,
    content: String,
}

fn parse(arguments: &Arguments<'_>) -> Result<ToolCall, BadCall> {
    let Args { path, content } = arguments.read()?;
    Ok(ToolCall::WriteFile {
        path: arguments.file(&path)?,
        content,
    })
}

/// Says what was written.
pub(crate) fn run(root: &Root, path: &WorkspacePath, content: &str) -> Result<String, ToolError> {
    let target = root.target_or_new(path)?;
    let word = if target.exists() {
        "replaced"
    } else {
        "created"
    };
    target.replace(content.as_bytes())?;
    Ok(format!("{word} {path}, {} bytes\n", content.len()))
}
