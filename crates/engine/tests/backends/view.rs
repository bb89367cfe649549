//! What a command in a box sees and may do, whatever made the box.

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use protocol::call::{Action, ToolCall, WorkspacePath};
use protocol::engine::InnerReply;
use protocol::ids::Nonce;
use protocol::runner::{Backend, Limits, RunEnd};
use protocol::script::{Place, Redirection, Script, Simple, Step, Stream, Target, When};
use protocol::workspace::LayerKind;

use crate::Check;
use crate::host::{Host, finished, shell};

pub(crate) const CHECKS: &[Check] = &[
    ("ordinary_commands_work", ordinary_commands_work),
    (
        "exit_codes_and_signals_are_told",
        exit_codes_and_signals_are_told,
    ),
    (
        "the_user_is_1000_without_capabilities",
        the_user_is_1000_without_capabilities,
    ),
    ("the_receipt_says_what_is_so", the_receipt_says_what_is_so),
    ("there_is_no_network", there_is_no_network),
    ("the_root_is_read_only", the_root_is_read_only),
    (
        "files_and_processes_of_the_host_are_not_there",
        files_and_processes_of_the_host_are_not_there,
    ),
    (
        "the_first_process_is_out_of_reach",
        the_first_process_is_out_of_reach,
    ),
    (
        "the_environment_is_the_box_own",
        the_environment_is_the_box_own,
    ),
    ("no_descriptor_is_inherited", no_descriptor_is_inherited),
    ("changes_land_in_the_layer", changes_land_in_the_layer),
    (
        "no_setuid_file_and_no_device_can_be_made",
        no_setuid_file_and_no_device_can_be_made,
    ),
    ("the_built_in_tools_work", the_built_in_tools_work),
    (
        "a_script_is_run_by_its_words_with_its_pipes_and_no_shell",
        a_script_is_run_by_its_words_with_its_pipes_and_no_shell,
    ),
    (
        "a_tool_gets_its_call_and_starts_nothing",
        a_tool_gets_its_call_and_starts_nothing,
    ),
    ("output_is_cut", output_is_cut),
    (
        "processes_memory_and_tmp_are_bounded",
        processes_memory_and_tmp_are_bounded,
    ),
];

fn ordinary_commands_work(host: &Host) {
    // Not ls and stat: those of coreutils 9 ask for something that gVisor of 2022 does not know.
    let script = "set -e; cd /tmp; printf 'b\\na\\n' > x; sort x | head -n 1; mkdir d; cat x > d/x; \
                  sed s/a/c/ x | grep c; awk 'END { print NR }' x; id -un; pwd; wait; echo done";
    let outcome = host.shell(script);
    assert_eq!(outcome.stdout, "a\nc\n2\nbox\n/tmp\ndone\n", "{outcome:?}");
    assert_eq!(outcome.stderr, "");
    assert_eq!(host.argv(&["pwd"]).stdout, "/workspace\n");
    // By its name, without a shell: what would be syntax is text.
    assert_eq!(
        host.argv(&["printf", "%s", "$HOME; a|b"]).stdout,
        "$HOME; a|b"
    );
}

fn exit_codes_and_signals_are_told(host: &Host) {
    assert_eq!(host.shell("exit 3").end, RunEnd::Exited { code: 3 });
    assert_eq!(
        host.shell("kill -KILL $$").end,
        RunEnd::Signalled { signal: 9 }
    );
    assert_eq!(
        host.shell("kill -SEGV $$; sleep 5").end,
        RunEnd::Signalled { signal: 11 }
    );
    let missing = host.argv(&["no-such-program"]);
    assert_eq!(missing.end, RunEnd::Exited { code: 127 });
    assert!(missing.stderr.contains("no-such-program"), "{missing:?}");
    assert_eq!(
        host.argv(&["/etc/passwd"]).end,
        RunEnd::Exited { code: 126 }
    );
    // SIGPIPE is not ignored: the writer dies instead of going on for ever.
    assert_eq!(host.shell("yes | head -n 1").stdout, "y\n");
}

