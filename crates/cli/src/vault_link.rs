//! The vault, whether Bulkhead runs or not.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use config::{Home, OPERATOR, ensure_key, read_key};
use protocol::ids::ChannelId;
use vault::client::{self, VaultClient, VaultError};

use crate::fault::Fault;
use crate::frozen::refuse_while_frozen;
use crate::{connect, programs};

/// A vault that has taken this process for the operator.
pub(crate) struct VaultLink {
    client: VaultClient,
    /// The program, if it was started for this command alone.
    program: Option<Child>,
}

impl VaultLink {
    /// Connects to the vault that runs, or starts the program for one connection.
    pub(crate) fn open(home: &Home) -> Result<Self, Fault> {
        home.create()?;
        refuse_while_frozen(home, "the vault stays closed")?;
        let operator =
            ChannelId::parse(OPERATOR).map_err(|error| Fault::Usage(error.to_string()))?;
        ensure_key(home, &operator)?;
        let key = read_key(home, &operator)?;
        let (stream, program) = match connect::socket(home, "vault.sock") {
            Ok(stream) => (stream, None),
            Err(Fault::NotUp) => start(home)?,
            Err(fault) => return Err(fault),
        };
        let client = client::operator(stream, &key).map_err(fault)?;
        Ok(Self { client, program })
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

fn start(home: &Home) -> Result<(UnixStream, Option<Child>), Fault> {
    let (own, theirs) = UnixStream::pair().map_err(Fault::io("make a socket"))?;
    let program = Command::new(programs::path("bulkhead-vault")?)
        .arg("--dir")
        .arg(home.vault())
        .arg("--operator-key-pub")
        .arg(home.keys().join(format!("{OPERATOR}.pub")))
        .arg("--once")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .map_err(Fault::io("start bulkhead-vault"))?;
    Ok((own, Some(program)))
}

fn fault(error: VaultError) -> Fault {
    Fault::Refused(error.to_string())
}
