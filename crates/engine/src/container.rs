//! What is asked of the engine for one box.

use std::path::{Path, PathBuf};

use protocol::runner::{Backend, Limits};
use protocol::workspace::LayerFolders;
use sandbox::native::parts::Parts;
use sandbox::run::Refused;
use serde_json::{Value, json};

use crate::connect::{Engine, HOME, OWNER};
use crate::image::{LAYER, LOWER, SANDBOX, TOOL, WORKSPACE};
use crate::owner::Owner;

/// What its user may have running beside a box.
const OTHERS_OF_THE_USER: u64 = 8192;

/// Processes and threads of the container that are not the box': the first process and what builds the box.
const OWN_PIDS: u64 = 16;
/// Those of gVisor's kernel, which counts its own threads too, and one process for each address space.
const GVISOR_PIDS: u64 = 512;
/// More than a box' own limit, which its processes lower.
const DESCRIPTORS: u64 = 1024;

/// A container to make.
pub(crate) struct Wanted<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) owner: &'a Owner,
    pub(crate) image: &'a str,
    pub(crate) parts: &'a Parts,
    pub(crate) limits: &'a Limits,
    pub(crate) workspace: &'a Path,
    pub(crate) layer: &'a LayerFolders,
    /// As `SecurityOpt` takes it: the list itself, or for Podman the file that holds it.
    pub(crate) calls: &'a str,
}

/// The workspace as the first process of the container finds it.
pub(crate) fn inside(layer: &LayerFolders) -> (PathBuf, LayerFolders) {
    match layer {
        LayerFolders::Overlay { upper, work } => {
            let below = |path: &Path| Path::new(LAYER).join(path.file_name().unwrap_or_default());
            let layer = LayerFolders::Overlay {
                upper: below(upper),
                work: below(work),
            };
            (LOWER.into(), layer)
        }
        LayerFolders::Copy { .. } => {
            let layer = LayerFolders::Copy {
                folder: WORKSPACE.into(),
            };
            (WORKSPACE.into(), layer)
        }
    }
}

