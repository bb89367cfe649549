//! How a channel's program starts, and what the supervisor hands it while it runs.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use protocol::control::{ChannelConfig, Control, Peer, ProgramEnd, Report};
use protocol::frame::LinkError;
use protocol::identity::IdentityKey;
use protocol::ids::unhex;
use sandbox::{ConfineError, Files, Program};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

/// Control frames that wait to be handled; the supervisor waits while they are not.
const CONTROL_QUEUE: usize = 8;

/// Why a channel's program cannot start. The text goes to the supervisor and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Wrong usage; programs are started by the supervisor only.
    #[error("wrong arguments: {0}; bulkhead-supervisor starts this program, nobody else")]
    Arguments(String),
    /// The key file cannot be read.
    #[error(
        "cannot read the identity key {path}: {error}; `bulkhead up` makes a new one if the file is gone"
    )]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The key file holds something else.
    #[error("{0} is not an identity key: it has to hold 64 lower-case hexadecimal digits")]
    NotAKey(PathBuf),
    /// A layer of the confinement is missing.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// The control link does not work.
    #[error("the link to the supervisor: {0}")]
    Control(#[from] LinkError),
    /// No runtime or no thread.
    #[error("the system gave no resources: {0}")]
    System(#[from] io::Error),
    /// The configuration is that of another platform.
    #[error("this program does not serve the platform of channel {0}")]
    OtherPlatform(protocol::ids::ChannelId),
}

/// What a channel's program has once it is confined and told its configuration.
#[derive(Debug)]
pub struct Started {
    /// Proves to the gateway who this is.
    pub key: Key,
    /// Which channel this is, and where its platform is.
    pub config: ChannelConfig,
    /// What comes from the supervisor.
    pub control: ControlEvents,
}

/// The identity key, kept from debug output.
pub struct Key(pub IdentityKey);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Reads the key, confines the program, and waits for its configuration. A failure is also
/// reported to the supervisor, which then does not start the program again.
///
/// The key is read before it is confined; afterwards the program opens no file.
pub fn start(program: Program, key: &Path) -> Result<Started, StartError> {
    let control = ProgramEnd::from_stdin()?;
    start_over(control, program, key)
}

fn start_over(
    control: ProgramEnd<ChannelConfig>,
    program: Program,
    key: &Path,
) -> Result<Started, StartError> {
    let confined = read_key(key).and_then(|key| {
        sandbox::confine(program, &Files::default())?;
        Ok(key)
    });
    match confined {
        Err(error) => {
            // If the report does not get through, the exit status still does.
            let _ = control.send(&Report::Failed {
                reason: error.to_string(),
            });
            Err(error)
        }
        Ok(key) => {
            let config = control.start()?;
            Ok(Started {
                key: Key(key),
                config,
                control: ControlEvents::new(control)?,
            })
        }
    }
}

/// The values of options that each take a path and are all needed, in the order of `names`.
pub fn path_options<const N: usize>(
    arguments: impl IntoIterator<Item = OsString>,
    names: [&str; N],
) -> Result<[PathBuf; N], StartError> {
    let mut values: [Option<PathBuf>; N] = [const { None }; N];
    let mut arguments = arguments.into_iter();
    while let Some(name) = arguments.next() {
        let unknown = || StartError::Arguments(format!("unknown option {}", name.display()));
        let at = names
            .iter()
            .position(|known| name == **known)
            .ok_or_else(unknown)?;
        let value = arguments
            .next()
            .ok_or_else(|| StartError::Arguments(format!("{} takes a path", names[at])))?;
        if values[at].replace(value.into()).is_some() {
            return Err(StartError::Arguments(format!(
                "{} is given twice",
                names[at]
            )));
        }
    }
    if let Some(at) = values.iter().position(Option::is_none) {
        return Err(StartError::Arguments(format!("{} is missing", names[at])));
    }
    Ok(values.map(Option::unwrap_or_default))
}

/// The seed of RFC 8032 as 64 hexadecimal digits, with or without a newline at the end.
fn read_key(path: &Path) -> Result<IdentityKey, StartError> {
    let mut text = Zeroizing::new(String::with_capacity(128));
    let read = File::open(path).and_then(|file| file.take(66).read_to_string(&mut text));
    read.map_err(|error| StartError::KeyFile {
        path: path.to_owned(),
        error,
    })?;
    let bytes = unhex(text.trim_end_matches('\n')).map(Zeroizing::new);
    let seed = bytes
        .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok())
        .map(Zeroizing::new);
    match seed {
        Some(seed) => Ok(IdentityKey::from_seed(&seed)),
        None => Err(StartError::NotAKey(path.to_owned())),
    }
}

/// What the supervisor hands over or wants.
#[derive(Debug)]
pub enum ControlEvent {
    /// A link to the gateway; it replaces the one before.
    Gateway(UnixStream),
    /// A link to egress; it replaces the one before.
    Egress(UnixStream),
    /// A link to the vault; it replaces the one before.
    Vault(UnixStream),
    /// The socket to listen on; not yet non-blocking.
    Listener(TcpListener),
    /// Finish what cannot wait, and end.
    Stop,
}

