//! What crosses between programs.
//!
//! Programs meet here and not in one another. Every link has a module with one request
//! enum and one reply enum; every phase of a program matches all variants, so that a new
//! request is refused until somebody decides about it. Values are newtypes that were
//! parsed when the frame was read: code behind a link has no checks to forget.
//!
//! | link | module | who asks | who answers |
//! |---|---|---|---|
//! | control | [`control`] | supervisor | every program |
//! | supervisor | [`supervisor`] | `bulkhead` | supervisor |
//! | operator | [`operator`] | `bulkhead` | gateway |
//! | channel | [`channel`] | channel program, terminal | gateway |
//! | agent | [`agent`] | agent | gateway |
//! | model | [`egress`] | agent | egress |
//! | tunnel | [`egress`] | channel program | egress |
//! | runner | [`runner`] | gateway | sandbox |
//! | layers | [`workspace`] | sandbox | workspace |
//! | history | [`workspace`] | gateway | workspace |
//! | engine | [`engine`] | sandbox | engine |
//! | inner | [`engine`] | engine | first process of a container |
//! | ledger | [`record`] | gateway, egress | ledger |
//! | the way out of a box | [`box_link`] | program that runs boxes | egress |
//! | vault | [`vault`] | channel program, egress, `bulkhead` | vault |

pub mod agent;
pub mod box_link;
pub mod call;
pub mod channel;
pub mod control;
pub mod egress;
pub mod engine;
pub mod event;
pub mod frame;
pub mod freeze;
pub mod identity;
pub mod ids;
pub mod log;
pub mod marks;
pub mod operator;
pub mod outbound;
pub mod parts;
pub mod passkey;
pub mod record;
pub mod rules;
pub mod runner;
pub mod script;
pub mod supervisor;
pub mod time;
pub mod vault;
pub mod workspace;
