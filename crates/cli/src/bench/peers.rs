//! What others have: the same program with the same restrictions, as far as they have them, where they are
//! there and work. What is not is named; nothing is installed, and nothing downloaded.
//!
//! All of them get the host's `/usr`, as a box does; engines get an image of a few names besides, which is
//! removed afterwards.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use protocol::ids::{hex, random};
use serde_json::{Value, json};

use super::Table;
use super::boxes::BoxExtent;
use super::measure::Measure;
use super::rig::Rig;
use crate::fault::Fault;

/// Folders of the host's root that lead into `/usr`.
const USR_PARTS: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// What the root of a container needs besides, to mount on.
const PLACES: [&str; 7] = ["usr", "tmp", "proc", "dev", "sys", "etc", "work"];
/// The user inside, as in a box.
const INSIDE: &str = "1000";
/// What of a failure's words is shown, in characters.
const MAX_WORDS: usize = 160;

/// A program that runs `/bin/true` with restrictions.
struct Peer {
    name: &'static str,
    command: Vec<OsString>,
    /// What it reads.
    input: Option<PathBuf>,
    kind: Kind,
    how: &'static str,
}

/// How it is compared.
enum Kind {
    /// It takes milliseconds, as a box does: the figure's name.
    Program(&'static str),
    /// It takes much longer: the names of the figures, against a box that is ready and one that is not.
    Engine([&'static str; 2]),
}

/// Measures those that work in turn with boxes, and tells of all.
pub(super) fn measure(
    folder: &Path,
    extent: BoxExtent,
    docker: Option<&Path>,
) -> Result<(Vec<Measure>, Table), Fault> {
    let place = Place::make(folder)?;
    let rigs = [
        Rig::start(&folder.join("for-cold"), 1, 0)?,
        Rig::start(&folder.join("for-ready"), 1, 1)?,
    ];
    let (mut measures, mut notes) = (Vec::new(), Vec::new());
    let mut compare = |peer: &Peer| {
        let said = match peer.run() {
            Ok(_) => {
                measures.extend(peer.measure(&rigs, extent)?);
                format!("{}: {}", peer.version(), peer.how)
            }
            Err(why) => format!("not compared: {why}"),
        };
        notes.push([peer.name.to_owned(), said]);
        Ok::<(), Fault>(())
    };
    for peer in programs(&place)? {
        compare(&peer)?;
    }
    for engine in engines(docker) {
        let image = Image::import(&engine, &place);
        let peer = engine_peer(engine, &image.name);
        compare(&peer)?;
    }
    Ok((measures, notes))
}

impl Peer {
    /// Once; in words why it does not work.
    fn run(&self) -> Result<Duration, String> {
        let began = Instant::now();
        let output = self
            .start(&self.command)
            .and_then(|mut command| command.output())
            .map_err(|error| format!("it cannot be started: {error}"))?;
        let time = began.elapsed();
        match output.status.success() {
            true => Ok(time),
            false => Err(words(&output.stderr)),
        }
    }

    fn start(&self, words: &[OsString]) -> std::io::Result<Command> {
        let (program, arguments) = words.split_first().ok_or(std::io::ErrorKind::NotFound)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(match &self.input {
            None => Stdio::null(),
            Some(path) => File::open(path)?.into(),
        });
        Ok(command)
    }

    fn version(&self) -> String {
        let first = self.command.first().cloned().unwrap_or_default();
        let output = Command::new(first).arg("--version").output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let text = text.unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    }

    fn again(&self) -> Result<Duration, Fault> {
        let run = self.run();
        run.map_err(|why| Fault::Refused(format!("{} failed: {why}", self.name)))
    }

    fn measure(&self, rigs: &[Rig; 2], extent: BoxExtent) -> Result<Vec<Measure>, Fault> {
        let [for_cold, for_ready] = rigs;
        let [mut theirs, mut cold, mut ready] = [const { Vec::new() }; 3];
        let runs = match self.kind {
            Kind::Program(_) => extent.runs,
            Kind::Engine(_) => extent.engine_runs,
        };
        for _ in 0..runs {
            theirs.push(self.again()?);
            match self.kind {
                Kind::Program(_) => {}
                Kind::Engine(_) => ready.push(for_ready.ready()?.0),
            }
            cold.push(for_cold.cold()?.0);
        }
        let cold = Measure::of_times("", &cold).p50;
        let ready = Measure::of_times("", &ready).p50;
        let against = |name, figure| Measure::of_times(name, &theirs).against(figure);
        Ok(match self.kind {
            Kind::Program(to_cold) => vec![against(to_cold, cold)],
            Kind::Engine([to_ready, to_cold]) => {
                vec![against(to_ready, ready), against(to_cold, cold)]
            }
        })
    }
}

/// The last line that it said, which is the reason with most programs.
fn words(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    let line = line.unwrap_or("it failed without a word");
    line.chars()
        .filter(|letter| !letter.is_control())
        .take(MAX_WORDS)
        .collect()
}

/// What they run on.
struct Place {
    /// A root of a few names.
    root: PathBuf,
    /// An OCI bundle with it.
    bundle: PathBuf,
    /// Where runtimes keep what they do.
    state: PathBuf,
    /// Our list of system calls, compiled.
    filter: PathBuf,
}

impl Place {
    fn make(folder: &Path) -> Result<Self, Fault> {
        let folder = folder.join("peers");
        let bundle = folder.join("bundle");
        let place = Self {
            root: bundle.join("rootfs"),
            bundle,
            state: folder.join("state"),
            filter: folder.join("filter"),
        };
        let filter = sandbox::boxes::command_filter().map_err(Fault::Refused)?;
        let write = || {
            for name in PLACES {
                fs::create_dir_all(place.root.join(name))?;
            }
            for name in USR_PARTS {
                symlink(format!("usr/{name}"), place.root.join(name))?;
            }
            fs::write(place.bundle.join("config.json"), oci().to_string())?;
            fs::write(&place.filter, filter)
        };
        write().map_err(Fault::io(format!("write to {folder:?}")))?;
        Ok(place)
    }
}

/// The specification of a container like a box, without a list of system calls and without a cgroup,
/// which is in its favour.
fn oci() -> Value {
    let mount = |kind: &str, source: &str, at: &str, options: &[&str]| json!({ "type": kind, "source": source, "destination": at, "options": options });
    let (uid, size) = match rustix::process::geteuid() {
        root if root.is_root() => (0, 65536),
        user => (user.as_raw(), 1),
    };
    // runc wants somebody to be root inside; the command is not.
    let inside = if uid == 0 { 0 } else { 1000 };
    let ids = json!([{ "containerID": inside, "hostID": uid, "size": size }]);
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "user", "cgroup"]
        .map(|kind| json!({ "type": kind }));
    let none: [&str; 0] = [];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 1000, "gid": 1000 },
            "args": ["/bin/true"],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/tmp",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": none, "effective": none, "inheritable": none, "permitted": none, "ambient": none,
            },
            "rlimits": [{ "type": "RLIMIT_CORE", "hard": 0, "soft": 0 }],
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "box",
        "mounts": [
            mount("bind", "/usr", "/usr", &["rbind", "ro", "nosuid", "nodev"]),
            mount("proc", "proc", "/proc", &["nosuid", "nodev", "noexec"]),
            mount("tmpfs", "tmpfs", "/dev", &["nosuid", "mode=755", "size=64k"]),
            mount("tmpfs", "tmpfs", "/tmp", &["nosuid", "nodev", "size=64m"]),
        ],
        "linux": {
            "namespaces": namespaces,
            "uidMappings": ids,
            "gidMappings": ids,
        },
    })
}