fn the_user_is_1000_without_capabilities(host: &Host) {
    assert_eq!(
        host.shell("id -u; id -g; id -ru; id -G").stdout,
        "1000\n1000\n1000\n1000\n"
    );
    let status = host.argv(&["cat", "/proc/self/status"]).stdout;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(set), Some("0000000000000000"), "{set}");
    }
    assert_eq!(field("Seccomp:"), Some("2"));
    // What gVisor does not tell in this file, the receipt has from prctl(2).
    if host.backend != Backend::Gvisor {
        assert_eq!(field("CapAmb:"), Some("0000000000000000"));
        assert_eq!(field("NoNewPrivs:"), Some("1"));
        assert_eq!(field("SigIgn:"), Some("0000000000000000"));
        assert_eq!(field("SigBlk:"), Some("0000000000000000"));
    }
}

fn the_receipt_says_what_is_so(host: &Host) {
    let outcome = host.shell(
        "for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; true",
    );
    let receipt = &outcome.receipt;
    assert_eq!(receipt.backend, host.backend.name());
    assert!(
        receipt.no_new_privs && receipt.seccomp.is_some(),
        "{receipt:?}"
    );
    assert_eq!(
        (receipt.uid, receipt.network.as_str(), receipt.root.as_str()),
        (1000, "none", "read-only")
    );
    let sets = receipt
        .capabilities
        .split(' ')
        .filter(|word| !word.starts_with("Cap"));
    assert!(
        sets.clone().count() >= 4 && sets.clone().all(|set| set.bytes().all(|c| c == b'0')),
        "{receipt:?}"
    );
    if host.backend == Backend::Gvisor {
        assert_eq!(
            (receipt.landlock_abi, receipt.memory.starts_with("cgroup")),
            (0, true)
        );
        return;
    }
    assert!(receipt.landlock_abi >= 4);
    assert_eq!(
        receipt.namespaces,
        ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]
    );
    for inside in outcome.stdout.lines() {
        let (name, _) = inside.split_once(':').unwrap();
        let outside = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(outside.to_str().unwrap(), inside);
    }
    // Rootless, cgroup v1 belongs to others.
    let rootless = host.backend == Backend::Podman && !rustix::process::geteuid().is_root();
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert_eq!(
        receipt.memory == "best effort",
        rootless && !v2,
        "{receipt:?}"
    );
}

fn there_is_no_network(host: &Host) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let name = format!("bulkhead-test-{}", std::process::id());
    let _abstract =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for act in [
        ["tcp", &tcp.local_addr().unwrap().to_string()],
        ["udp", &udp.local_addr().unwrap().to_string()],
        ["abstract", &name],
    ] {
        assert_eq!(host.outside(&act), "allowed", "{act:?}");
        // A loopback of its own takes what nobody receives.
        let inside = host.inside(&act);
        assert!(inside == "refused" || act[0] == "udp", "{act:?}");
    }
    udp.set_nonblocking(true).unwrap();
    udp.recv(&mut [0]).unwrap();
    assert!(udp.recv(&mut [0]).is_err(), "something came out of the box");
    let interfaces = host.shell("cat /proc/net/dev | grep : | grep -v lo:");
    assert_eq!(interfaces.stdout, "");
}

fn the_root_is_read_only(host: &Host) {
    for path in ["/x", "/usr/x", "/etc/x", "/run/bulkhead/x", "/usr/bin/env"] {
        let outcome = host.shell(&format!("echo x > {path}"));
        assert_ne!(
            outcome.end,
            RunEnd::Exited { code: 0 },
            "{path}: {outcome:?}"
        );
    }
    assert_eq!(
        host.shell("echo x > /tmp/x && echo x > /workspace/x").end,
        RunEnd::Exited { code: 0 }
    );
}

