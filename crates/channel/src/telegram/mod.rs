//! Telegram.

pub mod markdown;
pub mod split;
pub mod styled;
