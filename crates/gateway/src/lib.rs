//! Who is this, what may they do: the gateway. And what starts every program: the supervisor.

pub mod core;
pub mod supervisor;
