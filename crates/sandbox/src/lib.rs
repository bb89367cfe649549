//! Confinement of every program, and the box that tools run in.
//!
//! [`confine`] is what each program calls before it reads its first byte: no capabilities,
//! no new privileges, not dumpable, a Landlock domain and a list of system calls. The lists
//! are data with comments, in `profiles/`. A layer that the kernel lacks is an error, never
//! a warning.
//!
//! [`run`] is the box: a process with namespaces, a root, limits and a list of system calls
//! of its own, for one command. [`service`] runs many for the gateway.
//!
//! All `unsafe` code of Bulkhead is in `sys/`.

#![deny(unsafe_code)]

mod check;
mod confine;
pub mod container_calls;
pub mod inner;
mod landlock_domain;
pub mod native;
pub mod probe;
mod profiles;
mod receipt;
pub mod run;
mod seccomp;
pub mod service;
pub mod signals;
mod sys;

pub use check::{Check, Status, check};
pub use confine::{Applied, ConfineError, Files, Program, confine};
