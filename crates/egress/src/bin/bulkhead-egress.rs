//! The only door out. See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_egress::run()
}
