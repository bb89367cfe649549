//! Chat platforms: the common loop, and a program for each.

pub mod link;
pub mod telegram;
pub mod web;
