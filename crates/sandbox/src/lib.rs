//! Confinement of every program, and the box that tools run in.
//!
//! [`confine`] is what each program calls before it reads its first byte: no capabilities,
//! no new privileges, not dumpable, a Landlock domain and a list of system calls. The lists
//! are data with comments, in `profiles/`. A layer that the kernel lacks is an error, never
//! a warning.
//!
//! All `unsafe` code of Bulkhead is in `sys/`.

#![deny(unsafe_code)]

mod confine;
mod landlock_domain;
pub mod probe;
mod profiles;
mod seccomp;
pub mod signals;
mod sys;

pub use confine::{Applied, ConfineError, Files, Program, confine};
