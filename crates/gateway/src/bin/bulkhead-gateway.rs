//! `bulkhead-gateway --dir DIR`: who is this, what may they do, ask a person, route. As
//! `bulkhead-gateway --check-rules` it only says whether the rules on standard input can be used.
//!
//! Security: reads typed, bounded frames whose texts come from strangers and from a model
//! that may be hijacked; no decision depends on what such a text says. Holds the state
//! database in DIR and the links to the other programs; no secret, no network.

fn main() -> std::process::ExitCode {
    bulkhead_gateway::core::main()
}
