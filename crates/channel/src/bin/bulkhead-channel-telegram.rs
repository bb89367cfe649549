//! A bot on Telegram; see [`bulkhead_channel::telegram`].

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_channel::telegram::run()
}
