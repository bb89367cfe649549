//! `search_files`: the lines that hold a text.

use std::ops::ControlFlow;

use protocol::call::{ToolCall, WorkspacePath};
use serde::Deserialize;
use serde_json::json;

use super::Tool;
use crate::inside::{Entry, Kind, MAX_FILE, Root, ToolError, shown};
use crate::resolve::{Arguments, BadCall};

/// The most lines that are given back.
const MAX_HITS: usize = 200;

/// The most bytes that are read in all.
const MAX_READ: u64 = 256 * 1024 * 1024;

/// How many levels of folders are gone down.
const MAX_DEPTH: u32 = 32;

/// The most characters of a line that are shown.
const MAX_LINE: usize = 300;

pub(crate) static TOOL: Tool = Tool {
    name: "search_files",
    description: "Find the lines that hold a text, in one file or in a folder and all below it. The text \
        is taken literally, capital letters matter. Binary files and files over 1 MiB are left out.",
    parameters: || {
        json!({
            "type": "object",
            "properties": {
                "text": {"type": "string", "minLength": 1, "description": "The text, within one line."},
                "path": {"type": "string", "description": "The file or folder, relative to the workspace. Default: the workspace itself."},
            },
            "required": ["text"],
            "additionalProperties": false,
        })
    },
    example: r#"{"text": "TODO", "path": "src"}"#,
    parse,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    text: String,
    #[serde(default)]
    path: String,
}

fn parse(arguments: &Arguments<'_>) -> Result<ToolCall, BadCall> {
    let Args { text, path } = arguments.read()?;
    if text.is_empty() {
        return Err(arguments.bad("text", "is empty; to see what is there use list_files"));
    }
    if text.contains(['\n', '\r']) {
        return Err(arguments.bad("text", "goes over a line's end; search for one line of it"));
    }
    Ok(ToolCall::SearchFiles {
        text,
        path: arguments.path(&path)?,
    })
}

/// `path:line: text` for each hit, and a last line in brackets if not all was looked at.
pub(crate) fn run(root: &Root, text: &str, path: &WorkspacePath) -> Result<String, ToolError> {
    let mut search = Search {
        text,
        hits: Vec::new(),
        left: MAX_READ,
        skipped: 0,
    };
    let cut = if root.is_file(path)? {
        search
            .file(path.as_str().as_bytes(), &root.read_some(path)?)
            .is_break()
    } else {
        root.walk(path, MAX_DEPTH, &mut |entry| search.entry(entry))?
            .is_cut()
    };
    let mut out = match search.hits.is_empty() {
        true => "[no line holds it]\n".to_owned(),
        false => search.hits.concat(),
    };
    if cut {
        out.push_str(
            "[not all was searched, or there are more lines; search a folder further in]\n",
        );
    }
    if search.skipped > 0 {
        out.push_str(&format!(
            "[{} files left out: binary, over {MAX_FILE} bytes or not readable]\n",
            search.skipped
        ));
    }
    Ok(out)
}

struct Search<'a> {
    text: &'a str,
    hits: Vec<String>,
    left: u64,
    skipped: u32,
}

impl Search<'_> {
    fn entry(&mut self, entry: &Entry<'_>) -> ControlFlow<()> {
        let Kind::File(_) = entry.kind else {
            return ControlFlow::Continue(());
        };
        match entry.read() {
            Ok(bytes) => self.file(entry.path, &bytes),
            Err(_) => {
                self.skipped += 1;
                ControlFlow::Continue(())
            }
        }
    }

    fn file(&mut self, name: &[u8], bytes: &[u8]) -> ControlFlow<()> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return ControlFlow::Break(());
        };
        self.left = left;
        if bytes.contains(&0) {
            self.skipped += 1;
            return ControlFlow::Continue(());
        }
        for (number, line) in String::from_utf8_lossy(bytes).lines().enumerate() {
            if !line.contains(self.text) {
                continue;
            }
            if self.hits.len() == MAX_HITS {
                return ControlFlow::Break(());
            }
            let start: String = line.chars().take(MAX_LINE).collect();
            let more = if start.len() < line.len() { "…" } else { "" };
            self.hits
                .push(format!("{}:{}: {start}{more}\n", shown(name), number + 1));
        }
        ControlFlow::Continue(())
    }
}