fn files_and_processes_of_the_host_are_not_there(host: &Host) {
    let canary = host.folder.path().join("canary");
    std::fs::write(&canary, "x").unwrap();
    let canary = canary.to_str().unwrap();
    assert_eq!(host.outside(&["read", canary]), "allowed");
    let pid = std::process::id().to_string();
    let socket = host.socket.to_str().unwrap();
    assert_eq!(host.outside(&["signal", &pid]), "allowed");
    assert_eq!(host.outside(&["unix", socket]), "allowed");
    for act in [
        ["read", canary],
        ["unix", socket],
        ["signal", &pid],
        ["read", "/etc/shadow"],
        ["list", "/root"],
        ["list", "/home"],
        ["list", "/sys/fs/cgroup"],
        ["read", "/proc/1/mem"],
    ] {
        assert_eq!(host.inside(&act), "refused", "{act:?}");
    }
    // gVisor shows it: what the engine itself gave the container.
    let environ = host
        .shell("tr '\\0' '\\n' < /proc/1/environ 2> /dev/null; true")
        .stdout;
    let own = |line: &str| {
        ["PATH=", "HOME=", "HOSTNAME=box"]
            .iter()
            .any(|own| line.starts_with(own))
    };
    assert!(environ.lines().all(own), "{environ}");
    // gVisor's has the files that an engine writes, and they say nothing of the host.
    let told = host
        .shell("cat /etc/hostname /etc/resolv.conf 2> /dev/null; true")
        .stdout;
    let own = |line: &str| ["box", "nameserver 127.0.0.1", ""].contains(&line);
    assert!(told.lines().all(own), "{told}");
    // Every process there is one of the box: the shell, and what it runs.
    let many = host
        .shell("echo /proc/[0-9]*")
        .stdout
        .split_whitespace()
        .count();
    assert!(many <= 4, "{many} processes");
}

/// What it writes is believed, so nothing of the box may write in its place, or end it and go on.
fn the_first_process_is_out_of_reach(host: &Host) {
    let script = "kill -KILL 1; kill -TERM 1; kill -INT 1; kill -STOP 1; sleep 0.2; echo alive";
    let outcome = host.shell(script);
    let expected = (RunEnd::Exited { code: 0 }, "alive\n");
    assert_eq!(
        (outcome.end, outcome.stdout.as_str()),
        expected,
        "{outcome:?}"
    );
    let mut forged = outcome.clone();
    forged.stdout = "forged".to_owned();
    let reply = InnerReply::Finished {
        nonce: Nonce([0; 16]),
        outcome: forged,
    };
    std::fs::write(
        host.workspace().join("frame"),
        protocol::frame::encode(&reply).unwrap(),
    )
    .unwrap();
    let outcome = host.shell("cat frame >> /proc/1/fd/1 && sleep 5; echo refused");
    let refused =
        (outcome.end, outcome.stdout.as_str()) == (RunEnd::Exited { code: 0 }, "refused\n");
    // gVisor lets root's box open that descriptor. What comes of it is not believed, and the end.
    let ended = (outcome.end, outcome.stdout.as_str()) == (RunEnd::Signalled { signal: 9 }, "");
    assert!(
        refused || ended && host.backend == Backend::Gvisor,
        "{outcome:?}"
    );
}

fn the_environment_is_the_box_own(host: &Host) {
    let outcome = host.shell("env | sort");
    let names: Vec<_> = outcome
        .stdout
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    assert_eq!(
        names,
        [
            "GIT_CONFIG_COUNT",
            "GIT_CONFIG_KEY_0",
            "GIT_CONFIG_KEY_1",
            "GIT_CONFIG_VALUE_0",
            "GIT_CONFIG_VALUE_1",
            "GIT_OPTIONAL_LOCKS",
            "HOME",
            "LANG",
            "PATH",
            "PWD",
            "TERM"
        ],
        "{outcome:?}"
    );
    assert_eq!(host.shell("hostname").stdout, "box\n");
}

fn no_descriptor_is_inherited(host: &Host) {
    // 3 is the shell's own, of the folder that it lists.
    let outcome = host.shell("echo /proc/$$/fd/*");
    let names = outcome
        .stdout
        .split_whitespace()
        .filter_map(|path| path.rsplit('/').next());
    assert!(names.clone().count() >= 3, "{outcome:?}");
    assert!(
        names
            .clone()
            .all(|name| ["0", "1", "2", "3", "10", "255"].contains(&name)),
        "{outcome:?}"
    );
    assert_eq!(host.shell("read line; echo $?").stdout, "1\n");
}

