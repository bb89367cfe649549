//! `bulkhead sandbox probe`: attacks on a box on this very machine. No server is needed.
//!
//! The attacks and what there is to reach are the program `bulkhead-probe`, so that this one, which may
//! hold a person's terminal and environment, plays no part in them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;
use config::Home;
use protocol::runner::Backend;
use sandbox::probes::stage::{Finding, Told};

use super::Kind;
use crate::fault::Fault;
use crate::{output, programs};

/// What can be said with `sandbox probe`.
#[derive(Debug, Args)]
pub(super) struct Attack {
    /// Print one line of JSON: a list with what came of each attack.
    #[arg(long)]
    json: bool,
    /// Which kind of box. One that is not to be had is never replaced by another.
    #[arg(long, default_value = "native")]
    backend: Kind,
    /// Where the container engine listens; otherwise in the usual places.
    #[arg(long, value_name = "SOCKET")]
    engine_socket: Option<PathBuf>,
}

/// Attacks, and fails if one gets through or a test turns out to be blind.
pub(super) fn run(attack: &Attack, home: &Home) -> Result<(), Fault> {
    let findings = findings(attack, home)?;
    match attack.json {
        true => output::json(&findings)?,
        false => show(&findings)?,
    }
    let sound = findings.iter().all(|it| it.stopped && it.control);
    if sound { Ok(()) } else { Err(Fault::Said) }
}

fn findings(attack: &Attack, home: &Home) -> Result<Vec<Finding>, Fault> {
    let backend = Backend::from(attack.backend).name().to_owned();
    let backend = match &attack.engine_socket {
        Some(socket) => format!("{backend}:{}", socket.display()),
        None => backend,
    };
    let program = programs::path("bulkhead-probe")?;
    let done = Command::new(&program)
        .args(["stage", "start"])
        .arg(programs::path("bulkhead-sandbox")?)
        .arg(home.config_file())
        .args([&backend, "full"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(Fault::io(format!("start {program:?}")))?;
    match serde_json::from_slice(&done.stdout) {
        Ok(Told::Findings(findings)) if !findings.is_empty() => Ok(findings),
        Ok(Told::Findings(_)) | Err(_) => Err(Fault::Refused(format!(
            "bulkhead-probe told nothing and ended with {}; its own words are above",
            done.status
        ))),
        Ok(Told::Refused { reason, fix }) => Err(Fault::Refused(format!("{reason}. {fix}"))),
    }
}

fn show(findings: &[Finding]) -> Result<(), Fault> {
    let rows: Vec<[String; 4]> = findings.iter().map(row).collect();
    output::table(["probe", "box", "control", "stopped by"], &rows)?;
    let (through, blind): (Vec<_>, Vec<_>) = (
        findings.iter().filter(|it| !it.stopped).collect(),
        findings.iter().filter(|it| !it.control).collect(),
    );
    for finding in findings.iter().filter(|it| !it.stopped || !it.control) {
        output::line(format!("\n{}: {}", finding.probe, finding.detail))?;
    }
    output::line(format!(
        "\n{} attacks: {} stopped, {} got through; {} tests are blind",
        findings.len(),
        findings.len() - through.len(),
        through.len(),
        blind.len()
    ))
}

fn row(finding: &Finding) -> [String; 4] {
    let word = |good: bool, yes: &str, no: &str| if good { yes } else { no }.to_owned();
    [
        finding.probe.clone(),
        word(finding.stopped, "stopped", "GOT THROUGH"),
        word(finding.control, "seen", "BLIND"),
        finding.mechanism.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_has_five_keys() {
        let finding = Finding {
            probe: "mount".to_owned(),
            mechanism: "seccomp".to_owned(),
            stopped: true,
            control: true,
            detail: "box: EPERM".to_owned(),
        };
        let form = serde_json::to_value([&finding]).unwrap();
        let mut keys: Vec<_> = form[0].as_object().unwrap().keys().cloned().collect();
        keys.sort_unstable();
        assert_eq!(keys, ["control", "detail", "mechanism", "probe", "stopped"]);
        assert_eq!(row(&finding)[1..3], ["stopped", "seen"]);
    }
}
