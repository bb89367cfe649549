//! The vault. See the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_vault::run()
}