fn changes_land_in_the_layer(host: &Host) {
    for (name, text) in [("kept", "kept"), ("changed", "before"), ("removed", "x")] {
        std::fs::write(host.workspace().join(name), text).unwrap();
    }
    let (program, kind) = host.connected();
    let expected = match host.backend {
        Backend::Gvisor => LayerKind::Copy,
        _ => LayerKind::Overlay,
    };
    assert_eq!(kind, expected);
    let layer = host.layer(kind);
    let script = "cat kept; echo after > changed; rm removed; mkdir new; echo x > new/file; ln -s file new/link";
    let request = protocol::engine::EngineRequest::Run {
        action: shell(script),
        limits: host.limits(),
        workspace: host.workspace(),
        layer: layer.clone(),
    };
    program.link.send(&request).unwrap();
    let outcome = finished(&program);
    assert_eq!(
        (outcome.end, outcome.stdout.as_str()),
        (RunEnd::Exited { code: 0 }, "kept"),
        "{outcome:?}"
    );
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).ok();
    let (there, removed) = match &layer {
        protocol::workspace::LayerFolders::Overlay { upper, .. } => {
            use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
            assert!(!upper.join("kept").exists());
            // A whiteout.
            let data = std::fs::symlink_metadata(upper.join("removed")).unwrap();
            (upper, data.file_type().is_char_device() && data.rdev() == 0)
        }
        protocol::workspace::LayerFolders::Copy { folder } => {
            (folder, !folder.join("removed").exists())
        }
    };
    assert!(removed);
    assert_eq!(read(there.join("changed")).unwrap(), "after\n");
    assert_eq!(read(there.join("new/file")).unwrap(), "x\n");
    assert_eq!(
        std::fs::read_link(there.join("new/link")).unwrap().to_str(),
        Some("file")
    );
    // The owner is whoever runs Bulkhead, so that they can keep or remove it.
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(there.join("new")).unwrap());
    assert_eq!(owner, rustix::process::geteuid().as_raw());
    // The workspace itself is as it was.
    assert_eq!(read(host.workspace().join("changed")).unwrap(), "before");
    assert!(host.workspace().join("removed").exists() && !host.workspace().join("new").exists());
}

fn no_setuid_file_and_no_device_can_be_made(host: &Host) {
    assert_eq!(host.inside(&["setuid"]), "refused");
    assert_eq!(host.inside(&["device"]), "refused");
    assert_eq!(host.outside(&["setuid"]), "allowed");
}

fn a_tool_gets_its_call_and_starts_nothing(host: &Host) {
    let call = ToolCall::ListFiles {
        path: WorkspacePath::parse(".").unwrap(),
        depth: 1,
    };
    let expected = serde_json::to_string(&call).unwrap();
    let outcome = host.run(Action::Tool { call }, host.limits());
    assert_eq!(outcome.end, RunEnd::Exited { code: 0 }, "{outcome:?}");
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(
        lines,
        [expected.as_str(), "other programs refused: true"],
        "{outcome:?}"
    );
}

fn a_script_is_run_by_its_words_with_its_pipes_and_no_shell(host: &Host) {
    let mut host = Host::new(host.backend, &host.socket);
    host.tool = crate::host::program("bulkhead-tool");
    let simple = |words: &[&str]| Simple::plain(words.iter().map(|word| (*word).into()).collect());
    let mut last = simple(&["sort"]);
    last.redirections.push(Redirection {
        stream: Stream::Output,
        to: Target::Write {
            file: Place::Workspace {
                path: WorkspacePath::parse("sorted").unwrap(),
            },
        },
    });
    let step = |when, pipeline| Step { when, pipeline };
    let script = Script {
        steps: vec![
            step(
                When::Always,
                vec![simple(&["printf", "%s\\n", "b", "$HOME `id`"]), last],
            ),
            step(When::Succeeded, vec![simple(&["cat", "sorted"])]),
            step(When::Always, vec![simple(&["false"])]),
        ],
    };
    let outcome = host.run(Action::Script { script }, host.limits());
    assert_eq!(outcome.stdout, "$HOME `id`\nb\n", "{outcome:?}");
    assert_eq!(outcome.end, RunEnd::Exited { code: 1 }, "{outcome:?}");
}

