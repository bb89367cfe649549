//! The keyring of the desktop, by `secret-tool` of libsecret.
//!
//! It speaks the Secret Service over D-Bus (GNOME Keyring, KWallet, KeePassXC), which no program of
//! Bulkhead has to then: the vault has no socket, and libraries for D-Bus bring an asynchronous
//! runtime with them. The key goes through pipes, never through an argument.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use protocol::ids::{hex, random};
use protocol::vault::SecretText;

use crate::fault::Fault;

/// Where it is looked for. Not in PATH: another folder may be somebody else's.
const PLACES: [&str; 3] = [
    "/usr/bin/secret-tool",
    "/usr/local/bin/secret-tool",
    "/run/current-system/sw/bin/secret-tool",
];

/// How long it may take; somebody may have to open the keyring first.
const LIMIT: Duration = Duration::from_secs(60);

/// The longest key in bytes.
const MAX_KEY: u64 = 4096;

/// A new key under a new name, kept and read back.
pub(crate) fn keep_new() -> Result<(String, SecretText), Fault> {
    let entry = format!("vault-{}", hex(&random::<8>()?));
    let key = SecretText::new(hex(&random::<32>()?));
    let mut command = tool()?;
    command.args(["store", "--label", "The key of Bulkhead's vault"]);
    let mut child = attributes(&mut command, &entry)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(Fault::io("start secret-tool"))?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(key.expose().as_bytes())
            .map_err(Fault::io("write to secret-tool"))?;
    }
    wait(&mut child, "did not keep the key")?;
    match read(&entry)?.expose() == key.expose() {
        true => Ok((entry, key)),
        false => Err(Fault::Refused(
            "the keyring gave back another key than it was given; nothing was changed".to_owned(),
        )),
    }
}

/// The key under this name.
pub(crate) fn read(entry: &str) -> Result<SecretText, Fault> {
    let mut command = tool()?;
    command.arg("lookup");
    let mut child = attributes(&mut command, entry)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Fault::io("start secret-tool"))?;
    let output = child.stdout.take();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        let read = output.map(|output| output.take(MAX_KEY).read_to_string(&mut text));
        (SecretText::new(text), read)
    });
    wait(&mut child, "has no such key, or is not open")?;
    match reader.join() {
        Ok((key, Some(Ok(_)))) if !key.expose().is_empty() => Ok(key),
        _ => Err(fault("gave no key")),
    }
}

/// Forgets the key under this name. That it stays does no harm: nothing is under it any more.
pub(crate) fn forget(entry: &str) {
    let Ok(mut command) = tool() else { return };
    command.arg("clear");
    let started = attributes(&mut command, entry)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    if let Ok(mut child) = started
        && wait(&mut child, "did not forget the old key").is_err()
    {
        eprintln!(
            "bulkhead: the old key stays in the keyring as {entry}; nothing is under it any more"
        );
    }
}

fn attributes<'a>(command: &'a mut Command, entry: &str) -> &'a mut Command {
    command.args(["application", "bulkhead", "entry", entry])
}

fn tool() -> Result<Command, Fault> {
    let place = PLACES
        .into_iter()
        .map(Path::new)
        .find(|path| path.is_file());
    let path: PathBuf = place.map(Path::to_owned).ok_or_else(|| {
        fault("cannot be asked without secret-tool; install it (Debian: libsecret-tools)")
    })?;
    Ok(Command::new(path))
}

fn wait(child: &mut Child, otherwise: &str) -> Result<(), Fault> {
    let start = Instant::now();
    loop {
        match child
            .try_wait()
            .map_err(Fault::io("wait for secret-tool"))?
        {
            Some(status) if status.success() => return Ok(()),
            Some(_) => return Err(fault(otherwise)),
            None if start.elapsed() > LIMIT => {
                // It may have ended by itself; then there is nothing to do.
                let _ = child.kill();
                let _ = child.wait();
                return Err(fault("did not answer within a minute"));
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn fault(what: &str) -> Fault {
    Fault::Refused(format!(
        "the keyring of the desktop {what}; see whether it is open, or use another way (`bulkhead vault protect --help`)"
    ))
}
