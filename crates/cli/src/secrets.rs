//! Values that are secret, on their way in: typed without being shown, or from a file or a
//! pipe; never from the command line, which every process of this machine can read.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::Path;

use protocol::vault::SecretText;

use crate::fault::Fault;
use crate::terminal;

/// Takes a secret or a passphrase from the file (`-` is standard input), from a person, or from a pipe.
pub(crate) fn of(file: Option<&Path>, question: &str) -> Result<SecretText, Fault> {
    match file {
        Some(path) if path == Path::new("-") => terminal::read_secret(io::stdin()),
        Some(path) => {
            let file = File::open(path).map_err(Fault::io(format!("read {path:?}")))?;
            terminal::read_secret(file).map_err(|fault| match fault {
                Fault::Usage(why) => Fault::Usage(format!("{path:?}: {why}")),
                other => other,
            })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_no_value_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words");
        for (text, why) in [
            (&b""[..], "empty"),
            (b"\n", "empty"),
            (b"\xff", "not UTF-8"),
        ] {
            std::fs::write(&path, text).unwrap();
            let said = of(Some(&path), "").err().unwrap().to_string();
            assert!(said.contains("words\": what was given is"), "{said}");
            assert!(said.contains(why), "{said}");
        }
    }
}
