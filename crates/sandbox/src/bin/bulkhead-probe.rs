//! `bulkhead-probe`: attacks a box from inside, and tells what came of it.
//!
//! Security: `bulkhead sandbox probe` starts it as whoever types that. It holds nothing but planted
//! canaries, reads nothing that others wrote, and every attack is harmless where it gets through. In
//! the box it runs like any other program there.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_sandbox::probes::main()
}
