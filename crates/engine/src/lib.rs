//! Boxes in containers of Docker, Podman and gVisor.
//!
//! The program `bulkhead-engine` is started for one box, with its link as standard input
//! ([`protocol::engine`]). It asks the engine for a container with the profile of a box, has the first
//! process of it (`bulkhead-sandbox inner`) tell what the kernel says about it, and only
//! then what to run. An engine that is missing, or a property that was asked for and is not there, is a
//! refusal with its fix; there is no other box in its place.

mod api;
mod connect;
mod container;
mod image;
mod owner;
mod program;
mod run;
mod stream;
mod verify;
mod wire;

pub use program::main;