impl Wanted<'_> {
    /// How many processes and threads the container may have.
    pub(crate) fn pids(&self) -> u64 {
        let own = match self.engine.config.backend {
            Backend::Gvisor => GVISOR_PIDS,
            Backend::Native | Backend::Docker | Backend::Podman => OWN_PIDS,
        };
        u64::from(self.limits.pids) + own
    }

    /// The kernel counts all processes of the box' user on the host by this one, also those that are none of
    /// ours, so it cannot be what bounds the box: that is its own limit, and `PidsLimit` of the container.
    /// gVisor's kernel counts its own.
    fn processes_of_the_user(&self) -> u64 {
        match self.engine.config.backend {
            Backend::Gvisor => self.pids(),
            Backend::Native | Backend::Docker | Backend::Podman => self.pids() + OTHERS_OF_THE_USER,
        }
    }

    /// The body of `POST /containers/create`.
    pub(crate) fn body(&self) -> Result<Value, Refused> {
        let (uid, gid) = self.engine.first();
        Ok(json!({
            "Image": self.image,
            "Entrypoint": [SANDBOX, "inner"],
            "Cmd": [],
            "User": format!("{uid}:{gid}"),
            "Env": [],
            "Hostname": "box",
            "WorkingDir": "/",
            // One stream for both ways; when it closes, so does the standard input.
            "AttachStdin": true,
            "AttachStdout": true,
            "AttachStderr": true,
            "OpenStdin": true,
            "StdinOnce": true,
            "Tty": false,
            "NetworkDisabled": true,
            "StopTimeout": 0,
            "Labels": { HOME: self.engine.home, OWNER: self.owner.label() },
            "HostConfig": self.host()?,
        }))
    }

    fn host(&self) -> Result<Value, Refused> {
        let limit = |name: &str, most: u64| json!({ "Name": name, "Soft": most, "Hard": most });
        let mut host = json!({
            "NetworkMode": "none",
            "ReadonlyRootfs": true,
            "Privileged": false,
            "CapDrop": ["ALL"],
            "CapAdd": self.engine.capabilities(),
            "SecurityOpt": self.security(),
            // Only the first process sees these. A box has a /proc of its own, which the kernel
            // grants only to who can see all of one.
            "MaskedPaths": [],
            "ReadonlyPaths": [],
            "IpcMode": "private",
            "PidMode": "",
            "CgroupnsMode": "private",
            "Init": false,
            "AutoRemove": false,
            "RestartPolicy": { "Name": "no" },
            "LogConfig": { "Type": "none" },
            "Memory": self.limits.memory_bytes,
            "MemorySwap": self.limits.memory_bytes,
            "PidsLimit": self.pids(),
            "Ulimits": [limit("nofile", DESCRIPTORS), limit("nproc", self.processes_of_the_user()), limit("core", 0)],
            "Tmpfs": { "/tmp": format!("rw,exec,nosuid,nodev,size={},mode=1777", self.limits.tmp_bytes) },
            "Mounts": self.mounts()?,
            // Otherwise the container is told the host's name servers.
            "Dns": ["127.0.0.1"],
        });
        if let Some(runtime) = self.engine.runtime() {
            host["Runtime"] = json!(runtime);
        }
        Ok(host)
    }

    fn security(&self) -> Vec<String> {
        let mut options = vec![
            "no-new-privileges".to_owned(),
            format!("seccomp={}", self.calls),
            // SELinux would keep a container from the host's /usr unless all of that were relabelled.
            "label=disable".to_owned(),
        ];
        if self.engine.apparmor {
            // The engines' own profile forbids mount(2), with which the box is built.
            options.push("apparmor=unconfined".to_owned());
        }
        if self.engine.config.backend == Backend::Podman {
            // Its name for empty MaskedPaths and ReadonlyPaths.
            options.push("unmask=ALL".to_owned());
        }
        options
    }

    fn mounts(&self) -> Result<Vec<Value>, Refused> {
        let config = &self.engine.config;
        let mut mounts = Vec::new();
        for path in self.parts.folders.iter().chain(&self.parts.files) {
            mounts.push(bind(path, path, READ)?);
        }
        mounts.push(bind(&config.sandbox_program, Path::new(SANDBOX), READ)?);
        mounts.push(bind(&config.tool_program, Path::new(TOOL), READ)?);
        match self.layer {
            LayerFolders::Copy { folder } => {
                mounts.push(bind(folder, Path::new(WORKSPACE), WRITE)?)
            }
            LayerFolders::Overlay { upper, work } => {
                mounts.push(bind(self.workspace, Path::new(LOWER), READ)?);
                // Overlayfs wants both below one mount.
                let together = upper
                    .parent()
                    .filter(|folder| work.parent() == Some(folder) && upper != work);
                let folder = together.ok_or_else(|| Refused {
                    reason: format!(
                        "{} and {} are not in one folder",
                        upper.display(),
                        work.display()
                    ),
                    fix: "report this; the program that keeps the workspace makes both in one"
                        .to_owned(),
                })?;
                mounts.push(bind(folder, Path::new(LAYER), WRITE)?);
            }
        }
        Ok(mounts)
    }
}

const READ: Access = Access::Read;
const WRITE: Access = Access::Write;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Podman turns this into an option with commas, where a path could say more than it should.
fn bind(from: &Path, to: &Path, access: Access) -> Result<Value, Refused> {
    let plain = |path: &Path| {
        let text = path.to_str().filter(|text| text.starts_with('/'))?;
        let odd = |c: char| c.is_control() || [',', ':', '"', '\\', '='].contains(&c);
        (!text.contains(odd)).then(|| text.to_owned())
    };
    let refused = || {
        Refused {
        reason: format!("container engines cannot be told of the path {:?}", from.display().to_string()),
        fix: "use paths without commas, colons, quotes, equals signs and backslashes, or the native box".to_owned(),
    }
    };
    let (source, target) = (
        plain(from).ok_or_else(refused)?,
        plain(to).ok_or_else(refused)?,
    );
    Ok(json!({
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": access == Access::Read,
        "BindOptions": { "Propagation": "rprivate" },
    }))
}
