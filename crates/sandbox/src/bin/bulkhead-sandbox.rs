//! `bulkhead-sandbox`: builds boxes and runs tools in them.
//!
//! Security: the service reads requests of the gateway, which judged and recorded them, and
//! passes on what comes out of a box without looking at it. Boxes are made by a process of
//! their own (`bulkhead-sandbox build`) that holds nothing of the service's memory. It runs as
//! whoever runs Bulkhead, without a network and without capabilities.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os()
        .nth(1)
        .as_deref()
        .and_then(std::ffi::OsStr::to_str)
    {
        Some("build") => bulkhead_sandbox::native::main(),
        Some("inner") => bulkhead_sandbox::inner::main(),
        Some("command") => bulkhead_sandbox::inner::command(),
        Some(_) | None => bulkhead_sandbox::service::main(),
    }
}
