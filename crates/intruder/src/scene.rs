//! What the intruder is told, and what it tells.

use std::path::PathBuf;

use protocol::channel::ApprovalCard;
use serde::{Deserialize, Serialize};

use crate::table::Asset;

/// The file of the scene, beside the programs. It is read before the confinement.
pub const FILE: &str = "scene.json";

/// What an attacker may be supposed to know of an installation, and nothing of what is secret in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scene {
    /// Where it tells what came of its attempts, in lines of [`Line`]. Opened before the confinement.
    pub report: PathBuf,
    /// What comes when everything runs, [`Later`]. Opened before the confinement.
    pub later: PathBuf,
    /// Files to read.
    pub read: Vec<Target>,
    /// Files to open for writing, and folders in which to make one.
    pub write: Vec<Target>,
    /// A port of 127.0.0.1 at which somebody counts.
    pub port: u16,
    /// All secrets.
    pub secrets: Vec<Secret>,
    /// The vault's folder.
    pub vault: PathBuf,
    /// Where `bulkhead` speaks to the supervisor.
    pub supervisor: PathBuf,
    /// Where it speaks to the vault.
    pub vault_socket: PathBuf,
    /// A command of tier 3, which leaves a file in the workspace.
    pub command: String,
    /// A file of the workspace that is a secret.
    pub workspace_file: String,
}

/// A file and what it stands for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// What there is to lose.
    pub asset: Asset,
    /// Where.
    pub path: PathBuf,
}

/// A secret, as far as it is no secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub asset: Asset,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It went through.
    Through,
    /// It was refused.
    Refused,
    /// It was said, and is not answered; whether it had an effect is looked for afterwards.
    Said,
    /// Nobody knows: no answer came in time, or it could not be said.
    NotKnown,
}

/// What is only known when everything runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Later {
    /// The supervisor's process.
    pub supervisor: u32,
    /// Other processes: of Bulkhead, and one that is not confined.
    pub processes: Vec<u32>,
    /// Whose session is somebody else's, where there is one.
    pub sender: String,
    /// Its conversation.
    pub conversation: String,
    /// Its id.
    pub session: String,
    /// A call of tier 3 that waits for a yes.
    pub card: Option<ApprovalCard>,
    /// The token of a one-time link to the page.
    pub login: String,
}

/// Whoever says this to the model has it ask for a call of tier 2.
pub const ORDINARY: &str = "ordinary";
/// The same of tier 3.
pub const SERIOUS: &str = "serious";

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// Something was tried.
    Attempt {
        /// On what.
        asset: Asset,
        /// How.
        probe: String,
        /// What came of it.
        outcome: Outcome,
        /// What was answered.
        detail: String,
    },
    /// A text was seen that somebody laid out.
    Loot {
        /// Where.
        probe: String,
        /// It.
        text: String,
    },
    /// It wants to be let in as the owner, over Telegram.
    Knocked,
    /// As the owner it said yes to a call of tier 2, and that counted.
    Counted,
    /// Everything was tried but what may be the end of the program: nothing more is told.
    Done,
}

/// The file that is made in a folder to show that it can be written to.
pub const WRITTEN: &str = "intruder.txt";

/// How a text begins that is laid out to be found; [`CANARY_DIGITS`] hexadecimal digits follow.
pub const CANARY: &str = "canary-";

/// How many digits a laid-out text has.
pub const CANARY_DIGITS: usize = 32;

/// All laid-out texts in these bytes.
pub fn canaries(bytes: &[u8]) -> Vec<String> {
    let (mark, length) = (CANARY.as_bytes(), CANARY.len() + CANARY_DIGITS);
    let all = bytes.windows(length).filter(|text| {
        text.starts_with(mark) && text[mark.len()..].iter().all(u8::is_ascii_hexdigit)
    });
    let mut found: Vec<String> = all
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_laid_out_text_is_found_wherever_it_stands() {
        let one = format!("{CANARY}{}", "0123456789abcdef".repeat(2));
        let text = format!("x{one}{one}\0canary-0123 {one}");
        assert_eq!(canaries(text.as_bytes()), [one]);
        assert!(canaries(b"canary-").is_empty());
    }
}
