//! `bulkhead-engine FOLDER`: has a container engine run one box.
//!
//! Security: reads what the program that runs tools in boxes asks for, what the engine answers, and what the
//! first process of the container tells of itself and of the box. Holds the engine's socket, which
//! is as much as being root, so it has nothing else: no secret, no network, and one folder to write
//! to. It runs as whoever runs Bulkhead.

fn main() -> std::process::ExitCode {
    bulkhead_engine::main()
}
