//! Values that are secret, on their way in: typed without being shown, or from a file or a
//! pipe; never from the command line, which every process of this machine can read.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::Path;

use protocol::vault::SecretText;

use crate::fault::Fault;
use crate::terminal;

/// Takes a secret from the file (`-` is standard input), from a person, or from a pipe.
pub(crate) fn of(file: Option<&Path>, question: &str) -> Result<SecretText, Fault> {
    match file {
        Some(path) if path == Path::new("-") => terminal::read_secret(io::stdin()),
        Some(path) => {
            let file = File::open(path).map_err(Fault::io(format!("read {path:?}")))?;
            terminal::read_secret(file)
        }
        None if io::stdin().is_terminal() => terminal::ask_secret(question),
        None => terminal::read_secret(io::stdin()),
    }
}

/// Takes a new passphrase: from the file, or typed twice alike.
pub(crate) fn new_passphrase(file: Option<&Path>, what: &str) -> Result<SecretText, Fault> {
    if file.is_some() {
        return of(file, "");
    }
    if !terminal::can_ask() {
        return Err(Fault::Usage(format!(
            "there is nobody to ask for the passphrase of {what}; name a file that has it"
        )));
    }
    let first = terminal::ask_secret(&format!("New passphrase of {what} (not shown): "))?;
    let again = terminal::ask_secret("The same once more: ")?;
    match first.expose() == again.expose() {
        true => Ok(first),
        false => Err(Fault::Usage(
            "the two were not the same; nothing was changed".to_owned(),
        )),
    }
}
