//! Chat platforms: the common loop, and a program for each.
//!
//! A channel's program starts as [`program`] says, talks to the gateway through [`link`], and
//! holds what the gateway has not yet taken in [`pending`]. What is left to a platform is to
//! turn its messages into requests and events into its messages.

pub mod link;
pub mod pending;
pub mod program;
pub mod telegram;
pub mod web;
