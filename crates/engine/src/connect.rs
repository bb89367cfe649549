//! Finding the engine that was asked for, and whether it can do what a box needs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::engine::EngineConfig;
use protocol::ids::hex;
use protocol::runner::Backend;
use protocol::workspace::LayerKind;
use rustix::process::{getegid, geteuid};
use sandbox::run::Refused;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::api::{Api, ApiError, escaped};
use crate::image::Image;
use crate::owner;

/// The runtime of gVisor, by the name that its documentation gives it.
const RUNSC: &str = "runsc";

/// The label that says whose containers they are.
pub(crate) const HOME: &str = "bulkhead.home";
/// The label that says which process of it.
pub(crate) const OWNER: &str = "bulkhead.owner";

/// An engine that is there.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) api: Api,
    pub(crate) config: EngineConfig,
    /// [`EngineConfig::home`], as a label.
    pub(crate) home: String,
    /// To whom the workspace belongs, as the container sees it: whoever runs this.
    pub(crate) user: (u32, u32),
    /// AppArmor holds containers, if they do not say otherwise.
    pub(crate) apparmor: bool,
    /// `cgroup v1` or `cgroup v2`, as it says.
    pub(crate) cgroup: Option<String>,
}

/// `/version`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    #[serde(default)]
    components: Vec<Component>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    name: String,
}

/// `/info`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    security_options: Vec<String>,
    #[serde(default)]
    runtimes: HashMap<String, serde_json::Value>,
    #[serde(default)]
    cgroup_version: String,
    /// Podman's; Docker's is among the options above.
    #[serde(default)]
    rootless: bool,
}

/// `/containers/json`
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    labels: HashMap<String, String>,
}

impl Engine {
    /// Reaches it.
    pub(crate) async fn connect(config: EngineConfig) -> Result<Self, Refused> {
        let backend = config.backend;
        let socket = socket(&config)?;
        let api = Api::at(&socket);
        let failed = |error| unreachable(backend, &socket, &error);
        let version: Version = api.get("/version").await.map_err(failed)?;
        let info: Info = api.get("/info").await.map_err(failed)?;
        let podman = version
            .components
            .iter()
            .any(|component| component.name.starts_with("Podman"));
        if podman != (backend == Backend::Podman) {
            let other = if podman { "Podman" } else { "Docker" };
            return Err(Refused {
                reason: format!(
                    "{} is the socket of {other}, and the box is to be one of {}",
                    socket.display(),
                    backend.name()
                ),
                fix: "set `backend` or `engine_socket` under [box] in bulkhead.toml".to_owned(),
            });
        }
        if backend == Backend::Gvisor && !info.runtimes.contains_key(RUNSC) {
            return Err(Refused {
                reason: format!("Docker at {} has no runtime {RUNSC}", socket.display()),
                fix: "install gVisor and run `runsc install`, then restart Docker".to_owned(),
            });
        }
        let has = |name: &str| {
            let name = format!("name={name}");
            info.security_options
                .iter()
                .any(|option| option.split(',').any(|part| part == name))
        };
        if !has("seccomp") {
            return Err(Refused {
                reason: format!("{} runs containers without seccomp", backend.name()),
                fix:
                    "boot a kernel with CONFIG_SECCOMP_FILTER, and an engine that was built with it"
                        .to_owned(),
            });
        }
        // A rootless engine's root is whoever runs it.
        let user = match info.rootless || has("rootless") {
            true => (0, 0),
            false => (geteuid().as_raw(), getegid().as_raw()),
        };
        Ok(Self {
            api,
            home: hex(&config.home.0[..16]),
            config,
            user,
            apparmor: has("apparmor"),
            cgroup: match info.cgroup_version.as_str() {
                version @ ("1" | "2") => Some(format!("cgroup v{version}")),
                _ => None,
            },
        })
    }

    /// The layers that its boxes can have.
    pub(crate) fn layer(&self) -> LayerKind {
        match self.config.backend {
            // Its kernel mounts nothing in a user namespace.
            Backend::Gvisor => LayerKind::Copy,
            Backend::Native | Backend::Docker | Backend::Podman => LayerKind::Overlay,
        }
    }

    /// The user and group of the first process of a container. In gVisor's, it becomes another than the
    /// command's, and so begins as root of that kernel, which is not the host's.
    pub(crate) fn first(&self) -> (u32, u32) {
        match self.config.backend {
            Backend::Gvisor => (0, 0),
            Backend::Native | Backend::Docker | Backend::Podman => self.user,
        }
    }

