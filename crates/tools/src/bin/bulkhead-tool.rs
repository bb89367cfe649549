//! `bulkhead-tool`: one file tool, or one script of programs, once, inside the box.
//!
//! Security: it runs as whatever the box runs as, holds nothing but a handle of the
//! workspace, and reads two things, both untrusted: one call or script on standard input (the
//! gateway judged and recorded it, the model wrote it) and the files it names. With a script
//! it starts programs, which only the box of a command lets it.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_tools::inside::main()
}
