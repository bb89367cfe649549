//! An attacker in the place of one program, for `bulkhead blast-radius`.
//!
//! The command lays `bulkhead-intruder` in the place of one program, in a temporary copy of an installation, and
//! has the real supervisor start it. It gets that program's arguments, descriptors, configuration and links,
//! confines itself by the very call that the program makes, and then tries everything that it can think of. What
//! each program may reach is in [`table`]; what it is told about the scene, and what it tells, in [`scene`].
//!
//! Security: it holds no authority but what its place gives it, and outside of such a scene it does nothing: without
//! the file of a scene beside it, it ends.

mod attack;
pub mod scene;
pub mod table;

pub use attack::run;
