//! The program of a Telegram bot, whole, against a stand-in for the Bot API, with the other
//! programs' ends of its links in the test's hands.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, also in a helper"
)]

mod approvals;
mod faults;
mod messages;
mod rig;
