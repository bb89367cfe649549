//! Becoming the supervisor in a session of its own, so that closing the terminal does not
//! end it. A process that leads a group cannot begin a session, hence this step between.

use std::os::unix::process::CommandExt as _;

use super::{Context, up};
use crate::fault::Fault;

pub(crate) fn run(context: &Context) -> Result<(), Fault> {
    rustix::process::setsid().map_err(|error| Fault::io("begin a session")(error.into()))?;
    let error = up::supervisor(context)?.exec();
    Err(Fault::io("start bulkhead-supervisor")(error))
}
