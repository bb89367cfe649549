//! The tools, one file each, and the table of them.

pub(crate) mod edit_file;
pub(crate) mod exec;
pub(crate) mod http_request;
pub(crate) mod list_files;
pub(crate) mod read_file;
pub(crate) mod search_files;
pub(crate) mod web_fetch;
pub(crate) mod write_file;

use protocol::call::ToolCall;

use crate::resolve::{Arguments, BadCall};

/// What is known of a tool outside the box.
pub(crate) struct Tool {
    /// What the model calls it.
    pub(crate) name: &'static str,
    /// What it does, for the model.
    pub(crate) description: &'static str,
    /// JSON Schema of its arguments.
    pub(crate) parameters: fn() -> serde_json::Value,
    /// Arguments that are right, for errors to point to.
    pub(crate) example: &'static str,
    /// From its arguments to the call.
    pub(crate) parse: fn(&Arguments<'_>) -> Result<ToolCall, BadCall>,
}

/// All of them, in the order in which the model is told.
pub(crate) const TOOLS: [&Tool; 8] = [
    &read_file::TOOL,
    &write_file::TOOL,
    &edit_file::TOOL,
    &list_files::TOOL,
    &search_files::TOOL,
    &exec::TOOL,
    &web_fetch::TOOL,
    &http_request::TOOL,
];

/// The tool of this name, exactly.
pub(crate) fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.into_iter().find(|tool| tool.name == name)
}
