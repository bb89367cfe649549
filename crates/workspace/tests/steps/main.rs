//! Steps of a workspace: real overlays, real files, the real program.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "a test ends where something is not as it has to be"
)]

mod common;
mod history;
mod keep;
mod kinds;
mod ordinary;
mod program;
mod scale;
mod sessions;
mod traps;
