//! `read_file`: lines of a text file.

use std::io::{BufRead, BufReader, Read};

use protocol::call::{ToolCall, WorkspacePath};
use serde::Deserialize;
use serde_json::json;

use super::Tool;
use crate::inside::{Root, ToolError};
use crate::resolve::{Arguments, BadCall};

/// The most bytes of a file that are given back at once.
const MAX_OUTPUT: usize = 256 * 1024;

/// How far into a file lines are looked for, in bytes.
const MAX_SCAN: u64 = 64 * 1024 * 1024;

pub(crate) static TOOL: Tool = Tool {
    name: "read_file",
    description: "Read a text file in the workspace, or some lines of it.",
    parameters: || {
        json!({
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "The file, relative to the workspace."},
                "first_line": {"type": "integer", "minimum": 1, "description": "The first line wanted, from 1. Default 1."},
                "lines": {"type": "integer", "minimum": 1, "maximum": 100_000, "description": "At most so many lines. Default 2000."},
            },
            "required": ["path"],
            "additionalProperties": false,
        })
    },
    example: r#"{"path": "notes/today.md", "first_line": 1, "lines": 200}"#,
    parse,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    path: String,
    #[serde(default = "first")]
    first_line: u32,
    #[serde(default = "many")]
    lines: u32,
}

fn first() -> u32 {
    1
}

fn many() -> u32 {
    2000
}

fn parse(arguments: &Arguments<'_>) -> Result<ToolCall, BadCall> {
    let Args {
        path,
        first_line,
        lines,
    } = arguments.read()?;
    Ok(ToolCall::ReadFile {
        path: arguments.file(&path)?,
        first_line: arguments.within("first_line", first_line, 1..=u32::MAX)?,
        lines: arguments.within("lines", lines, 1..=100_000)?,
    })
}

/// The lines, and a last line in brackets if the file goes on.
pub(crate) fn run(
    root: &Root,
    path: &WorkspacePath,
    first_line: u32,
    lines: u32,
) -> Result<String, ToolError> {
    let (file, _) = root.open_to_read(path)?;
    let mut reader = BufReader::new(file.take(MAX_SCAN));
    if reader
        .fill_buf()
        .map_err(|e| ToolError::io(path, &e))?
        .contains(&0)
    {
        return Err(ToolError::Binary(path.clone()));
    }
    let mut text = Vec::new();
    let mut line = 0;
    // Line numbers are u32 as in the call; 64 MiB hold fewer lines than that.
    let last = first_line.saturating_add(lines - 1);
    while line < last {
        let wanted = line + 1 >= first_line;
        let room = MAX_OUTPUT - text.len();
        match next_line(&mut reader, room, wanted.then_some(&mut text))
            .map_err(|e| ToolError::io(path, &e))?
        {
            Line::End => return whole(path, text, line, first_line, &reader),
            Line::Read => line += 1,
            Line::TooLong if line + 1 == first_line => {
                return Err(ToolError::LineTooLong(path.clone(), MAX_OUTPUT));
            }
            Line::TooLong => return Ok(cut(text, line)),
        }
    }
    match reader
        .fill_buf()
        .map_err(|e| ToolError::io(path, &e))?
        .is_empty()
    {
        true => whole(path, text, line, first_line, &reader),
        false => Ok(cut(text, line)),
    }
}

/// What came of reading a line.
enum Line {
    Read,
    TooLong,
    End,
}

/// Takes a line off the reader, into `text` if it is wanted; `text` grows only by whole lines.
fn next_line(
    reader: &mut impl BufRead,
    room: usize,
    text: Option<&mut Vec<u8>>,
) -> std::io::Result<Line> {
    let Some(text) = text else {
        return Ok(if reader.skip_until(b'\n')? == 0 {
            Line::End
        } else {
            Line::Read
        });
    };
    let before = text.len();
    let read = reader.take(room as u64 + 1).read_until(b'\n', text)?;
    if read > room {
        text.truncate(before);
        return Ok(Line::TooLong);
    }
    Ok(if read == 0 { Line::End } else { Line::Read })
}

fn whole(
    path: &WorkspacePath,
    text: Vec<u8>,
    line: u32,
    first_line: u32,
    reader: &BufReader<std::io::Take<std::fs::File>>,
) -> Result<String, ToolError> {
    if reader.get_ref().limit() == 0 {
        return Err(ToolError::TooFarIn(path.clone(), MAX_SCAN));
    }
    if line < first_line && first_line > 1 {
        return Err(ToolError::NoSuchLine(path.clone(), first_line, line));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn cut(text: Vec<u8>, line: u32) -> String {
    let mut text = String::from_utf8_lossy(&text).into_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!(
        "[the file goes on; read on with first_line {}]\n",
        u64::from(line) + 1
    ));
    text
}
