//! `bulkhead-channel-telegram`: a bot on Telegram.
//!
//! Updates come by long polling, and each is confirmed only when the gateway has its message.
//! Replies go out as plain text with entities, split at what Telegram takes.
//!
//! # Security
//! Reads untrusted bytes: what people write, what Telegram answers, and the agent's replies. Holds
//! its bot's token, from the vault, and the key that proves to the gateway which channel this
//! is. Reaches one host, through tunnels of egress; TLS ends here, so egress sees no token.
//! Writes one small file in its folder. What it could do when taken over: read and write as
//! this bot, and answer approvals in the name of people of this channel.

mod api;
mod backoff;
mod bot;
mod bridge;
mod cards;
mod disk;
mod http;
mod incoming;
mod markdown;
mod peers;
mod poll;
mod run;
mod sender;
mod split;
mod styled;
mod token;
mod typing;

pub use run::run;
