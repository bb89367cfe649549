//! `bulkhead-gateway --check-rules`: whether the owner's rules can be used, for the supervisor, which
//! so has no reader of rules in its own memory. One look, confined, without any file.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use protocol::rules::{MAX_RULE_FILE, MAX_RULE_FILES, OwnerRules, RulesCheck};
use sandbox::{Files, Program, confine};

/// The most that is read, in bytes: every byte of a file may be six in JSON, and the easy rules
/// come from a file of at most 256 KiB.
const MOST: u64 = (6 * MAX_RULE_FILES * MAX_RULE_FILE + (2 << 20)) as u64;

/// Reads the rules from standard input and says what they are.
pub(super) fn main() -> ExitCode {
    match check() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            protocol::log!("bulkhead-gateway: the rules were not checked: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<(), String> {
    confine(Program::Gateway, &Files::default()).map_err(|error| error.to_string())?;
    let mut json = Vec::new();
    std::io::stdin()
        .take(MOST)
        .read_to_end(&mut json)
        .map_err(|error| error.to_string())?;
    let rules: OwnerRules = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
    let said = match policy::Rules::load(&rules) {
        Ok(_) => RulesCheck::Sound,
        Err(error) => RulesCheck::Broken {
            reason: error.to_string(),
        },
    };
    let mut line = serde_json::to_vec(&said).map_err(|error| error.to_string())?;
    line.push(b'\n');
    std::io::stdout()
        .write_all(&line)
        .map_err(|error| error.to_string())
}
