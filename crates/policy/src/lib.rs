//! The decision, pure: what a tool call may do.
//!
//! A call comes in typed, together with who asked, over which channel, the grants in force
//! and the time; out comes a [`Decision`]. There are no files, clocks, threads or random
//! numbers in here, and no text of the model has a say: the same facts give the same
//! decision, always.
//!
//! A [`Permit`] is the only thing that makes a call run, and it cannot be had without this
//! crate: [`decide`] makes one where the rules allow the call or a grant covers it, and
//! [`ApprovalRequest::approved`] makes one from a fresh yes to exactly that call, which for
//! tier 3 has to be [`Signed`].
//!
//! ```compile_fail,E0451
//! # fn forge(other: bulkhead_policy::Permit, digest: protocol::ids::Digest) -> bulkhead_policy::Permit {
//! bulkhead_policy::Permit { digest, ..other }
//! # }
//! ```
//!
//! ```compile_fail,E0599
//! # fn twice(permit: bulkhead_policy::Permit) -> [bulkhead_policy::Permit; 2] {
//! [permit.clone(), permit]
//! # }
//! ```
//!
//! ```compile_fail,E0277
//! # fn forge(json: &str) -> bulkhead_policy::Permit {
//! serde_json::from_str(json).unwrap()
//! # }
//! ```
//!
//! ```compile_fail,E0382
//! # use bulkhead_policy::{ApprovalRequest, Approved, Consent};
//! # fn twice(request: ApprovalRequest, yes: Approved, by: Consent, now: protocol::time::Millis) {
//! let first = request.approved(&yes, &by, now);
//! let second = request.approved(&yes, &by, now);
//! # }
//! ```
//!
//! ```compile_fail,E0451
//! # fn forge(other: bulkhead_policy::Signed, digest: protocol::ids::Digest) -> bulkhead_policy::Signed {
//! bulkhead_policy::Signed { digest, ..other }
//! # }
//! ```

mod approval;
pub mod command;
mod consent;
mod decision;
mod exact;
mod explain;
mod judge;
mod lists;
mod parts;
pub mod passkey;
mod permit;
mod programs;
mod requests;
mod rules;
pub mod visible;

pub use approval::{
    ApprovalRefused, ApprovalRequest, Approved, BadStored, StoredApproval, WhyRefused,
};
pub use consent::{Consent, NotSigned, Signed};
pub use decision::{Decision, Question, Request, decide};
pub use exact::Profile;
pub use explain::explain;
pub use judge::{Effects, Judgement, Reason};
pub use permit::{GRANT_TIME, NewGrant, Permit};
pub use protocol::rules::Label;
pub use requests::HostRequest;
pub use rules::{BadRules, Rules, Session};