fn list<T: AsRef<OsStr>>(words: &[T]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

fn programs(place: &Place) -> Result<[Peer; 3], Fault> {
    let runtime = |name: &'static str, more: &[&str], kind| {
        let mut command = list(&[name, "--root"]);
        command.push(place.state.join(name).into());
        command.extend(list(more));
        command.extend(list(&["run", "--bundle"]));
        command.push(place.bundle.clone().into());
        command.push(format!("bulkhead-bench-{}", hex(&random::<4>()?)).into());
        Ok::<Peer, Fault>(Peer {
            name,
            command,
            input: None,
            kind,
            how: "the same namespaces, mounts and limits; no seccomp, no Landlock, no cgroup",
        })
    };
    let mut bwrap = list(&[
        "bwrap",
        "--unshare-all",
        "--uid",
        INSIDE,
        "--gid",
        INSIDE,
        "--hostname",
        "box",
        "--ro-bind",
        "/usr",
        "/usr",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--size",
        "67108864",
        "--tmpfs",
        "/tmp",
        "--cap-drop",
        "ALL",
        "--new-session",
        "--die-with-parent",
        "--clearenv",
        "--seccomp",
        "0",
    ]);
    for name in USR_PARTS {
        bwrap.extend(list(&[
            "--symlink",
            &format!("usr/{name}"),
            &format!("/{name}"),
        ]));
    }
    bwrap.extend(list(&[
        "--bind".as_ref(),
        place.root.join("work").as_os_str(),
        "/work".as_ref(),
    ]));
    bwrap.extend(list(&[
        "--chdir",
        "/work",
        "--remount-ro",
        "/",
        "/bin/true",
    ]));
    Ok([
        Peer {
            name: "bwrap",
            command: bwrap,
            input: Some(place.filter.clone()),
            kind: Kind::Program("bwrap_to_cold"),
            how: "the same namespaces, mounts and list of system calls; no overlay, no Landlock, no cgroup",
        },
        runtime(
            "crun",
            &["--cgroup-manager=disabled"],
            Kind::Program("crun_to_cold"),
        )?,
        runtime("runc", &[], Kind::Program("runc_to_cold"))?,
    ])
}

