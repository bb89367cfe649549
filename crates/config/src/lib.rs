//! `bulkhead.toml` and where everything lives.
//!
//! The file is read once, by the supervisor (and by `bulkhead` for its checks): raw form
//! ([`file`]), then ready form ([`Config`]). Programs get their slice over their control link.

mod egress;
mod file;
mod freeze;
mod home;
mod keys;
mod rules;
mod url;

pub use file::{Config, ConfigError, Telegram, Web};
pub use freeze::{FreezeMark, is_frozen};
pub use home::{Home, HomeError, history_beside};
pub use keys::{IDENTITIES, KeyError, OPERATOR, TERMINAL, ensure_key, read_key, read_public};
pub use url::{BadUrl, BaseUrl};