fn the_built_in_tools_work(host: &Host) {
    let mut host = Host::new(host.backend, &host.socket);
    host.tool = crate::host::program("bulkhead-tool");
    std::fs::write(host.workspace().join("notes"), "one\ntwo\n").unwrap();
    let path = |path: &str| WorkspacePath::parse(path).unwrap();
    let run = |call| {
        let outcome = host.run(Action::Tool { call }, host.limits());
        assert_eq!(outcome.end, RunEnd::Exited { code: 0 }, "{outcome:?}");
        outcome.stdout
    };
    let text = run(ToolCall::ReadFile {
        path: path("notes"),
        first_line: 2,
        lines: 1,
    });
    assert!(text.contains("two") && !text.contains("one"), "{text}");
    let listed = run(ToolCall::ListFiles {
        path: path("."),
        depth: 1,
    });
    assert!(listed.contains("notes"), "{listed}");
    run(ToolCall::EditFile {
        path: path("notes"),
        old: "two".to_owned(),
        new: "three".to_owned(),
    });
    // Where a layer holds what changed: of an overlay, or of a copy.
    let changed = |name: &str| {
        let layer = host.newest_layer();
        let folders = [layer.join("upper"), layer];
        let texts = folders.map(|folder| std::fs::read_to_string(folder.join(name)).ok());
        texts.into_iter().flatten().next()
    };
    assert_eq!(changed("notes").unwrap(), "one\nthree\n");
    run(ToolCall::WriteFile {
        path: path("folder/new"),
        content: "new".to_owned(),
    });
    assert_eq!(changed("folder/new").unwrap(), "new");
}

fn output_is_cut(host: &Host) {
    let limits = Limits {
        output_bytes: 1000,
        ..host.limits()
    };
    let outcome = host.run(
        shell("head -c 20000000 /dev/zero | tr '\\0' x; echo said >&2"),
        limits,
    );
    assert_eq!((outcome.stdout.len(), outcome.truncated), (1000, true));
    assert_eq!(outcome.stderr, "said\n");
    assert_eq!(outcome.end, RunEnd::Exited { code: 0 });
    let short = host.shell("printf '\\377\\000x'");
    assert_eq!(
        (short.stdout.as_str(), short.truncated),
        ("\u{fffd}\0x", false)
    );
}

fn processes_memory_and_tmp_are_bounded(host: &Host) {
    let limits = Limits {
        memory_bytes: 128 << 20,
        pids: 32,
        tmp_bytes: 4 << 20,
        ..host.limits()
    };
    let run = |act: &[&str]| {
        let argv = [crate::inside::TOOL, "inside"]
            .into_iter()
            .chain(act.iter().copied());
        let argv = argv.map(str::to_owned).collect();
        host.run(Action::Argv { argv }, limits.clone())
    };
    let one = run(&["allocate", "256"]);
    let got: usize = one.stdout.trim().parse().unwrap_or(0);
    assert!(got < 128, "{one:?}");
    let tmp = host.run(
        shell("head -c 8000000 /dev/zero > /tmp/x; wc -c < /tmp/x"),
        limits.clone(),
    );
    let got: usize = tmp.stdout.trim().parse().unwrap();
    assert!(got <= 4 << 20, "{tmp:?}");
    if host.backend == Backend::Gvisor {
        // Its kernel counts no processes. The host's cgroup counts its own, and ends all of it.
        let bomb = run(&["children", "2000"]);
        let got: usize = bomb.stdout.trim().parse().unwrap_or(0);
        assert!(got < 600, "{bomb:?}");
        return;
    }
    let bomb = run(&["children", "100"]);
    let got: usize = bomb.stdout.trim().parse().unwrap();
    // The container has a few more, for what makes the box.
    assert!((8..=48).contains(&got), "{bomb:?}");
    // Together, as only a cgroup or a watcher sees it.
    let together =
        "for i in 1 2 3 4 5 6; do (/run/bulkhead/tool inside hold 60 && echo held) & done; wait";
    let outcome = host.run(shell(together), limits.clone());
    assert!(
        outcome.stdout.lines().count() <= 2,
        "360 MiB fit into 128: {outcome:?}"
    );
}