/// A container engine's command line.
struct Engine {
    name: &'static str,
    command: Vec<OsString>,
    figures: [&'static str; 2],
}

fn engines(docker: Option<&Path>) -> [Engine; 2] {
    let mut command = list(&["docker"]);
    if let Some(socket) = docker {
        let mut address = OsString::from("unix://");
        address.push(socket);
        command.extend(["--host".into(), address]);
    }
    [
        Engine {
            name: "docker",
            command,
            figures: ["docker_to_ready", "docker_to_cold"],
        },
        Engine {
            name: "podman",
            command: list(&["podman"]),
            figures: ["podman_to_ready", "podman_to_cold"],
        },
    ]
}

fn engine_peer(engine: Engine, image: &str) -> Peer {
    let mut command = engine.command;
    command.extend(list(&[
        "run",
        "--rm",
        "--pull",
        "never",
        "--network",
        "none",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--ulimit",
        "nofile=256:256",
        "--ulimit",
        "nproc=256:256",
        "--pids-limit",
        "256",
        "--memory",
        "512m",
        "--tmpfs",
        "/tmp:size=64m",
        "--volume",
        "/usr:/usr:ro",
        "--user",
        INSIDE,
        image,
        "/bin/true",
    ]));
    Peer {
        name: engine.name,
        command,
        input: None,
        kind: Kind::Engine(engine.figures),
        how: "run --rm with the same restrictions and its own seccomp profile",
    }
}

/// An image of a few names, for as long as this lives.
struct Image {
    engine: Vec<OsString>,
    name: String,
}

impl Image {
    /// If it does not work, running it says why.
    fn import(engine: &Engine, place: &Place) -> Self {
        let image = Self {
            engine: engine.command.clone(),
            name: format!("localhost/bulkhead-bench:{}", std::process::id()),
        };
        let archive = Command::new("tar")
            .arg("-C")
            .arg(&place.root)
            .args(["-cf", "-", "."])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        if let Ok(mut archive) = archive {
            let input = archive.stdout.take().map_or_else(Stdio::null, Into::into);
            image.have(&["import", "-"], input);
            let _ = archive.wait();
        }
        image
    }

    fn have(&self, words: &[&str], input: Stdio) {
        let mut engine = self.engine.iter();
        let Some(program) = engine.next() else { return };
        let mut command = Command::new(program);
        command.args(engine).args(words).arg(&self.name);
        let _ = command
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.have(&["rmi", "--force"], Stdio::null());
    }
}
