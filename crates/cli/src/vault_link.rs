//! The vault, whether Bulkhead runs or not.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use config::{Home, OPERATOR, ensure_key, read_key};
use protocol::ids::ChannelId;
use protocol::vault::{KeySource, LockState, SecretText, Unlocking, VaultState};
use vault::client::{self, VaultClient, VaultError};

use crate::fault::Fault;
use crate::frozen::refuse_while_frozen;
use crate::{connect, keyring, programs, secrets, terminal};

/// The name of the credential in the folder that systemd names, as in `LoadCredential=`.
const CREDENTIAL: &str = "bulkhead-vault";

/// A vault that has taken this process for the operator.
pub(crate) struct VaultLink {
    client: VaultClient,
    /// The program, if it was started for this command alone.
    program: Option<Child>,
}

impl VaultLink {
    /// Connects to the vault that runs, or starts the program for one connection.
    pub(crate) fn open(home: &Home) -> Result<Self, Fault> {
        match Self::running(home) {
            Err(Fault::NotUp) => {}
            other => return other,
        }
        home.create()?;
        ensure_key(home, &operator()?)?;
        let (stream, program) = start(home)?;
        Self::prove(home, stream, Some(program))
    }

    /// Connects to the vault that runs; [`Fault::NotUp`] if none does.
    pub(crate) fn running(home: &Home) -> Result<Self, Fault> {
        // The socket is there, and whoever listens on it is not.
        refuse_while_frozen(home, "the vault stays closed")?;
        let stream = connect::socket(home, "vault.sock")?;
        Self::prove(home, stream, None)
    }

    /// The same as [`Self::open`], and its secrets can be reached: a vault that was started for
    /// this command is unlocked for it, with the passphrase in this file, or one that is asked for.
    pub(crate) fn unlocked(home: &Home, passphrase: Option<&Path>) -> Result<Self, Fault> {
        let mut link = Self::open(home)?;
        if link.program.is_some() {
            let state = link.state()?;
            if state.lock == LockState::Locked {
                let with = unlocking(&state, passphrase)?;
                link.ask(|vault| vault.unlock(with))?;
            }
        }
        Ok(link)
    }

    fn prove(home: &Home, stream: UnixStream, program: Option<Child>) -> Result<Self, Fault> {
        let key = read_key(home, &operator()?)?;
        let client = client::operator(stream, &key).map_err(fault)?;
        Ok(Self { client, program })
    }

    /// How the vault stands.
    pub(crate) fn state(&mut self) -> Result<VaultState, Fault> {
        self.ask(|vault| vault.state())
    }

    /// Asks the vault; its refusal is a fault.
    pub(crate) fn ask<T>(
        &mut self,
        ask: impl FnOnce(&mut VaultClient) -> Result<T, VaultError>,
    ) -> Result<T, Fault> {
        ask(&mut self.client).map_err(fault)
    }
}

impl Drop for VaultLink {
    fn drop(&mut self) {
        if let Some(program) = &mut self.program {
            // Every answer was durable before it came; nothing is lost by not waiting longer.
            drop(program.kill());
            drop(program.wait());
        }
    }
}

/// What opens a vault that stands so: from the keyring, from a file, or as a person types it.
pub(crate) fn unlocking(state: &VaultState, passphrase: Option<&Path>) -> Result<Unlocking, Fault> {
    let key = |key: SecretText| Unlocking::Key { key };
    match (state.key, &state.keyring_entry) {
        (KeySource::Passphrase, _) => match passphrase {
            Some(_) => secrets::of(passphrase, ""),
            None if terminal::can_ask() => terminal::ask_secret("Passphrase of the vault (not shown): "),
            None => Err(Fault::Refused(
                "the vault is locked, and there is nobody to ask for its passphrase; name a file with --passphrase-file"
                    .to_owned(),
            )),
        }
        .map(|passphrase| Unlocking::Passphrase { passphrase }),
        (KeySource::Keyring, Some(entry)) => keyring::read(entry).map(key),
        (KeySource::Credential, _) => {
            let path = credential().ok_or_else(|| {
                Fault::Refused(format!(
                    "the vault is locked under a credential of systemd, and there is none here; start Bulkhead as a \
                     service with LoadCredential={CREDENTIAL}:FILE"
                ))
            })?;
            secrets::of(Some(&path), "").map(key)
        }
        (KeySource::Keyring | KeySource::KeyFile, _) => Err(Fault::Unexpected("the vault")),
    }
}

/// The credential that systemd handed to this process, if it did (systemd.exec(5)).
pub(crate) fn credential() -> Option<PathBuf> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY")?;
    let path = Path::new(&folder).join(CREDENTIAL);
    path.is_file().then_some(path)
}

fn operator() -> Result<ChannelId, Fault> {
    ChannelId::parse(OPERATOR).map_err(|error| Fault::Usage(error.to_string()))
}

fn start(home: &Home) -> Result<(UnixStream, Child), Fault> {
    let (own, theirs) = UnixStream::pair().map_err(Fault::io("make a socket"))?;
    let mut command = Command::new(programs::path("bulkhead-vault")?);
    command
        .arg("--dir")
        .arg(home.vault())
        .arg("--operator-key-pub")
        .arg(home.keys().join(format!("{OPERATOR}.pub")))
        .arg("--once");
    if let Some(credential) = credential() {
        command.arg("--credential").arg(credential);
    }
    let program = command
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .map_err(Fault::io("start bulkhead-vault"))?;
    Ok((own, program))
}

fn fault(error: VaultError) -> Fault {
    Fault::Refused(error.to_string())
}
