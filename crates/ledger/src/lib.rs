//! The record: its chain, the program that writes it, and how it is read and verified.
//!
//! - [`chain`]: what is hashed and what is signed; pure.
//! - [`store`]: the rows on disk and the key that signs them; only inside `bulkhead-ledger`.
//! - [`serve`] and [`program`]: the program.
//! - [`client`]: how the gateway and egress write to it; what was written comes back as [`Recorded`].
//! - [`read`] and [`mod@verify`]: what needs nothing but the file, and for the latter the public key.
//!
//! The format is in `docs/ledger.md`.

pub mod chain;
pub mod client;
pub mod key;
pub mod program;
pub mod read;
mod schema;
pub mod serve;
pub mod store;
pub mod verify;

pub use client::{LedgerClient, LedgerError, Recorded};
pub use verify::{Problem, Report, verify};
