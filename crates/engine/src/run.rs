//! One run: a container made, looked at, told what to run, and removed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::call::Action;
use protocol::control::MemoryPolicy;
use protocol::engine::{Around, HEARTBEAT, InnerReply, InnerRequest, Walls};
use protocol::frame::LinkError;
use protocol::ids::{Nonce, random};
use protocol::runner::{Backend, Changes, Limits, Receipt, RunEnd, RunOutcome};
use protocol::workspace::LayerFolders;
use sandbox::native::parts::parts;
use sandbox::run::Refused;
use serde::Deserialize;
use tokio::io::{AsyncRead, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep_until, timeout};

use crate::api::ApiError;
use crate::connect::Engine;
use crate::container::{Wanted, inside};
use crate::image::Image;
use crate::owner::Owner;
use crate::verify::{self, Expected, Inspected, Memory};
use crate::{stream, wire};

/// How long the engine may take to start a container.
const START: Duration = Duration::from_secs(60);
/// How much longer than its limit a box may take to say how it ended.
const GRACE: Duration = Duration::from_secs(10);
/// What passes between the outputs of the container and who reads them.
const PIPE: usize = 64 * 1024;

/// What to run, and over what.
pub(crate) struct Order {
    pub(crate) action: Action,
    pub(crate) limits: Limits,
    pub(crate) workspace: PathBuf,
    pub(crate) layer: LayerFolders,
}

/// What ends a run early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Somebody stops it and wants to know how it ended.
    Kill,
    /// Nobody is there any more.
    Gone,
}

/// Runs it. What comes on `stops` kills the box.
pub(crate) async fn run(
    engine: &Engine,
    files: &Path,
    order: Order,
    stops: &mut mpsc::Receiver<Stop>,
) -> Result<RunOutcome, Refused> {
    let container = Container::make(engine, files, &order).await?;
    let outcome = container.drive(&order, stops).await;
    let removed = engine.remove(&container.id).await;
    let outcome = outcome?;
    // What ran, ran; but a container that stays is not a thing to be silent about.
    if let Err(error) = removed {
        protocol::log!(
            "bulkhead-engine: the container {} could not be removed: {error}",
            container.id
        );
    }
    Ok(outcome)
}

struct Container<'a> {
    engine: &'a Engine,
    id: String,
    expected: Expected,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

impl<'a> Container<'a> {
    async fn make(engine: &'a Engine, files: &Path, order: &Order) -> Result<Self, Refused> {
        let failed = |error: ApiError| broken(engine, &error);
        let parts = parts();
        let image = Image::of(&parts).map_err(|error| unable(engine, &error))?;
        let image = engine.provide(image).await.map_err(failed)?;
        let owner = Owner::this().map_err(|error| unable(engine, &error))?;
        let calls = calls(engine.config.backend, files).map_err(|error| unable(engine, &error))?;
        let wanted = Wanted {
            engine,
            owner: &owner,
            image: &image,
            parts: &parts,
            limits: &order.limits,
            workspace: &order.workspace,
            layer: &order.layer,
            calls: &calls,
        };
        let Created { id } = engine
            .api
            .post("/containers/create", wanted.body()?)
            .await
            .map_err(failed)?;
        let name = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let expected = Expected {
            backend: engine.config.backend,
            uid: engine.first().0,
            outside: outside()
                .map_err(|error| unable(engine, &format!("/proc/self/ns: {error}")))?,
            kernel: format!("{} {}", text(name.release()), text(name.version())),
            runtime: engine.runtime(),
            cgroup: engine.cgroup.clone(),
        };
        Ok(Self {
            engine,
            id,
            expected,
        })
    }

