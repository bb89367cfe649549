//! The catalogue of tools, and the built-in ones that run inside the box.
//!
//! Two halves meet here. Outside the box the gateway takes [`catalogue`] for the model's
//! eyes and [`resolve`] to turn what the model wrote into a typed call; neither touches a
//! file. Inside the box the program `bulkhead-tool` takes a typed call and does it
//! ([`inside`]).
//!
//! A tool is one file in `tool/`, with its name, its schema, its arguments and its work,
//! and one line in the table of `tool/mod.rs`.

pub mod inside;
mod resolve;
pub mod text;
mod tool;

use protocol::agent::ToolSpec;
use protocol::ids::ToolName;

pub use resolve::{BadCall, MAX_ARGS, MAX_COMMAND, resolve};

/// The tools as a model is told of them.
pub fn catalogue() -> Vec<ToolSpec> {
    let spec = |tool: &&tool::Tool| ToolSpec {
        // The table's names are letters and `_`; a test reads all of them.
        name: ToolName::parse(tool.name).expect("a tool's name is a tool name"),
        description: tool.description.to_owned(),
        parameters: (tool.parameters)(),
    };
    tool::TOOLS.iter().map(spec).collect()
}
