//! Secrets at rest: a file of sealed entries, the program that alone opens them, and the
//! client through which the others ask it.
//!
//! Who may use a secret is part of what is authenticated with it, and who asks is known by
//! the link. A secret is handed out after the record has taken that it was used, and never
//! before. No command prints one: the operator's link can add, rotate, remove and list.

pub mod client;
mod frames;
mod handle;
mod program;
mod record;
mod seal;
mod store;

pub use client::{VaultClient, VaultError};
pub use program::run;
pub use store::{KeySource, MAX_ENTRIES, MAX_VALUE, Store, StoreError};
