//! Finds secrets in texts, and links that carry data out.
//!
//! Pure: no files, no clock, no network. A [`Scanner`] looks for the vault's own values, by
//! marks from which nobody can read them ([`protocol::marks`]), and for the formats that
//! keys are commonly given out in; both also where they are encoded, up to
//! three times over. A [`Stream`] does it for text that comes in pieces, and finds what stands
//! across two of them. [`links`] finds and defangs what a client would load or follow.
//!
//! It is a net below what keeps secrets away from what could leak them, not in its place: who can
//! run code where a secret is can encode it in a way that nobody looks for.

mod alphabet;
mod context;
mod decode;
mod finding;
mod formats;
mod hit;
pub mod links;
mod manifest;
mod names;
mod options;
mod placeholder;
mod scanner;
mod stream;
mod structured;
mod vault;
mod view;

pub use finding::{Finding, Kind, redact};
pub use scanner::Scanner;
pub use stream::{Passed, Stream};
