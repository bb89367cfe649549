//! Keeps the workspace: layers that boxes write to, keeping or dropping their changes as one
//! step that a crash cannot split, the history of the steps, and undoing them.
//!
//! - [`store`]: the workspace and its history, open; the rest is behind it.
//! - `plan` and `copy` make operations out of what a layer changed, `conflict` compares them
//!   with what others did meanwhile, `journal` remembers them, `apply` does them.
//! - `history` and `undo`: the past and the way back.
//! - `compare`, `findings` and `text` tell changes, in bounds.
//! - `fsys`, `name` and `clean`: files by descriptor, hostile ones included.
//! - [`serve`] and [`program`]: the program.

mod apply;
mod clean;
mod compare;
mod conflict;
mod copy;
mod findings;
mod fsys;
mod history;
mod home;
mod journal;
mod name;
mod plan;
pub mod program;
mod read_only;
pub mod serve;
pub mod steps;
pub mod stop;
pub mod store;
mod text;
mod undo;

pub use home::make_folder;
pub use steps::{Step, Steps, Uninterrupted};
pub use stop::Stop;
pub use store::Store;
