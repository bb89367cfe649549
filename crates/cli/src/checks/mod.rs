//! What `bulkhead doctor` looks at. Each check is a function; [`all`] is the list.

mod decoys;
mod egress;
mod history;
mod installation;
mod kernel;
mod listeners;
mod model;
mod tls;

use std::borrow::Cow;

use config::{Config, Home};
use serde::Serialize;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// As it should be.
    Ok,
    /// It works, but not as well or as safely as it could.
    Warn,
    /// It does not work.
    Fail,
}

/// A check and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// Its name; stable.
    pub(crate) check: Cow<'static, str>,
    /// What was found.
    pub(crate) status: Status,
    /// The facts.
    pub(crate) detail: String,
    /// What to do; empty where there is nothing to do.
    pub(crate) fix: String,
}

impl Check {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Status::Ok, detail, "")
    }

    fn warn(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(check, Status::Warn, detail, fix)
    }

    fn fail(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(check, Status::Fail, detail, fix)
    }

    fn new(
        check: impl Into<Cow<'static, str>>,
        status: Status,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            check: check.into(),
            status,
            detail: detail.into(),
            fix: fix.into(),
        }
    }
}

/// Carries out all of them, in the order in which one would put things right.
pub(crate) fn all(home: &Home) -> Vec<Check> {
    let config = Config::load(home);
    let mut checks = kernel::all();
    checks.extend([
        installation::programs(),
        installation::config(home, config.as_ref()),
        installation::folders(home),
        installation::keys(home),
        installation::vault_key(home),
        installation::vault(home),
        installation::disk(home),
        installation::ledger(home),
        decoys::halted(home),
        installation::running(home),
    ]);
    if let Ok(config) = &config {
        checks.push(history::history(home, config));
        checks.push(egress::rules(config));
        checks.push(tls::roots(config));
        checks.extend(model::all(config));
    }
    checks
}