    async fn drive(
        &self,
        order: &Order,
        stops: &mut mpsc::Receiver<Stop>,
    ) -> Result<RunOutcome, Refused> {
        let failed = |error: ApiError| broken(self.engine, &error);
        let begun = Instant::now();
        let path = format!(
            "/containers/{}/attach?stream=1&stdin=1&stdout=1&stderr=1",
            self.id
        );
        let attached = self.engine.api.attach(&path);
        let (output, input) = tokio::io::split(attached.await.map_err(failed)?);
        let (from, to) = tokio::io::duplex(PIPE);
        let mut talk = Talk {
            from,
            input,
            words: tokio::spawn(async move { stream::split(output, to).await.unwrap_or_default() }),
        };
        self.engine
            .api
            .order(&format!("/containers/{}/start", self.id))
            .await
            .map_err(failed)?;
        let around = match timeout(START, wire::read(&mut talk.from)).await {
            Ok(Ok(InnerReply::Here { around })) => around,
            Ok(Ok(InnerReply::Refused { .. } | InnerReply::Finished { .. }) | Err(_)) => {
                return Err(self.silent(talk.words().await));
            }
            Err(_) => return Err(self.silent("it says nothing".to_owned())),
        };
        let inspected = self.inspect().await.map_err(failed)?;
        if let Some(what) = verify::lacking(&self.expected, &around, &inspected) {
            return Err(Refused {
                reason: format!("the container that {} made is not what was asked for: {what}", self.name()),
                fix: "update the container engine, or use another backend under [box] in bulkhead.toml".to_owned(),
            });
        }
        if stops.try_recv().is_ok() {
            return Err(Refused {
                reason: "it was stopped before it began".to_owned(),
                fix: "nothing ran, so there is nothing to undo".to_owned(),
            });
        }
        let memory = verify::memory(
            &self.expected,
            order.limits.memory_bytes,
            &around,
            &inspected,
        );
        let memory = match (memory, self.engine.config.memory) {
            (Memory::Held { by }, _) => by,
            (Memory::BestEffort, MemoryPolicy::BestEffort) => "best effort".to_owned(),
            (Memory::BestEffort, MemoryPolicy::Enforced) => {
                return Err(Refused {
                    reason: format!("nothing holds the memory of a box of {} as a whole, and the configuration demands it", self.name()),
                    fix: "let the container engine use cgroups (rootless: version 2, delegated), or allow best effort: \
                          memory = \"best_effort\" under [box] in bulkhead.toml"
                        .to_owned(),
                });
            }
        };
        let nonce = random()
            .map(Nonce)
            .map_err(|error| unable(self.engine, &error.to_string()))?;
        let ended = talk.run(nonce, order, self.walls(), begun, stops).await;
        let mut outcome = match ended {
            Ended::Told(told) => told?,
            Ended::Silent(cause) => self.lost(cause, &around, order).await,
        };
        outcome.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        outcome.receipt.backend = self.name().to_owned();
        outcome.receipt.memory = memory;
        Ok(outcome)
    }

    fn name(&self) -> &'static str {
        self.engine.config.backend.name()
    }

    fn walls(&self) -> Walls {
        match self.engine.config.backend {
            Backend::Gvisor => {
                let (uid, gid) = self.engine.user;
                Walls::Container { uid, gid }
            }
            Backend::Native | Backend::Docker | Backend::Podman => Walls::Own,
        }
    }

    async fn inspect(&self) -> Result<Inspected, ApiError> {
        self.engine
            .api
            .get(&format!("/containers/{}/json", self.id))
            .await
    }

    fn silent(&self, words: String) -> Refused {
        Refused {
            reason: format!(
                "the container that {} started ended before it was a box: {}",
                self.name(),
                words.trim()
            ),
            fix: "look at `bulkhead doctor` and at the engine's log".to_owned(),
        }
    }

    /// The container ended without a word: something outside of the box killed it, as the kernel does
    /// when a cgroup is out of memory. What is known of it is what was around the box.
    async fn lost(&self, cause: RunEnd, around: &Around, order: &Order) -> RunOutcome {
        let state = self
            .inspect()
            .await
            .map(|inspected| inspected.state)
            .unwrap_or_default();
        let stderr = match state.oom_killed {
            true => format!(
                "\nkilled: together these processes used more than {} bytes of memory\n",
                order.limits.memory_bytes
            ),
            false => "\nkilled: the container ended, and its output is lost\n".to_owned(),
        };
        RunOutcome {
            end: cause,
            stdout: String::new(),
            stderr,
            truncated: true,
            duration_ms: 0,
            receipt: of_container(around, &order.limits),
            changes: Changes::default(),
        }
    }
}

/// How it came to an end.
enum Ended {
    Told(Result<RunOutcome, Refused>),
    Silent(RunEnd),
}

/// Both ways of the container's stream.
struct Talk<R, W> {
    from: R,
    input: WriteHalf<W>,
    words: JoinHandle<String>,
}

impl<R: AsyncRead + Unpin, W: tokio::io::AsyncWrite> Talk<R, W> {
    /// What the container said on its error output until it ended.
    async fn words(self) -> String {
        match timeout(GRACE, self.words).await {
            Ok(Ok(words)) if !words.trim().is_empty() => words,
            Ok(_) | Err(_) => "it does not say why".to_owned(),
        }
    }

