//! Ctrl-C and its kin, as messages.

use std::thread;

use crate::fault::Fault;

pub(crate) use sandbox::signals::Signal;

/// From now on the signals that ask to stop come to `told` instead of ending this process.
/// Call it before any thread is started.
pub(crate) fn listen(told: impl Fn(Signal) + Send + 'static) -> Result<(), Fault> {
    sandbox::signals::block_stop_signals().map_err(Fault::io("block signals"))?;
    thread::spawn(move || {
        while let Ok(signal) = sandbox::signals::wait_for_stop() {
            told(signal);
        }
    });
    Ok(())
}
