//! Secrets at rest: a file of sealed entries, the program that alone opens them, and the
//! client through which the others ask it.
//!
//! Who may use a secret is part of what is authenticated with it, and who asks is known by
//! the link. A secret is handed out after the record has taken that it was used, and never
//! before. No command prints one: the operator's link can add, rotate, remove and list.

mod attempts;
mod backup;
pub mod client;
mod entries;
mod fault;
mod frames;
mod handle;
mod keys;
mod manage;
mod place;
mod program;
mod record;
mod seal;
mod store;
mod stretch;

pub use client::{VaultClient, VaultError};
pub use entries::Recorded;
pub use fault::StoreError;
pub use keys::key_source;
pub use program::run;
pub use store::{MAX_ENTRIES, MAX_VALUE, Standing, Store};
