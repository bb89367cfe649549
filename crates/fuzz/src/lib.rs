//! What has to hold for every input, however odd, and inputs to try it with.
//!
//! A [`Target`] is one function over bytes. Two runs share it: a short one with the other tests, which
//! tries the same inputs each time, and a long one for as long as one likes (`tools/fuzz`).

mod addresses;
mod approvals;
mod calls;
mod commands;
mod config_file;
mod mutate;
mod reading;
mod rules;
mod run;
mod shown;

pub use run::{Broken, Done, Until, run, run_one};

/// Something that reads what others wrote.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called by.
    pub name: &'static str,
    /// Panics where something does not hold. Else it says in a few words what came of the input:
    /// one with which something new came is changed further.
    pub check: fn(&[u8]) -> String,
    /// Good inputs and bad ones, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Pieces that mean something in such inputs.
    pub words: &'static [&'static [u8]],
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    commands::TARGET,
    calls::TARGET,
    config_file::TARGET,
    approvals::TARGET,
    addresses::TARGET,
];

/// The kind of a message: its first words up to what is quoted in it, without numbers.
fn kind(message: &str) -> String {
    let words = message.split(['"', '`']).next().unwrap_or_default();
    let words = words.split_whitespace().take(8);
    let numberless = |word: &str| word.replace(|c: char| c.is_ascii_digit(), "");
    words.map(numberless).collect::<Vec<_>>().join(" ")
}
