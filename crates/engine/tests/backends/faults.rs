//! Engines that are missing, or do not do what they are asked: nothing runs, and the reason says what to do.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use protocol::control::MemoryPolicy;
use protocol::engine::{EngineConfig, EngineReply, EngineRequest};
use protocol::runner::{Backend, RunEnd};
use protocol::workspace::{LayerFolders, LayerKind};
use serde_json::{Value, json};

use crate::engines::Engine;
use crate::host::{EngineLink, Host, open_to_all, program, shell};
use crate::proxy::{self, Twist};

pub(crate) fn all(docker: &Engine, podman: &Engine) {
    a_property_that_is_not_there_is_refused(docker, podman);
    an_engine_that_is_missing_or_another_is_refused(docker, podman);
    a_memory_limit_that_is_not_there_is_told_or_refused(docker);
    a_socket_that_is_closed_to_the_user_is_refused(docker);
    a_path_that_says_more_than_a_path_is_refused(docker);
    a_program_that_is_missing_is_refused(docker);
}

fn refused(link: &EngineLink) -> (String, String) {
    match link.receive().unwrap() {
        EngineReply::Refused { reason, fix } => (reason, fix),
        other => panic!("{other:?}"),
    }
}

/// What is missing, how, and a word of the reason.
type SwitchedOff = (&'static str, fn(&mut Value), &'static str);

/// Each is switched off by an engine that lies, so that the look inside is what finds it.
const SWITCHED_OFF: &[SwitchedOff] = &[
    (
        "the network",
        |c| (c["HostConfig"]["NetworkMode"], c["NetworkDisabled"]) = (json!("host"), json!(false)),
        "network",
    ),
    (
        "no_new_privs",
        |c| {
            without(&mut c["HostConfig"]["SecurityOpt"], "no-new-privileges");
            // Else the runtime itself fails, at what the list does not have.
            without(&mut c["HostConfig"]["SecurityOpt"], "seccomp=");
        },
        "no_new_privs",
    ),
    (
        "system calls",
        |c| {
            without(&mut c["HostConfig"]["SecurityOpt"], "seccomp=");
            c["HostConfig"]["SecurityOpt"]
                .as_array_mut()
                .unwrap()
                .push(json!("seccomp=unconfined"));
        },
        "seccomp",
    ),
    (
        "capabilities",
        |c| c["HostConfig"]["CapDrop"] = json!([]),
        "capabilities",
    ),
    (
        "the root",
        |c| c["HostConfig"]["ReadonlyRootfs"] = json!(false),
        "root can be written",
    ),
    (
        "processes",
        |c| c["HostConfig"]["PidMode"] = json!("host"),
        "process-id",
    ),
    (
        "memory between processes",
        |c| c["HostConfig"]["IpcMode"] = json!("host"),
        "ipc",
    ),
    ("the user", |c| c["User"] = json!("1:1"), "user"),
    (
        "privilege",
        |c| c["HostConfig"]["Privileged"] = json!(true),
        // Where root itself has not all of them, the runtime fails.
        "cap",
    ),
];

fn without(list: &mut Value, begin: &str) {
    list.as_array_mut()
        .unwrap()
        .retain(|one| !one.as_str().unwrap().starts_with(begin));
}

fn a_property_that_is_not_there_is_refused(docker: &Engine, podman: &Engine) {
    for (backend, engine) in [(Backend::Docker, docker), (Backend::Podman, podman)] {
        for (what, change, word) in SWITCHED_OFF {
            let reason = with_a_liar(backend, engine, *change);
            assert!(
                reason.contains(word),
                "{backend:?} without {what}: {reason}"
            );
            println!("test {} without {what} ... ok: {reason}", backend.name());
        }
    }
    let reason = with_a_liar(Backend::Gvisor, docker, |c| {
        drop(c["HostConfig"].as_object_mut().unwrap().remove("Runtime"))
    });
    assert!(reason.contains("gVisor"), "{reason}");
}

/// Runs something that leaves a trace, and says why it was refused.
fn with_a_liar(backend: Backend, engine: &Engine, change: fn(&mut Value)) -> String {
    let mut host = Host::new(backend, engine.socket());
    host.socket = proxy::before(
        engine.socket(),
        host.folder.path(),
        Twist::Container(change),
    );
    let program = host.start(shell("echo x > /workspace/ran"), host.limits());
    let (reason, fix) = refused(&program.link);
    assert!(!fix.is_empty());
    drop(program);
    let layer = host.newest_layer();
    for folder in [host.workspace(), layer.join("upper"), layer] {
        assert!(!folder.join("ran").exists(), "it ran: {reason}");
    }
    host.nothing_is_left();
    reason
}

fn connect(host: &Host, config: EngineConfig) -> (String, String) {
    let program = host.program();
    program
        .link
        .send(&EngineRequest::Connect { config })
        .unwrap();
    refused(&program.link)
}

