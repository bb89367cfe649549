//! The web page's program, whole, against browsers and pages that mean harm or are slow.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, also in a helper"
)]

mod chat;
mod door;
mod http;
mod limits;
mod page;
