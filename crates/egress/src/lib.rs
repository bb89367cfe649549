//! The only door out: an agent's requests to the model, a channel's tunnels to its platform.
//!
//! Egress makes the model's request itself, so that no compartment holds a key or chooses a
//! server. What may be reached is the configuration's rule and the addresses that a name
//! resolves to, judged by [`outbound::address::check`] before each connection; the connection goes to
//! exactly those addresses. What goes out is in the record first.

mod boxes;
mod budget;
mod chat;
mod clean;
mod credential;
mod dial;
mod handed;
mod headers;
mod json;
mod leaks;
mod looked;
mod model_link;
mod program;
mod record;
mod sigv4;
mod sni;
mod text;
mod tokens;
mod tools;
mod tunnel;
mod tunnel_link;
mod vault_link;
mod wire;

pub use program::run;
