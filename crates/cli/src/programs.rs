//! The other programs: they lie beside this one.

use std::path::PathBuf;

use crate::fault::Fault;

/// What has to lie beside `bulkhead`.
pub(crate) const ALL: [&str; 14] = [
    "bulkhead-supervisor",
    "bulkhead-ledger",
    "bulkhead-vault",
    "bulkhead-egress",
    "bulkhead-sandbox",
    "bulkhead-workspace",
    "bulkhead-engine",
    "bulkhead-tool",
    "bulkhead-probe",
    "bulkhead-intruder",
    "bulkhead-gateway",
    "bulkhead-agent",
    "bulkhead-channel-web",
    "bulkhead-channel-telegram",
];

/// Where this program is. Never looked for in PATH: another folder may be somebody else's.
pub(crate) fn path(name: &str) -> Result<PathBuf, Fault> {
    let own = std::env::current_exe().map_err(Fault::io("find out where this program lies"))?;
    let path = own.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Fault::Refused(format!(
        "{name} is missing; it has to lie beside {own:?}. Build all programs with \
         `cargo build --release --workspace --bins`, or install all of them into one folder"
    )))
}
