//! `exec`: a command in the box. It is judged by policy and run by the sandbox; nothing of
//! it happens here.

use protocol::call::ToolCall;
use serde::Deserialize;
use serde_json::json;

use super::Tool;
use crate::resolve::{Arguments, BadCall, MAX_COMMAND};

pub(crate) static TOOL: Tool = Tool {
    name: "exec",
    description: "Run a command in a box without network. The workspace is the working directory. \
        Programs that only read, pipelines of them and output into a file run at once; other \
        programs are asked about once; variables, substitutions, loops and other shell syntax have \
        to be approved by a person every time.",
    parameters: || {
        json!({
            "type": "object",
            "properties": {
                "command": {"type": "string", "description": "The command line, for example: grep -n TODO src/main.rs"},
            },
            "required": ["command"],
            "additionalProperties": false,
        })
    },
    example: r#"{"command": "grep -n TODO src/main.rs"}"#,
    parse,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    command: String,
}

fn parse(arguments: &Arguments<'_>) -> Result<ToolCall, BadCall> {
    let Args { command } = arguments.read()?;
    if command.trim().is_empty() {
        return Err(arguments.bad("command", "is empty"));
    }
    if command.len() > MAX_COMMAND {
        let rule = format!(
            "has {} bytes; at most {MAX_COMMAND} are taken, so write a script file",
            command.len()
        );
        return Err(arguments.bad("command", rule));
    }
    if command.contains('\0') {
        return Err(arguments.bad(
            "command",
            "holds a NUL character, which no program can be given",
        ));
    }
    Ok(ToolCall::Exec { command })
}
