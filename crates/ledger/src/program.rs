//! `bulkhead-ledger --dir DIR`: the only writer and signer of the record.
//!
//! Security: holds the signing key and the only handle on the record that can write. Reads
//! frames of the gateway, egress and the vault, which are typed and bounded; what is in an
//! event is opaque to it. Has no network and no file outside its folder. Signs only forward:
//! there is no request that alters or removes a row.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use protocol::control::{Control, NoConfig, ProgramEnd, Report};
use protocol::frame::LinkError;
use sandbox::{Program, confine, files_of};

use crate::serve::Writer;
use crate::store::{Store, make_folder};

const USAGE: &str = "usage: bulkhead-ledger --dir DIR\nIt is started by bulkhead-supervisor, with its control link as standard input.";

/// The program. Exit codes: 0 stopped, 1 could not run, 2 wrong usage.
pub fn run() -> ExitCode {
    let Some(dir) = parse(std::env::args_os().skip(1).collect()) else {
        protocol::log!("{USAGE}");
        return ExitCode::from(2);
    };
    let control = match ProgramEnd::<NoConfig>::from_stdin() {
        Ok(control) => control,
        Err(error) => return give_up(&format!("standard input is not a control link: {error}")),
    };
    match serve(&control, &dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // If the supervisor is gone there is nobody to tell.
            let _ = control.send(&Report::Failed {
                reason: reason.clone(),
            });
            give_up(&reason)
        }
    }
}

fn give_up(reason: &str) -> ExitCode {
    protocol::log!("bulkhead-ledger: {reason}");
    ExitCode::FAILURE
}

fn parse(args: Vec<std::ffi::OsString>) -> Option<PathBuf> {
    match <[_; 2]>::try_from(args) {
        Ok([flag, dir]) if flag == "--dir" && !dir.is_empty() => Some(dir.into()),
        Ok(_) | Err(_) => None,
    }
}

fn serve(control: &ProgramEnd<NoConfig>, dir: &Path) -> Result<(), String> {
    make_folder(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let files = files_of(Program::Ledger, std::env::args_os().skip(1));
    let files = files.map_err(|error| error.to_string())?;
    confine(Program::Ledger, &files).map_err(|error| error.to_string())?;
    match control.start() {
        Ok(NoConfig {}) => {}
        Err(LinkError::Closed) => return Ok(()),
        Err(error) => return Err(format!("the supervisor did not say start: {error}")),
    }
    let store = Store::open(dir).map_err(|error| error.to_string())?;
    let mut writer =
        Writer::start(store).map_err(|error| format!("no thread for the record: {error}"))?;
    let ended = match control.send(&Report::Ready) {
        Ok(()) => take_links(control, &mut writer),
        Err(error) => Err(error),
    };
    writer.stop();
    match ended {
        // Stopped, or the supervisor is gone: the record is closed in order either way.
        Ok(()) | Err(LinkError::Closed) => Ok(()),
        Err(error) => Err(format!("the control link broke: {error}")),
    }
}

fn take_links(control: &ProgramEnd<NoConfig>, writer: &mut Writer) -> Result<(), LinkError> {
    let unexpected = |got| LinkError::OutOfOrder {
        expected: "link",
        got,
    };
    loop {
        match control.receive()? {
            (Control::Link { peer }, Some(fd)) => writer.serve(peer, fd.into())?,
            (Control::Link { .. }, None) => return Err(unexpected("a link without its socket")),
            (Control::Stop, _) => return Ok(()),
            (
                other @ (Control::Start { .. }
                | Control::Listener
                | Control::NoAgent { .. }
                | Control::Rules { .. }
                | Control::Frozen { .. }
                | Control::Resume { .. }),
                _,
            ) => {
                return Err(unexpected(other.name()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_the_only_argument() {
        let parse = |args: &[&str]| super::parse(args.iter().map(Into::into).collect());
        assert_eq!(parse(&["--dir", "/x"]), Some(PathBuf::from("/x")));
        for bad in [
            &[][..],
            &["--dir"],
            &["--dir", ""],
            &["/x"],
            &["--dir", "/x", "y"],
            &["--key", "/x"],
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
