//! A network of the test's own: a namespace in which addresses that look public are on the loopback, names that
//! lead to them, and servers with certificates of an own authority.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::runtime::{Builder, Handle};

use crate::servers;

/// Two addresses that look public, and two that nothing may reach.
pub(crate) const ONE: &str = "93.184.216.34";
pub(crate) const TWO: &str = "93.184.216.35";
pub(crate) const METADATA: &str = "169.254.169.254";
pub(crate) const PRIVATE: &str = "10.11.12.13";

/// The names.
const HOSTS: &str = "\
127.0.0.1 localhost
93.184.216.34 plain.acme-widgets.com git.acme-widgets.com pypi.acme-widgets.com npm.acme-widgets.com
93.184.216.35 other.acme-widgets.com
169.254.169.254 meta.acme-widgets.com
10.11.12.13 inner.acme-widgets.com
";

const SCRIPT: &str = r#"
set -e
ip link set lo up
for address in 93.184.216.34 93.184.216.35 10.11.12.13 169.254.169.254; do
    ip address add "$address/32" dev lo
done
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/resolv.conf" /etc/resolv.conf
exec "$2" world "$3"
"#;

/// Runs this test in a namespace of its own. Whoever is not root gets a user namespace with it.
pub(crate) fn enter(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hosts"), HOSTS).unwrap();
    // Nobody answers there: what is not in the file is no name.
    let nobody = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
    std::fs::write(folder.path().join("resolv.conf"), nobody).unwrap();
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--propagation", "private"]);
    command.args(["sh", "-c", SCRIPT, "sh"]);
    command.arg(folder.path());
    command.arg(std::env::current_exe().unwrap()).arg(test);
    let status = command.status().unwrap();
    assert!(
        status.success(),
        "in its namespace `{test}` failed: {status}"
    );
}

/// The network.
pub(crate) struct World {
    /// The certificate of the servers' authority, in PEM.
    pub(crate) root: String,
    /// Where repositories are, on the host of git.
    pub(crate) repositories: tempfile::TempDir,
    pub(crate) heard: servers::Heard,
}

impl World {
    pub(crate) fn new() -> Self {
        let runtime = background();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().pem();
        let authority = Issuer::new(params, key);
        let repositories = tempfile::tempdir().unwrap();
        let heard = servers::start(&runtime, &authority, repositories.path());
        Self {
            root,
            repositories,
            heard,
        }
    }
}

fn background() -> Handle {
    let (send, receive) = channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        send.send(runtime.handle().clone()).unwrap();
        runtime.block_on(std::future::pending::<()>());
    });
    receive.recv().unwrap()
}

/// Runs a program of the host, which has to succeed.
pub(crate) fn on_the_host(folder: &Path, words: &[&str]) {
    let output = Command::new(words[0])
        .args(&words[1..])
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", folder)
        .env("GIT_AUTHOR_NAME", "a")
        .env("GIT_AUTHOR_EMAIL", "a@acme-widgets.com")
        .env("GIT_COMMITTER_NAME", "a")
        .env("GIT_COMMITTER_EMAIL", "a@acme-widgets.com")
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}
