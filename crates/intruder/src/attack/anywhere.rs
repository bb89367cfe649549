//! What an attacker tries wherever it is.

use protocol::frame;
use protocol::ids::SecretName;
use protocol::supervisor::SupervisorRequest;
use protocol::vault::SecretText;
use rustix::process::Pid;
use sandbox::others::{self, WAYS};
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use vault::client::VaultError;
use vault::{Store, VaultClient};

use super::Attacker;
use super::report::Reporter;
use super::wire::{ANSWER, broken};
use crate::scene::WRITTEN;
use crate::table::Asset;

/// The most that is read of a file.
const MOST: u64 = 4 * 1024 * 1024;

/// Files, the network, other processes, the supervisor.
pub(super) fn attack(attacker: &Attacker) {
    let reporter = &attacker.reporter;
    for target in &attacker.scene.read {
        let probe = format!("read {}", name(&target.path));
        let bytes = read(&target.path);
        reporter.attempt(target.asset, &probe, &bytes);
        reporter.look(&probe, bytes.as_deref().unwrap_or_default());
    }
    for target in &attacker.scene.write {
        let probe = format!("write {}", name(&target.path));
        reporter.attempt(target.asset, &probe, &write(&target.path));
    }
    open_the_vault(attacker);
    ask_over_the_vaults_socket(attacker);
    connect(attacker.scene.port, reporter);
    processes(attacker);
    let asked = speak_to_the_supervisor(&attacker.scene.supervisor);
    reporter.attempt(Asset::Supervisor, "ask over its socket", &asked);
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().display().to_string()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    match bytes.is_empty() {
        true => Err(io::Error::other("it is empty")),
        false => Ok(bytes),
    }
}

/// Opens a file for writing, or makes one in a folder; what is there stays as it is.
fn write(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true);
    match path.extension() {
        // A device that covers it is not it.
        Some(_) => match options.open(path)?.metadata()?.is_file() {
            true => Ok(()),
            false => Err(io::Error::other("something else lies there")),
        },
        None => options.create_new(true).open(path.join(WRITTEN)).map(drop),
    }
}

/// As the vault does: with its key and its file.
fn open_the_vault(attacker: &Attacker) {
    let store = Store::open(&attacker.scene.vault).map_err(io::Error::other);
    attacker
        .reporter
        .attempt(Asset::VaultFile, "open the vault with its key", &store);
    let Ok(store) = store else { return };
    let secrets = attacker.scene.secrets.iter();
    for name in secrets.filter_map(|secret| SecretName::parse(secret.name.clone()).ok()) {
        if let Ok(value) = store.reveal(&name) {
            let probe = "open the vault with its key";
            attacker.reporter.look(probe, value.expose().as_bytes());
        }
    }
}

/// As a channel's program would over its link; the vault wants a proof there first.
fn ask_over_the_vaults_socket(attacker: &Attacker) {
    for secret in &attacker.scene.secrets {
        let Ok(name) = SecretName::parse(secret.name.clone()) else {
            continue;
        };
        let probe = format!("ask the vault's socket for {name}");
        let value = UnixStream::connect(&attacker.scene.vault_socket)
            .and_then(|stream| opened(VaultClient::new(stream).open(&name)));
        let reporter = &attacker.reporter;
        reporter.attempt(secret.asset, &probe, &value);
        if let Ok(value) = value {
            reporter.look(&probe, value.expose().as_bytes());
        }
    }
}

/// What the vault says, with its silence told from its no.
pub(super) fn opened(value: Result<SecretText, VaultError>) -> io::Result<SecretText> {
    value.map_err(|error| match error {
        VaultError::Link(error) => broken(error),
        other => io::Error::other(other),
    })
}

fn connect(port: u16, reporter: &Reporter) {
    let four = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let tcp = TcpStream::connect_timeout(&four, ANSWER);
    reporter.attempt(Asset::NetworkHost, "connect by TCP", &tcp);
    let udp =
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| socket.send_to(b"x", four));
    reporter.attempt(Asset::NetworkHost, "send by UDP", &udp);
    let six = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0));
    reporter.attempt(Asset::NetworkHost, "take a port by IPv6", &six);
}

fn processes(attacker: &Attacker) {
    let others = attacker.later.processes.iter();
    let others = others.filter(|pid| **pid != std::process::id());
    let others = others.map(|pid| (Asset::OtherProcess, *pid));
    let all = others.chain([(Asset::Supervisor, attacker.later.supervisor)]);
    for (asset, number) in all {
        let Some(pid) = i32::try_from(number).ok().and_then(Pid::from_raw) else {
            continue;
        };
        for way in WAYS {
            let probe = format!("{way:?} of a process");
            attacker
                .reporter
                .attempt(asset, &probe, &others::reach(pid, way));
        }
    }
}

fn speak_to_the_supervisor(socket: &Path) -> io::Result<()> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    frame::write(&stream, &SupervisorRequest::Status).map_err(broken)?;
    frame::read::<serde_json::Value>(&stream)
        .map(drop)
        .map_err(broken)
}
