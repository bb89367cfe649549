//! `bulkhead down`: stop everything, in order.

use config::Home;

use crate::connect::Supervisor;
use crate::fault::Fault;
use crate::output;

pub(crate) fn run(home: &Home) -> Result<(), Fault> {
    match Supervisor::connect(home) {
        Ok(supervisor) => {
            supervisor.stop()?;
            output::line("Bulkhead is stopped.")
        }
        Err(Fault::NotUp) => output::line("Bulkhead is not running."),
        Err(fault) => Err(fault),
    }
}
