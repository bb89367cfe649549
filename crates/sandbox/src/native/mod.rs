//! The native box: processes that make one, run one command in it, and are gone with it.
//!
//! Each has one thread and dies with its parent:
//!
//! - the *builder* is started once by the service and makes the first process of each box. It
//!   knows nothing of what boxes do: a box' description goes over a link of its own.
//! - *init* is process 1 of the box. It builds the root, gives up all privilege, starts the command,
//!   reaps orphans, and tells how the command ended. The kernel kills all else when it ends.
//! - the command. It waits, confined, until it is told what to become, so that boxes can be kept ready.

pub(crate) mod builder;
pub(crate) mod facts;
pub(crate) mod init;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub mod parts;
pub(crate) mod spec;
pub(crate) mod way;

pub use builder::main;