    /// The capabilities of the first process, by their names without `CAP_`. A box has none.
    pub(crate) fn capabilities(&self) -> &'static [&'static str] {
        match (self.config.backend, self.first()) {
            // To become two users, map the command's, and end it.
            (Backend::Gvisor, _) => &["SETFCAP", "SETUID", "SETGID", "KILL"],
            // With it, and nothing else, root maps its own id into the box (user_namespaces(7)).
            (_, (0, _)) => &["SETFCAP"],
            (_, _) => &[],
        }
    }

    /// The runtime to name, if not the engine's own.
    pub(crate) fn runtime(&self) -> Option<&'static str> {
        match self.config.backend {
            Backend::Gvisor => Some(RUNSC),
            Backend::Native | Backend::Docker | Backend::Podman => None,
        }
    }

    /// Removes the containers of this installation whose process is gone. They ended by themselves.
    pub(crate) async fn remove_leftovers(&self) -> Result<(), ApiError> {
        let filter = json!({ "label": [format!("{HOME}={}", self.home)] }).to_string();
        let path = format!("/containers/json?all=1&filters={}", escaped(&filter));
        let listed: Vec<Listed> = self.api.get(&path).await?;
        for container in listed {
            let owner = container.labels.get(OWNER).map_or("", String::as_str);
            if !owner::lives(owner) {
                self.remove(&container.id).await?;
            }
        }
        Ok(())
    }

    /// Kills a container, if it still runs, and removes it. An engine that is just noticing that it ended
    /// may fail once.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), ApiError> {
        self.settle(id).await;
        const TRIES: u32 = 5;
        const PAUSE: Duration = Duration::from_millis(200);
        let path = format!("/containers/{id}?force=1&v=1");
        let mut tried = 1;
        loop {
            match self.api.delete(&path).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_missing() => return Ok(()),
                Err(error) if tried == TRIES => return Err(error),
                Err(_) => sleep(PAUSE).await,
            }
            tried += 1;
        }
    }

    /// Has Docker notice that a container ended before it is asked to remove it: what it writes down at
    /// the end, it would otherwise write after the removal, and list the container for ever.
    async fn settle(&self, id: &str) {
        const PATIENCE: Duration = Duration::from_secs(10);
        if self.config.backend == Backend::Podman {
            return;
        }
        // Whatever fails here, the removal says.
        let _ = self.api.order(&format!("/containers/{id}/kill")).await;
        let _ = timeout(PATIENCE, self.api.order(&format!("/containers/{id}/wait"))).await;
    }

    /// Gives the engine the image, if it has none of this name.
    pub(crate) async fn provide(&self, image: Image) -> Result<String, ApiError> {
        let Image { name, tar } = image;
        let found = self
            .api
            .get::<serde_json::Value>(&format!("/images/{}/json", escaped(&name)))
            .await;
        match found {
            Ok(_) => return Ok(name),
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
        }
        let (repository, tag) = name.rsplit_once(':').unwrap_or((&name, "latest"));
        let path = format!(
            "/images/create?fromSrc=-&repo={}&tag={tag}",
            escaped(repository)
        );
        let said = self.api.import(&path, tar).await?;
        match said["error"].as_str() {
            Some(error) => Err(ApiError::Broken(error.to_owned())),
            None => Ok(name),
        }
    }
}

/// Where the engines listen if nobody says otherwise.
fn socket(config: &EngineConfig) -> Result<PathBuf, Refused> {
    if let Some(socket) = &config.socket {
        return Ok(socket.clone());
    }
    let user = geteuid();
    let own = |name: &str| format!("/run/user/{user}/{name}");
    let usual = match (config.backend, user.is_root()) {
        (Backend::Podman, true) => vec!["/run/podman/podman.sock".to_owned()],
        (Backend::Podman, false) => vec![own("podman/podman.sock")],
        (Backend::Docker | Backend::Gvisor | Backend::Native, true) => {
            vec!["/run/docker.sock".to_owned()]
        }
        (Backend::Docker | Backend::Gvisor | Backend::Native, false) => {
            vec![own("docker.sock"), "/run/docker.sock".to_owned()]
        }
    };
    let found = usual.iter().map(PathBuf::from).find(|path| path.exists());
    found.ok_or_else(|| Refused {
        reason: format!(
            "{} is not there: no socket at {}",
            config.backend.name(),
            usual.join(" or ")
        ),
        fix: install(config.backend).to_owned(),
    })
}

fn install(backend: Backend) -> &'static str {
    match backend {
        Backend::Podman => {
            "install Podman and start its socket (`systemctl enable --now podman.socket`, as an ordinary user with `--user`), or \
             set `engine_socket` under [box] in bulkhead.toml"
        }
        Backend::Docker | Backend::Gvisor | Backend::Native => {
            "install Docker and start it (`systemctl enable --now docker`), or set `engine_socket` under [box] in bulkhead.toml"
        }
    }
}

fn unreachable(backend: Backend, socket: &Path, error: &ApiError) -> Refused {
    let denied = matches!(error, ApiError::Unreachable { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied);
    Refused {
        reason: format!("{} cannot be used: {error}", backend.name()),
        fix: match denied {
            true => format!(
                "{} is not open to this user. Whoever may use it is as good as root; rootless Podman needs no such right",
                socket.display()
            ),
            false => install(backend).to_owned(),
        },
    }
}
