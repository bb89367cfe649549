//! Confinement of every program, and the box that tools run in.
//!
//! [`confine`] is what each program calls before it reads its first byte: no capabilities,
//! no new privileges, not dumpable, a Landlock domain and a list of system calls. The lists
//! are data with comments, in `profiles/`. A layer that the kernel lacks is an error, never
//! a warning.
//!
//! [`boxes`] are processes with namespaces, a root, limits and a list of system calls of their own,
//! each for one [`run`]. [`service`] runs many for the gateway.
//!
//! All `unsafe` code of Bulkhead is in `sys/`.

#![deny(unsafe_code)]

#[cfg(not(feature = "ablation"))]
mod ablation;
#[cfg(feature = "ablation")]
pub mod ablation;
pub mod boxes;
mod cgroup;
mod check;
mod confine;
pub mod container_calls;
pub mod engine;
mod files;
pub mod inner;
mod landlock_domain;
pub mod layers;
pub mod memory;
mod namespaces;
pub mod native;
pub mod others;
pub mod pool;
pub mod probe;
pub mod probes;
mod profiles;
mod receipt;
pub mod run;
mod seccomp;
pub mod service;
pub mod signals;
mod sys;
mod users;
mod watch;
pub mod way;

pub use cgroup::prepare as prepare_cgroups;
pub use check::{Check, Status, check};
pub use confine::{Applied, ConfineError, Files, Program, confine};
pub use files::{FilesError, files_of};
pub use users::FIRST_ID;
