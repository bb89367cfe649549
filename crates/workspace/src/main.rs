//! `bulkhead-workspace`, which keeps the workspace. See [`bulkhead_workspace::program`].

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_workspace::program::run()
}
