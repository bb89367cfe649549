//! `bulkhead-supervisor [--home DIR]`: starts the programs, starts them again when they
//! die, hands out their links, and stops them in order.
//!
//! Security: reads the configuration and the public halves of the channels' keys; never
//! text from a channel, a model or a tool. Holds no secret. Runs as whoever typed
//! `bulkhead up`, without capabilities.

fn main() -> std::process::ExitCode {
    bulkhead_gateway::supervisor::main()
}