    async fn run(
        mut self,
        nonce: Nonce,
        order: &Order,
        walls: Walls,
        begun: Instant,
        stops: &mut mpsc::Receiver<Stop>,
    ) -> Ended {
        let (workspace, layer) = inside(&order.layer);
        let request = InnerRequest::Run {
            nonce,
            action: order.action.clone(),
            limits: order.limits.clone(),
            walls,
            workspace,
            layer,
        };
        const LOST: RunEnd = RunEnd::Signalled { signal: 9 };
        if wire::write(&mut self.input, &request).await.is_err() {
            return Ended::Silent(LOST);
        }
        let limit = begun + Duration::from_secs(u64::from(order.limits.wall_seconds)) + GRACE;
        let (mut until, mut cause) = (limit, RunEnd::TimedOut);
        let mut heartbeat = interval(HEARTBEAT);
        let mut reply = std::pin::pin!(wire::read::<InnerReply>(&mut self.from));
        loop {
            tokio::select! {
                answer = &mut reply => return match answer {
                    Ok(InnerReply::Finished { nonce: told, outcome }) if told == nonce => Ended::Told(Ok(outcome)),
                    Ok(InnerReply::Refused { nonce: told, reason, fix }) if told == nonce => {
                        Ended::Told(Err(Refused { reason, fix }))
                    }
                    // Somebody else wrote it.
                    Ok(_) => Ended::Silent(LOST),
                    Err(_) if cause == RunEnd::Killed => Ended::Silent(RunEnd::Killed),
                    Err(_) => Ended::Silent(LOST),
                },
                _ = heartbeat.tick() => {
                    // If it is gone, its output says so.
                    let _: Result<(), LinkError> = wire::write(&mut self.input, &InnerRequest::Alive { nonce }).await;
                }
                Some(stop) = stops.recv() => match stop {
                    Stop::Kill => {
                        let _: Result<(), LinkError> = wire::write(&mut self.input, &InnerRequest::Kill { nonce }).await;
                        (until, cause) = (Instant::now() + GRACE, RunEnd::Killed);
                    }
                    Stop::Gone => return Ended::Silent(RunEnd::Killed),
                },
                () = sleep_until(until) => return Ended::Silent(cause),
            }
        }
    }
}

fn of_container(around: &Around, limits: &Limits) -> Receipt {
    let sets: Vec<_> = around
        .capabilities
        .iter()
        .map(|(name, set)| format!("{name} {set}"))
        .collect();
    Receipt {
        namespaces: around
            .namespaces
            .iter()
            .map(|(name, _)| name.clone())
            .collect(),
        capabilities: sets.join(" "),
        no_new_privs: around.no_new_privs,
        uid: around.uid,
        network: "none".to_owned(),
        root: "read-only".to_owned(),
        limits: limits.clone(),
        ..Receipt::default()
    }
}

/// The inodes of this process' own namespaces.
fn outside() -> std::io::Result<Vec<(String, u64)>> {
    use std::os::unix::fs::MetadataExt as _;
    ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .into_iter()
        .map(|name| {
            Ok((
                name.to_owned(),
                std::fs::metadata(format!("/proc/self/ns/{name}"))?.ino(),
            ))
        })
        .collect()
}

/// The list of system calls as the engine takes it. Podman takes a file's name.
fn calls(backend: Backend, files: &Path) -> Result<String, String> {
    let profile = sandbox::container_calls::profile()?;
    match backend {
        Backend::Podman => {
            let name = format!(
                "container-calls-{}.json",
                &protocol::ids::Digest::of(&profile).to_string()[..16]
            );
            let path = files.join(name);
            write(&path, &profile)
                .map_err(|error| format!("writing {}: {error}", path.display()))?;
            path.to_str()
                .map(str::to_owned)
                .ok_or_else(|| format!("{} is not UTF-8", path.display()))
        }
        Backend::Native | Backend::Docker | Backend::Gvisor => Ok(profile),
    }
}

/// Whole or not at all, since another run may read it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let draft = path.with_extension(std::process::id().to_string());
    std::fs::write(&draft, text)?;
    std::fs::rename(&draft, path)
}

fn broken(engine: &Engine, error: &ApiError) -> Refused {
    unable(engine, &error.to_string())
}

fn unable(engine: &Engine, error: &str) -> Refused {
    Refused {
        reason: format!(
            "no container can be had from {}: {error}",
            engine.config.backend.name()
        ),
        fix: "look at the engine's log, or use another backend under [box] in bulkhead.toml"
            .to_owned(),
    }
}
