//! The agent of one session. See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_agent::run()
}
