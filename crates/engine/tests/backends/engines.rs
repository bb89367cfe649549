//! The engines that `tools/test-engines` starts.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Who runs what must work without being root.
pub(crate) const ORDINARY_USER: u32 = 4242;

/// An engine; it ends with this value, or with this process.
pub(crate) struct Engine {
    child: Child,
    /// The engine runs until it closes.
    stop: Option<ChildStdin>,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Engine {
    pub(crate) fn docker() -> Self {
        Self::start("docker", None)
    }

    pub(crate) fn podman() -> Self {
        Self::start("podman", None)
    }

    pub(crate) fn rootless_podman() -> Self {
        Self::start("podman", Some(ORDINARY_USER))
    }

    fn start(kind: &str, user: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        crate::host::open_to_all(folder.path());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/test-engines");
        let mut child = Command::new(script)
            .arg(kind)
            .arg(folder.path())
            .args(user.map(|user| user.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n", "no {kind}; its reason is above");
        Self {
            stop: child.stdin.take(),
            child,
            socket: folder.path().join("engine.sock"),
            _folder: folder,
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.child.wait().unwrap();
    }
}