/// The control link as an asynchronous stream.
#[derive(Debug)]
pub struct ControlEvents {
    reports: ProgramEnd<ChannelConfig>,
    events: mpsc::Receiver<Result<ControlEvent, LinkError>>,
}

impl ControlEvents {
    /// Reads the link in a thread of its own, since descriptors come with its frames.
    fn new(control: ProgramEnd<ChannelConfig>) -> Result<Self, StartError> {
        let reports = control.try_clone()?;
        let (sender, events) = mpsc::channel(CONTROL_QUEUE);
        let reader = std::thread::Builder::new()
            .name("control".to_owned())
            .stack_size(256 * 1024);
        reader.spawn(move || {
            loop {
                let event = control
                    .receive()
                    .and_then(|(frame, fd)| understand(frame, fd));
                let ended = event.is_err();
                if sender.blocking_send(event).is_err() || ended {
                    return;
                }
            }
        })?;
        Ok(Self { reports, events })
    }

    /// Waits for the next. An error means that the supervisor is gone, or is not one: end.
    /// Safe to cancel.
    pub async fn next(&mut self) -> Result<ControlEvent, LinkError> {
        self.events.recv().await.unwrap_or(Err(LinkError::Closed))
    }

    /// Tells the supervisor something.
    pub fn report(&self, report: &Report) -> Result<(), LinkError> {
        self.reports.send(report)
    }
}

fn understand(
    frame: Control<ChannelConfig>,
    fd: Option<OwnedFd>,
) -> Result<ControlEvent, LinkError> {
    let wrong = |got| LinkError::OutOfOrder {
        expected: "link, listener or stop",
        got,
    };
    let name = frame.name();
    match (frame, fd) {
        (
            Control::Link {
                peer: Peer::Gateway,
            },
            Some(fd),
        ) => Ok(ControlEvent::Gateway(fd.into())),
        (Control::Link { peer: Peer::Egress }, Some(fd)) => Ok(ControlEvent::Egress(fd.into())),
        (Control::Link { peer: Peer::Vault }, Some(fd)) => Ok(ControlEvent::Vault(fd.into())),
        (
            Control::Link {
                peer:
                    Peer::Gateway
                    | Peer::Egress
                    | Peer::Vault
                    | Peer::Ledger
                    | Peer::Sandbox
                    | Peer::Workspace
                    | Peer::Channel(_)
                    | Peer::Agent(_),
            },
            _,
        ) => Err(wrong("a link that a channel does not have")),
        (Control::Listener, Some(fd)) => Ok(ControlEvent::Listener(fd.into())),
        (Control::Stop, None) => Ok(ControlEvent::Stop),
        (
            Control::Listener
            | Control::Stop
            | Control::Start { .. }
            | Control::NoAgent { .. }
            | Control::Rules { .. }
            | Control::Frozen { .. }
            | Control::Resume { .. },
            _,
        ) => Err(wrong(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn options_are_all_needed_and_nothing_else_is_taken() {
        let [key, dir] = path_options(words("--dir d --key k"), ["--key", "--dir"]).unwrap();
        assert_eq!((key, dir), (PathBuf::from("k"), PathBuf::from("d")));
        for wrong in [
            "",
            "--key",
            "--key k",
            "--key k --key k",
            "--key k --dir d --x y",
            "k",
        ] {
            let result = path_options(words(wrong), ["--key", "--dir"]);
            assert!(
                matches!(result, Err(StartError::Arguments(_))),
                "{wrong:?}: {result:?}"
            );
        }
    }

    #[test]
    fn only_a_seed_in_hexadecimal_is_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.key");
        assert!(matches!(read_key(&path), Err(StartError::KeyFile { .. })));
        for wrong in ["", "00", &"0".repeat(65), &"G".repeat(64), &"0".repeat(66)] {
            std::fs::write(&path, wrong).unwrap();
            assert!(
                matches!(read_key(&path), Err(StartError::NotAKey(_))),
                "{wrong:?}"
            );
        }
        std::fs::write(&path, format!("{}\n", "07".repeat(32))).unwrap();
        assert_eq!(
            read_key(&path).unwrap().public(),
            IdentityKey::from_seed(&[7; 32]).public()
        );
    }

    #[test]
    fn a_start_that_fails_is_reported() {
        let (supervisor, program) = UnixStream::pair().unwrap();
        let result = start_over(
            ProgramEnd::new(program),
            Program::ChannelWeb,
            Path::new("/nowhere/key"),
        );
        assert!(matches!(result, Err(StartError::KeyFile { .. })));
        let report: Report = protocol::frame::read(&supervisor).unwrap();
        assert!(matches!(report, Report::Failed { reason } if reason.contains("/nowhere/key")));
    }

    #[test]
    fn a_frame_without_its_socket_or_for_others_is_out_of_order() {
        for frame in [
            Control::Link {
                peer: Peer::Gateway,
            },
            Control::Link { peer: Peer::Ledger },
            Control::Listener,
        ] {
            assert!(understand(frame, None).is_err());
        }
        let (socket, _other) = UnixStream::pair().unwrap();
        assert!(
            understand(
                Control::Link {
                    peer: Peer::Sandbox
                },
                Some(socket.into())
            )
            .is_err()
        );
        assert!(matches!(
            understand(Control::Stop, None),
            Ok(ControlEvent::Stop)
        ));
    }
}
