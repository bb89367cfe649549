//! The real program over its links, confined as it is.

use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use super::common::{LIMITS, Over, Place, Ready, base, call, kept};
use protocol::control::{Control, Peer, Report, SupervisorEnd, WorkspaceConfig};
use protocol::frame::Link;
use protocol::runner::EntryId;
use protocol::workspace::{
    Diff, GitFolders, HistoryReply, HistoryRequest, LayerKind, LayerReply, LayerRequest, UndoTo,
};

struct Program {
    child: Child,
    control: SupervisorEnd<WorkspaceConfig>,
}

impl Program {
    fn start(place: &Place) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_bulkhead-workspace"))
            .arg("--workspace")
            .arg(place.workspace())
            .arg("--history")
            .arg(place.history())
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        let control = SupervisorEnd::new(ours);
        let config = WorkspaceConfig {
            keep: LIMITS,
            read_only: Vec::new(),
        };
        control.send(&Control::Start { config }).unwrap();
        assert_eq!(control.receive().unwrap().0, Report::Ready);
        Self { child, control }
    }

    fn link<S: serde::Serialize, R: serde::de::DeserializeOwned>(&self, peer: Peer) -> Link<S, R> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.control
            .send_with(&Control::Link { peer }, theirs.into())
            .unwrap();
        Link::new(ours)
    }

    fn stop(mut self) {
        self.control.send(&Control::Stop).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn the_program_keeps_and_undoes_over_its_links_as_it_is_confined() {
    for kind in [LayerKind::Overlay, LayerKind::Copy] {
        let place = Place::new();
        place.given(
            "mkdir -p d/e; echo a > d/e/a; ln -s x d/l; mkfifo d/f; ln d/e/a d/h; chmod 555 d/e",
        );
        let before = place.tree();
        let program = Program::start(&place);
        let sandbox = program.link::<LayerRequest, LayerReply>(Peer::Sandbox);
        let gateway = program.link::<HistoryRequest, HistoryReply>(Peer::Gateway);
        sandbox.send(&LayerRequest::Begin { kind }).unwrap();
        let LayerReply::Begun {
            layer,
            folders,
            sequence,
        } = sandbox.receive().unwrap()
        else {
            panic!("a layer")
        };
        let ready = Ready {
            workspace: place.workspace(),
            folders,
            over: Over {
                layer,
                base: base(&sequence),
            },
        };
        ready.run("chmod 755 d/e; rm -r d; mkdir -p n/m; echo n > n/m/n; ln -s /etc n/l; mkfifo n/f; chmod 555 n/m; ln -s y d");
        let Over { layer, base } = ready.over;
        sandbox
            .send(&LayerRequest::Keep {
                layer,
                base,
                origin: Some(call(1)),
                git: GitFolders::Open,
            })
            .unwrap();
        let LayerReply::Changes { changes } = sandbox.receive().unwrap() else {
            panic!("changes")
        };
        assert_eq!(kept(&changes), EntryId(1));
        assert!(place.workspace().join("n/m/n").exists());
        gateway
            .send(&HistoryRequest::Preview {
                to: UndoTo::Newest,
                diff: Diff::Unified,
            })
            .unwrap();
        let HistoryReply::Preview { preview } = gateway.receive().unwrap() else {
            panic!("a preview")
        };
        gateway
            .send(&HistoryRequest::Undo {
                to: UndoTo::Newest,
                digest: preview.digest,
            })
            .unwrap();
        let reply = gateway.receive().unwrap();
        assert!(matches!(reply, HistoryReply::Undone { .. }), "{reply:?}");
        assert_eq!(place.tree(), before);
        // Others have nothing to ask.
        let stranger = program.link::<HistoryRequest, HistoryReply>(Peer::Egress);
        assert!(stranger.receive().is_err());
        program.stop();
        place.assert_tidy();
    }
}

#[test]
fn a_history_inside_the_workspace_or_on_another_file_system_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = dir.path().join("workspace");
    std::fs::create_dir_all(workspace.join("history")).unwrap();
    let refused = |history: &std::path::Path| {
        bulkhead_workspace::make_folder(history).unwrap();
        let steps = Box::new(bulkhead_workspace::Uninterrupted);
        let stop = bulkhead_workspace::Store::open(&workspace, history, LIMITS, steps);
        stop.err().unwrap().to_string()
    };
    assert!(refused(&workspace.join("history")).contains("inside the other"));
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    assert!(refused(&other.path().join("history")).contains("another file system"));
    std::fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let open = dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert!(refused(&open).contains("open to others"));
}