fn an_engine_that_is_missing_or_another_is_refused(docker: &Engine, podman: &Engine) {
    let host = Host::new(Backend::Docker, docker.socket());
    let with = |backend: Backend, socket: Option<&Path>| {
        let config = EngineConfig {
            backend,
            socket: socket.map(Path::to_owned),
            ..host.config()
        };
        connect(&host, config)
    };
    let nowhere = Path::new("/nonexistent/engine.sock");
    for backend in [Backend::Docker, Backend::Podman, Backend::Gvisor] {
        let (reason, fix) = with(backend, Some(nowhere));
        assert!(
            reason.contains("/nonexistent/engine.sock") && fix.contains("install"),
            "{reason}; {fix}"
        );
    }
    let (reason, _) = with(Backend::Podman, Some(docker.socket()));
    assert!(reason.contains("socket of Docker"), "{reason}");
    for backend in [Backend::Docker, Backend::Gvisor] {
        let (reason, fix) = with(backend, Some(podman.socket()));
        assert!(
            reason.contains("socket of Podman") && fix.contains("engine_socket"),
            "{reason}; {fix}"
        );
    }
    let no_runsc = Twist::Info(
        r#"{"SecurityOptions": ["name=seccomp,profile=default"], "Runtimes": {"runc": {}}}"#,
    );
    let socket = proxy::before(docker.socket(), host.folder.path(), no_runsc);
    let (reason, fix) = with(Backend::Gvisor, Some(&socket));
    assert!(
        reason.contains("no runtime runsc") && fix.contains("runsc install"),
        "{reason}; {fix}"
    );
    let no_seccomp = Twist::Info(r#"{"SecurityOptions": [], "Runtimes": {"runc": {}}}"#);
    let socket = proxy::before(docker.socket(), host.folder.path(), no_seccomp);
    let (reason, fix) = with(Backend::Docker, Some(&socket));
    assert!(
        reason.contains("without seccomp") && fix.contains("CONFIG_SECCOMP_FILTER"),
        "{reason}; {fix}"
    );
}

fn a_memory_limit_that_is_not_there_is_told_or_refused(docker: &Engine) {
    let mut host = Host::new(Backend::Docker, docker.socket());
    let change: fn(&mut Value) = |c| {
        for name in ["Memory", "MemorySwap"] {
            c["HostConfig"].as_object_mut().unwrap().remove(name);
        }
    };
    host.socket = proxy::before(
        docker.socket(),
        host.folder.path(),
        Twist::Container(change),
    );
    let outcome = host.shell("true");
    assert_eq!(outcome.end, RunEnd::Exited { code: 0 });
    assert_eq!(outcome.receipt.memory, "best effort");
    host.memory = MemoryPolicy::Enforced;
    let program = host.start(shell("echo x > /workspace/ran"), host.limits());
    let (reason, fix) = refused(&program.link);
    assert!(
        reason.contains("demands it") && fix.contains("best_effort"),
        "{reason}; {fix}"
    );
    assert!(!host.newest_layer().join("upper/ran").exists());
    // With a limit it runs.
    host.socket = docker.socket().to_owned();
    let outcome = host.shell("true");
    assert!(
        outcome.receipt.memory.starts_with("cgroup"),
        "{}",
        outcome.receipt.memory
    );
}

fn a_socket_that_is_closed_to_the_user_is_refused(docker: &Engine) {
    const STRANGER: u32 = 4243;
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path());
    let copy = folder.path().join("bulkhead-engine");
    std::fs::copy(program("bulkhead-engine"), &copy).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = Command::new(copy)
        .arg(folder.path())
        .env_clear()
        .stdin(OwnedFd::from(theirs))
        .gid(STRANGER)
        .uid(STRANGER)
        .spawn()
        .unwrap();
    let link = EngineLink::new(ours);
    let config = Host::new(Backend::Docker, docker.socket()).config();
    link.send(&EngineRequest::Connect { config }).unwrap();
    let (reason, fix) = refused(&link);
    assert!(
        reason.contains("denied") && fix.contains("as good as root"),
        "{reason}; {fix}"
    );
    child.wait().unwrap();
}

fn a_path_that_says_more_than_a_path_is_refused(docker: &Engine) {
    let host = Host::new(Backend::Docker, docker.socket());
    for odd in ["a,source=/etc", "a:b", "a\"b", "a\nb"] {
        let folder = host.folder.path().join(odd);
        std::fs::create_dir_all(&folder).unwrap();
        let (program, _) = host.connected();
        let request = EngineRequest::Run {
            action: shell("true"),
            limits: host.limits(),
            workspace: folder.clone(),
            layer: LayerFolders::Copy { folder },
        };
        program.link.send(&request).unwrap();
        let (reason, fix) = refused(&program.link);
        assert!(
            reason.contains("path") && fix.contains("native"),
            "{reason}; {fix}"
        );
    }
    host.nothing_is_left();
}

fn a_program_that_is_missing_is_refused(docker: &Engine) {
    let host = Host::new(Backend::Docker, docker.socket());
    let program = host.program();
    let config = EngineConfig {
        sandbox_program: "/nonexistent/bulkhead-sandbox".into(),
        ..host.config()
    };
    program
        .link
        .send(&EngineRequest::Connect { config })
        .unwrap();
    assert!(matches!(
        program.link.receive().unwrap(),
        EngineReply::Connected {
            layer: LayerKind::Overlay
        }
    ));
    let request = EngineRequest::Run {
        action: shell("true"),
        limits: host.limits(),
        workspace: host.workspace(),
        layer: host.layer(LayerKind::Overlay),
    };
    program.link.send(&request).unwrap();
    let (reason, _) = refused(&program.link);
    assert!(reason.contains("/nonexistent/bulkhead-sandbox"), "{reason}");
    drop(program);
    host.nothing_is_left();
}
