//! What runs inside the box: a typed call on standard input, its result on standard output;
//! or a script of programs on standard input, which are started.
//!
//! All files are reached through one directory handle of the workspace ([`Root`]); no path
//! is opened any other way. What the programs of a script open is bounded by the box.

mod error;
mod names;
mod root;
mod script;
mod target;
mod walk;

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use protocol::call::{ToolCall, WORKSPACE};
use protocol::frame::MAX_FRAME;
use protocol::script::SCRIPT_FLAG;
use serde::de::DeserializeOwned;

pub use error::ToolError;
pub use root::{MAX_FILE, Root};
pub(crate) use walk::{Entry, Kind, shown};

use crate::tool;

/// The whole program: reads a call, does it, and says so with its exit code: 0 with the
/// result on standard output, 1 with the error on standard error, 2 for wrong usage. With
/// [`SCRIPT_FLAG`] it reads a script, runs it, and ends with the script's code.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let root = match arguments.as_slice() {
        [] => WORKSPACE.as_ref(),
        [flag, root] if flag == "--root" => root.as_os_str(),
        [flag] if flag == SCRIPT_FLAG => return run_script(),
        _ => {
            eprintln!("usage: bulkhead-tool [--root DIR] < CALL.json, or --script < SCRIPT.json");
            return ExitCode::from(2);
        }
    };
    let result = read(std::io::stdin().lock(), ToolError::BadCall)
        .and_then(|call| run(&Root::open(Path::new(root))?, &call));
    match result {
        Ok(text) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The input is read to its end first, so that the programs find nothing in it.
fn run_script() -> ExitCode {
    let script = read(std::io::stdin().lock(), ToolError::BadScript);
    match script.and_then(|script| script::run(&script)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Does a call and says what came of it, for the model.
pub fn run(root: &Root, call: &ToolCall) -> Result<String, ToolError> {
    match call {
        ToolCall::ReadFile {
            path,
            first_line,
            lines,
        } => tool::read_file::run(root, path, *first_line, *lines),
        ToolCall::WriteFile { path, content } => tool::write_file::run(root, path, content),
        ToolCall::EditFile { path, old, new } => tool::edit_file::run(root, path, old, new),
        ToolCall::ListFiles { path, depth } => tool::list_files::run(root, path, *depth),
        ToolCall::SearchFiles { text, path } => tool::search_files::run(root, text, path),
        ToolCall::Exec { .. } | ToolCall::HttpRequest { .. } | ToolCall::WebFetch { .. } => {
            Err(ToolError::NotBuiltIn)
        }
    }
}

fn read<T: DeserializeOwned>(
    input: impl Read,
    wrong: fn(String) -> ToolError,
) -> Result<T, ToolError> {
    let mut json = Vec::new();
    let read = input.take(MAX_FRAME as u64 + 1).read_to_end(&mut json);
    let read = read.map_err(|error| wrong(error.to_string()))?;
    if read > MAX_FRAME {
        return Err(wrong(format!("it is longer than {MAX_FRAME} bytes")));
    }
    serde_json::from_slice(&json).map_err(|error| wrong(error.to_string()))
}
