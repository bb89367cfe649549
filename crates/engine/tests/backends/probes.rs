//! All attacks of `bulkhead-probe` on a box of this backend, as `bulkhead sandbox probe` makes them.

use std::process::Command;

use serde::Deserialize;

use crate::Check;
use crate::host::{self, Host};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Refused { reason: String, fix: String },
    Findings(Vec<Finding>),
}

#[derive(Debug, Deserialize)]
struct Finding {
    probe: String,
    stopped: bool,
    control: bool,
    detail: String,
}

pub(crate) const CHECKS: &[Check] = &[(
    "every_attack_is_stopped_and_gets_through_outside",
    every_attack_is_stopped_and_gets_through_outside,
)];

/// There are more than so many.
const LEAST: usize = 100;

fn every_attack_is_stopped_and_gets_through_outside(host: &Host) {
    let backend = format!("{}:{}", host.backend.name(), host.socket.display());
    let output = Command::new(host::program("bulkhead-probe"))
        .args(["stage", "start"])
        .arg(host::program("bulkhead-sandbox"))
        .arg(host.folder.path().join("bulkhead.toml"))
        .args([&backend, "full"])
        .output()
        .unwrap();
    let told = serde_json::from_slice(&output.stdout);
    let findings = match told.unwrap_or_else(|error| panic!("{error}: {output:?}")) {
        Told::Findings(findings) => findings,
        Told::Refused { reason, fix } => panic!("{reason}; {fix}"),
    };
    assert!(findings.len() > LEAST, "{}", findings.len());
    for finding in &findings {
        let Finding {
            probe,
            stopped,
            control,
            detail,
        } = finding;
        assert!(
            *stopped && *control,
            "{probe}: stopped {stopped}, control {control}: {detail}"
        );
    }
}
