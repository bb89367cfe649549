//! Where the configuration, the data and the sockets are.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use protocol::ids::Digest;

/// The folders of the programs, below the data folder.
const ROOMS: [&str; 7] = [
    "keys", "ledger", "vault", "gateway", "history", "telegram", "log",
];

/// A folder beside this one, and on the same file system unless something is mounted just there. None beside
/// a root.
pub fn history_beside(workspace: &Path) -> Option<PathBuf> {
    let real = workspace.canonicalize().ok()?;
    let name = Digest::of(real.as_os_str().as_bytes()).to_string();
    Some(real.parent()?.join(format!(".bulkhead-{}", &name[..16])))
}

/// The folders of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    config: PathBuf,
    data: PathBuf,
    run: PathBuf,
}

/// Why there is no home.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Nothing says where it should be.
    #[error("neither --home, BULKHEAD_HOME nor HOME is set; set one of them to a folder")]
    Nowhere,
    /// A relative path would mean another place for each program.
    #[error("the home {0:?} is not an absolute path")]
    Relative(PathBuf),
    /// A folder cannot be made or is not a folder.
    #[error("cannot make the folder {path:?}: {error}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Somebody else could read or change what is in it.
    #[error("the folder {0:?} is open to others; run: chmod 700 {0:?}")]
    OpenToOthers(PathBuf),
}

impl Home {
    /// Everything below one folder.
    pub fn at(folder: &Path) -> Result<Self, HomeError> {
        if !folder.is_absolute() {
            return Err(HomeError::Relative(folder.to_owned()));
        }
        Ok(Self {
            config: folder.to_owned(),
            data: folder.to_owned(),
            run: folder.join("run"),
        })
    }

