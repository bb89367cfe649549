//! The turn as a state machine, and the program that runs it.
//!
//! One agent serves one session. It builds the prompt, asks the model through egress, reads
//! the stream, and asks the gateway for the tools that the model wants. [`turn`] is all of
//! that without I/O; [`conversation`] keeps what was said and makes it fit the model's
//! window; `page` makes text of web pages; `program` moves frames between the links and the state machine.
//!
//! Security: `bulkhead-agent` reads what the model, the tools and strangers wrote, and is
//! assumed to be hijacked by it. It owns no file, no key, no route and no network; it has
//! two links, and what it says on them is a request. Whatever it is made to do, the gateway
//! decides about each call, and egress knows one model endpoint only.

mod answer;
pub mod conversation;
mod page;
mod program;
pub mod turn;

pub use program::run;
