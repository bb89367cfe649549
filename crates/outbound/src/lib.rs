//! Where something may go, pure: addresses of the web read in one way only, what hosts and
//! addresses are, egress rules, and the judgement of a request by them.
//!
//! There are no sockets, files, clocks or resolvers in here. Whoever sends asks [`judge`] first,
//! [`answers`] about what the name resolved to, connects to exactly these addresses, and asks
//! [`redirect`] and then [`judge`] again before it goes where an answer leads on.

pub mod address;
mod explain;
pub mod headers;
mod host;
mod judge;
mod names;
mod path;
mod ports;
mod punycode;
mod redirect;
mod rules;
mod strangers;
mod url;

pub use address::Allowed;
pub use explain::explain;
pub use host::{BadHost, Host};
pub use judge::{
    Asked, AskedTunnel, MAX_FREE_PATH, MAX_FREE_QUERY, Often, Question, Refusal, Terms, Verdict,
    What, Why, answers, judge, judge_tunnel,
};
pub use names::BadName;
pub use path::BadPath;
pub use redirect::{AfterRedirect, BadRedirect, MAX_REDIRECTS, Redirect, redirect};
pub use rules::{BadRule, RuleSet, check, says_all};
pub use strangers::serves_strangers;
pub use url::{BadUrl, MAX_URL, Scheme, Url};