    /// The first that there is of: `chosen` (`--home`), `BULKHEAD_HOME`, an existing
    /// `~/.bulkhead`, the folders of the XDG Base Directory Specification. A relative folder
    /// is taken below the current one.
    pub fn find(
        chosen: Option<&Path>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, HomeError> {
        let set = |name: &str| {
            env(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        if let Some(folder) = chosen.map(Path::to_owned).or_else(|| set("BULKHEAD_HOME")) {
            let folder = std::path::absolute(&folder).map_err(|error| HomeError::Folder {
                path: folder,
                error,
            })?;
            return Self::at(&folder);
        }
        let user = set("HOME").ok_or(HomeError::Nowhere)?;
        let dotted = user.join(".bulkhead");
        if dotted.is_dir() {
            return Self::at(&dotted);
        }
        let xdg = |name: &str, default: &str| {
            set(name)
                .filter(|path| path.is_absolute())
                .unwrap_or_else(|| user.join(default))
                .join("bulkhead")
        };
        let data = xdg("XDG_DATA_HOME", ".local/share");
        let run = match set("XDG_RUNTIME_DIR") {
            Some(folder) if folder.is_absolute() => folder.join("bulkhead"),
            _ => data.join("run"),
        };
        Ok(Self {
            config: xdg("XDG_CONFIG_HOME", ".config"),
            data,
            run,
        })
    }

    /// Makes the folders that are missing, for the owner alone, and refuses ones that are
    /// open to others.
    pub fn create(&self) -> Result<(), HomeError> {
        let folders = [&self.config, &self.data, &self.run];
        let rooms = ROOMS.map(|name| self.data.join(name));
        for path in folders.into_iter().chain(&rooms) {
            let failed = |error| HomeError::Folder {
                path: path.clone(),
                error,
            };
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(failed)?;
            let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(HomeError::OpenToOthers(path.clone()));
            }
        }
        Ok(())
    }

    /// `bulkhead.toml`.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("bulkhead.toml")
    }

    /// The owner's Cedar files, beside the configuration.
    pub fn rules(&self) -> PathBuf {
        self.config.join("rules")
    }

    /// Identity keys: `NAME.key` and `NAME.pub`.
    pub fn keys(&self) -> PathBuf {
        self.data.join("keys")
    }

    /// The ledger's folder: `ledger.db`, `ledger.key`, `ledger.pub`.
    pub fn ledger(&self) -> PathBuf {
        self.data.join("ledger")
    }

    /// The vault's folder.
    pub fn vault(&self) -> PathBuf {
        self.data.join("vault")
    }

    /// The gateway's folder.
    pub fn gateway(&self) -> PathBuf {
        self.data.join("gateway")
    }

    /// Where the layers and the history of this workspace are: with the other data, or beside the
    /// workspace if the data is on another file system, since what is kept is moved and not copied.
    pub fn history_of(&self, workspace: &Path) -> PathBuf {
        let own = self.history();
        let device = |path: &Path| fs::metadata(path).ok().map(|data| data.dev());
        match (device(workspace), device(&self.data)) {
            (Some(there), Some(here)) if there != here => history_beside(workspace).unwrap_or(own),
            (_, _) => own,
        }
    }

    /// The folder of what container engines are given as files.
    pub fn engine(&self) -> PathBuf {
        self.data.join("engine")
    }

    /// Tells this installation from others, for what it leaves in container engines.
    pub fn digest(&self) -> Digest {
        Digest::of(self.data.as_os_str().as_bytes())
    }

    /// The folder of the workspace's layers and history.
    pub fn history(&self) -> PathBuf {
        self.data.join("history")
    }

    /// The folders and the files that no tool may reach.
    pub fn own(&self) -> Vec<PathBuf> {
        let rooms = ROOMS.map(|name| self.data.join(name));
        let others = [
            self.run.clone(),
            self.config_file(),
            self.rules(),
            self.freeze_mark(),
            self.freeze_spare(),
        ];
        rooms.into_iter().chain(others).collect()
    }

    /// The mark of a freeze: while it is there, everything starts frozen.
    pub fn freeze_mark(&self) -> PathBuf {
        self.data.join("frozen")
    }

    /// What becomes that mark: it has its room on the disk already.
    pub fn freeze_spare(&self) -> PathBuf {
        self.data.join("frozen.spare")
    }

    /// What the program that makes boxes does not see, which sees all else: everything of [`Self::own`] but the
    /// layers, which it lays into boxes.
    pub fn hidden_from_the_runner(&self) -> Vec<PathBuf> {
        let history = self.history();
        let own = self.own().into_iter();
        own.filter(|path| *path != history).collect()
    }

    /// The folder of the Telegram channel's own state.
    pub fn telegram(&self) -> PathBuf {
        self.data.join("telegram")
    }

    /// The folder of the logs of `up --detach`.
    pub fn log(&self) -> PathBuf {
        self.data.join("log")
    }

    /// Where the workspace is, if the configuration does not say.
    pub fn default_workspace(&self) -> PathBuf {
        self.data.join("workspace")
    }

    /// The folder of the sockets `supervisor.sock`, `operator.sock` and `vault.sock`.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Listens on a socket in the run folder, however long its path is. A socket that nobody
    /// listens on any more is replaced; one with a listener is [`io::ErrorKind::AddrInUse`].
    pub fn listen(&self, name: &str) -> io::Result<UnixListener> {
        if self.connect(name).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        match fs::remove_file(self.run.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let folder = File::open(&self.run)?;
        UnixListener::bind(through(&folder, name))
    }

    /// Connects to a socket in the run folder.
    pub fn connect(&self, name: &str) -> io::Result<UnixStream> {
        let folder = File::open(&self.run)?;
        UnixStream::connect(through(&folder, name))
    }
}

/// A socket's address has at most 108 bytes (unix(7)); a path through the open folder is short.
fn through(folder: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| OsString::from(v))
        }
    }

    #[test]
    fn the_nearest_word_on_the_home_wins() {
        let pairs = [("HOME", "/nowhere/u"), ("BULKHEAD_HOME", "/b")];
        assert_eq!(
            Home::find(Some(Path::new("/a")), env(&pairs))
                .unwrap()
                .config,
            Path::new("/a")
        );
        assert_eq!(Home::find(None, env(&pairs)).unwrap().data, Path::new("/b"));
        let xdg = Home::find(
            None,
            env(&[("HOME", "/nowhere/u"), ("XDG_RUNTIME_DIR", "/run/u")]),
        )
        .unwrap();
        assert_eq!(
            xdg.config_file(),
            Path::new("/nowhere/u/.config/bulkhead/bulkhead.toml")
        );
        assert_eq!(
            xdg.keys(),
            Path::new("/nowhere/u/.local/share/bulkhead/keys")
        );
        assert_eq!(xdg.run(), Path::new("/run/u/bulkhead"));
        assert!(matches!(
            Home::find(None, env(&[])),
            Err(HomeError::Nowhere)
        ));
    }

    #[test]
    fn folders_are_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("home")).unwrap();
        home.create().unwrap();
        home.create().unwrap();
        fs::set_permissions(home.keys(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(home.create(), Err(HomeError::OpenToOthers(path)) if path == home.keys()));
    }

    #[test]
    fn sockets_work_below_a_very_long_path_and_stale_ones_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("x".repeat(200))).unwrap();
        home.create().unwrap();
        let listener = home.listen("operator.sock").unwrap();
        home.connect("operator.sock").unwrap();
        assert_eq!(
            home.listen("operator.sock").unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(listener);
        assert!(home.connect("operator.sock").is_err());
        home.listen("operator.sock").unwrap();
    }
}
