//! For tests and the demo: a scripted model, platform stand-ins, and a harness that starts
//! the real programs.

pub mod browser;
pub mod http;
pub mod model;
pub mod operator;
pub mod passkey;
pub mod system;
pub mod telegram;
pub mod tls;
