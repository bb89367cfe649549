//! What a command in a box sees and may do.

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use bulkhead_sandbox::probe;
use protocol::call::{Action, ToolCall, WorkspacePath};
use protocol::control::MemoryPolicy;
use protocol::runner::{Limits, RunEnd, RunOutcome};

use crate::host::{Host, Memory, argv_action};
use crate::{Test, inside};

pub(crate) const TESTS: &[Test] = &[
    ("ordinary_commands_work", ordinary_commands_work),
    (
        "exit_codes_and_signals_are_told",
        exit_codes_and_signals_are_told,
    ),
    (
        "the_user_is_1000_without_capabilities",
        the_user_is_1000_without_capabilities,
    ),
    (
        "the_receipt_says_what_the_kernel_says",
        the_receipt_says_what_the_kernel_says,
    ),
    ("there_is_no_network", there_is_no_network),
    ("the_root_is_read_only", the_root_is_read_only),
    (
        "no_cgroup_of_the_host_has_a_name",
        no_cgroup_of_the_host_has_a_name,
    ),
    (
        "files_of_the_host_are_not_there",
        files_of_the_host_are_not_there,
    ),
    (
        "processes_and_settings_of_the_host_are_not_there",
        processes_and_settings_of_the_host_are_not_there,
    ),
    (
        "the_environment_is_the_box_own",
        the_environment_is_the_box_own,
    ),
    (
        "no_descriptor_and_no_terminal_is_inherited",
        no_descriptor_and_no_terminal_is_inherited,
    ),
    (
        "what_is_written_to_the_workspace_is_on_the_host",
        what_is_written_to_the_workspace_is_on_the_host,
    ),
    (
        "no_setuid_file_and_no_device_can_be_made",
        no_setuid_file_and_no_device_can_be_made,
    ),
    (
        "the_kernel_is_reached_by_ordinary_calls_only",
        the_kernel_is_reached_by_ordinary_calls_only,
    ),
    (
        "processes_memory_and_tmp_are_bounded",
        processes_memory_and_tmp_are_bounded,
    ),
    (
        "a_tool_gets_its_call_and_starts_nothing",
        a_tool_gets_its_call_and_starts_nothing,
    ),
    (
        "a_command_that_is_none_is_refused",
        a_command_that_is_none_is_refused,
    ),
];

fn ordinary_commands_work(host: &Host) {
    let script = "set -e; cd /tmp; printf 'b\\na\\n' > x; sort x | head -n 1; mkdir d; cp x d; tar cf - d | tar tf - | wc -l; \
                  find d -name x; sed s/a/c/ x | grep c; awk 'END { print NR }' x; id -un; pwd; wait; echo done";
    let outcome = host.shell(script);
    assert_eq!(
        outcome.stdout, "a\n2\nd/x\nc\n2\nbox\n/tmp\ndone\n",
        "{outcome:?}"
    );
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
    assert!(
        std::fs::read_dir(host.workspace.path())
            .unwrap()
            .flatten()
            .all(|entry| entry.file_name() != "core")
    );
}

fn the_user_is_1000_without_capabilities(host: &Host) {
    assert_eq!(
        host.shell("id -u; id -g; id -ru").stdout,
        "1000\n1000\n1000\n"
    );
    let status = host.argv(&["cat", "/proc/self/status"]).stdout;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .trim()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1", "2"));
    assert_eq!(field("SigIgn:"), "0000000000000000");
    assert_eq!(field("SigBlk:"), "0000000000000000");
}

fn the_receipt_says_what_the_kernel_says(host: &Host) {
    let outcome =
        host.shell("for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done");
    let receipt = outcome.receipt;
    assert_eq!(
        receipt.namespaces,
        ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]
    );
    for inside in outcome.stdout.lines() {
        let (name, _) = inside.split_once(':').unwrap();
        let outside = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(outside.to_str().unwrap(), inside);
    }
    assert_eq!(outcome.stdout.lines().count(), 7);
    assert_eq!(receipt.uid, 1000);
    assert!(receipt.no_new_privs && receipt.seccomp.is_some() && receipt.landlock_abi >= 4);
    assert!(
        receipt.capabilities.contains("CapEff 0000000000000000"),
        "{}",
        receipt.capabilities
    );
    assert!(
        Memory::of_this_machine().is_called(&receipt.memory),
        "{}",
        receipt.memory
    );
    for (told, expected) in [
        (&receipt.backend, "native"),
        (&receipt.network, "none"),
        (&receipt.root, "read-only"),
        (&receipt.workspace, "overlay"),
    ] {
        assert_eq!(told, expected);
    }
    let limits = Limits {
        wall_seconds: 60,
        ..Limits::default()
    };
    assert_eq!(receipt.limits, limits);
}

fn there_is_no_network(host: &Host) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let name = format!("bulkhead-test-{}", std::process::id());
    let _abstract =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _unix = UnixListener::bind(&path).unwrap();
    let (tcp, udp) = (
        tcp.local_addr().unwrap().to_string(),
        udp.local_addr().unwrap().to_string(),
    );
    for act in [
        ["tcp", &tcp],
        ["udp", &udp],
        ["abstract", &name],
        ["unix", path.to_str().unwrap()],
    ] {
        assert_eq!(host.outside(&act), "allowed", "{act:?}");
        assert_eq!(host.inside(&act), "refused", "{act:?}");
    }
}

fn the_root_is_read_only(host: &Host) {
    for path in [
        "/x",
        "/usr/x",
        "/etc/x",
        "/dev/x",
        "/run/x",
        "/var/x",
        "/bin/x",
        "/run/bulkhead/tool",
    ] {
        let outcome = host.shell(&format!("echo x > {path}"));
        assert_ne!(outcome.end, RunEnd::Exited { code: 0 }, "{path}");
        assert!(
            outcome.stderr.contains("Read-only file system")
                || outcome.stderr.contains("Permission denied"),
            "{outcome:?}"
        );
    }
    for path in [
        "/tmp/x",
        "/workspace/x",
        "/dev/shm/x",
        "/var/tmp/x",
        "/dev/null",
    ] {
        assert_eq!(
            host.shell(&format!("echo x > {path}")).end,
            RunEnd::Exited { code: 0 },
            "{path}"
        );
    }
    // Device nodes are the host's own.
    assert_ne!(
        host.argv(&["chmod", "600", "/dev/null"]).end,
        RunEnd::Exited { code: 0 }
    );
}

fn no_cgroup_of_the_host_has_a_name(host: &Host) {
    let groups = host.argv(&["cat", "/proc/self/cgroup"]).stdout;
    assert!(!groups.is_empty());
    for line in groups.lines() {
        assert_eq!(line.rsplit(':').next(), Some("/"), "{groups}");
    }
}

fn files_of_the_host_are_not_there(host: &Host) {
    let canary = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(canary.path(), "canary").unwrap();
    let path = canary.path().to_str().unwrap();
    assert_eq!(host.outside(&["read", path]), "allowed");
    for path in [
        path,
        "/etc/shadow",
        "/etc/ssh",
        "/root",
        "/home",
        "/var/log",
        "/var/lib",
        "/sys",
        "/boot",
        "/proc/kcore",
    ] {
        assert_eq!(host.inside(&["read", path]), "refused", "{path}");
    }
    let passwd = host.argv(&["cat", "/etc/passwd", "/etc/group"]).stdout;
    assert_eq!(passwd, "box:x:1000:1000:box:/tmp:/bin/sh\nbox:x:1000:\n");
    // A link in the workspace leads to the box' files, not to the host's.
    std::os::unix::fs::symlink(path, host.workspace.path().join("link")).unwrap();
    assert_eq!(host.inside(&["read", "link"]), "refused");
    std::fs::remove_file(host.workspace.path().join("link")).unwrap();
    let names = host.shell("ls /");
    assert!(
        names
            .stdout
            .split_whitespace()
            .all(|name| KNOWN.contains(&name)),
        "{names:?}"
    );
}

const KNOWN: [&str; 14] = [
    "bin",
    "sbin",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "usr",
    "etc",
    "dev",
    "proc",
    "tmp",
    "run",
    "var",
    "workspace",
];

fn processes_and_settings_of_the_host_are_not_there(host: &Host) {
    let own = std::process::id().to_string();
    for path in [
        format!("/proc/{own}/status"),
        "/proc/sys/kernel/hostname".into(),
        "/proc/cpuinfo".into(),
    ] {
        assert_eq!(host.outside(&["read", &path]), "allowed");
        assert_eq!(host.inside(&["read", &path]), "refused", "{path}");
    }
    assert_eq!(host.inside(&["read", "/proc/1/environ"]), "refused");
    assert_eq!(host.outside(&["signal", &own]), "allowed");
    assert_eq!(host.inside(&["signal", &own]), "refused");
    // Init is hidden, and the shell and ls are alone.
    let names = host.shell("ls /proc").stdout;
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        ["2", "3", "self", "thread-self"]
    );
    assert_eq!(host.argv(&["uname", "-n"]).stdout, "box\n");
}

fn the_environment_is_the_box_own(host: &Host) {
    let exe = std::env::current_exe().unwrap();
    // A process that has the canary in its environment starts the box.
    let output = std::process::Command::new(exe)
        .env("BULKHEAD_CANARY", "secret")
        .arg("outlived")
        .arg(&host.helper)
        .arg("environment")
        .output()
        .unwrap();
    let mut lines: Vec<&str> = std::str::from_utf8(&output.stdout)
        .unwrap()
        .lines()
        .collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "GIT_CONFIG_COUNT=2",
            "GIT_CONFIG_KEY_0=safe.bareRepository",
            "GIT_CONFIG_KEY_1=core.fsmonitor",
            "GIT_CONFIG_VALUE_0=explicit",
            "GIT_CONFIG_VALUE_1=false",
            "GIT_OPTIONAL_LOCKS=0",
            "HOME=/tmp",
            "LANG=C.UTF-8",
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "TERM=dumb"
        ],
        "{output:?}"
    );
}

fn no_descriptor_and_no_terminal_is_inherited(host: &Host) {
    let secret = tempfile::tempfile().unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    // The fourth is that of the folder being listed.
    assert_eq!(host.argv(&["ls", "/proc/self/fd"]).stdout, "0\n1\n2\n3\n");
    assert_eq!(
        host.shell("cat; test -t 0 || test -t 1 || test -t 2 || test -e /dev/tty || echo none")
            .stdout,
        "none\n"
    );
}

fn what_is_written_to_the_workspace_is_on_the_host(host: &Host) {
    host.shell("mkdir -p a && echo hello > a/b && chmod 750 a/b");
    let path = host.workspace.path().join("a/b");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "hello\n");
    let data = std::fs::metadata(&path).unwrap();
    assert_eq!(
        (data.uid(), data.mode() & 0o7777),
        (rustix::process::geteuid().as_raw(), 0o750)
    );
    assert_eq!(host.argv(&["stat", "-c", "%u", "a/b"]).stdout, "1000\n");
}

fn no_setuid_file_and_no_device_can_be_made(host: &Host) {
    for act in ["chmod", "fchmod", "open", "mkdir", "mknod"] {
        assert_eq!(host.inside(&[act]), "refused", "{act}");
        assert_eq!(host.outside(&[act]), "allowed", "{act}");
    }
    assert_eq!(host.inside(&["device"]), "refused");
}

fn the_kernel_is_reached_by_ordinary_calls_only(host: &Host) {
    for probe in probe::ALL {
        let expected = match probe.name {
            "execve" | "execveat" | "socket(AF_UNIX)" | "socketpair" => "allowed",
            _ => "refused",
        };
        assert_eq!(
            host.outside(&["call", probe.name]),
            "allowed",
            "{}",
            probe.name
        );
        assert_eq!(
            host.inside(&["call", probe.name]),
            expected,
            "{}",
            probe.name
        );
    }
    assert_ne!(
        host.argv(&["unshare", "--user", "true"]).end,
        RunEnd::Exited { code: 0 }
    );
    assert_ne!(
        host.argv(&["mount", "-t", "tmpfs", "none", "/tmp"]).end,
        RunEnd::Exited { code: 0 }
    );
}

fn processes_memory_and_tmp_are_bounded(host: &Host) {
    const PIDS: u32 = 24;
    let limits = Limits {
        pids: PIDS,
        memory_bytes: 256 * 1024 * 1024,
        tmp_bytes: 4 * 1024 * 1024,
        wall_seconds: 60,
        ..Limits::default()
    };
    let inside = |act: &[&str]| {
        let argv: Vec<&str> = [inside::TOOL, "inside"]
            .into_iter()
            .chain(act.iter().copied())
            .collect();
        let spec = bulkhead_sandbox::run::Job {
            limits: limits.clone(),
            ..host.job(argv_action(&argv))
        };
        host.run(spec).unwrap()
    };
    let children: u32 = inside(&["children", "500"]).stdout.trim().parse().unwrap();
    assert!(children > 4 && children < PIDS, "{children}");
    let killed = |outcome: &RunOutcome| {
        outcome.end == (RunEnd::Signalled { signal: 9 })
            && outcome.stderr.contains("268435456 bytes of memory")
    };
    // One process is told that there is no more, or is killed, whichever limit is met first.
    let one = inside(&["allocate", "300"]);
    let got: u32 = one.stdout.trim().parse().unwrap_or(0);
    assert!(killed(&one) || got > 100 && got < 256, "{one:?}");
    // Each of these is below the limit, and all together are above it. A cgroup of version 1 kills
    // as many as it takes, the watcher all of them.
    let all = inside(&["together", "8", "60"]);
    let survived: u32 = all.stdout.trim().parse().unwrap_or(0);
    let held = Memory::of_this_machine().is_held();
    assert!(killed(&all) || held && survived < 5, "{all:?}");
    assert_eq!(inside(&["together", "2", "60"]).stdout, "2\n");
    let spec = host.job(Action::Shell {
        script: "head -c 8M /dev/zero > /tmp/x; stat -c %s /tmp/x".to_owned(),
    });
    let size: u64 = host
        .run(bulkhead_sandbox::run::Job { limits, ..spec })
        .unwrap()
        .stdout
        .trim()
        .parse()
        .unwrap();
    assert!(size > 0 && size <= 4 * 1024 * 1024, "{size}");
    assert_eq!(host.outside(&["children", "40"]), "40");
}

fn a_tool_gets_its_call_and_starts_nothing(host: &Host) {
    let call = ToolCall::WriteFile {
        path: WorkspacePath::parse("a").unwrap(),
        content: "é".repeat(200_000),
    };
    let json = serde_json::to_string(&call).unwrap();
    let spec = host.job(Action::Tool { call });
    let limits = Limits {
        output_bytes: 1024 * 1024,
        ..spec.limits.clone()
    };
    let outcome = host
        .run(bulkhead_sandbox::run::Job { limits, ..spec })
        .unwrap();
    assert_eq!(
        outcome.stdout,
        format!("{json}\nother programs refused: true; thread: 7\n"),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.end, RunEnd::Exited { code: 0 });
    assert_eq!(
        std::fs::read_to_string(host.workspace.path().join("tool-was-here")).unwrap(),
        json
    );
    let exec = host.argv(&["true"]);
    assert_ne!(exec.receipt.seccomp, outcome.receipt.seccomp);
}

fn a_command_that_is_none_is_refused(host: &Host) {
    for argv in [&[][..], &[""], &["a\0b"]] {
        assert!(host.run(host.job(argv_action(argv))).is_err(), "{argv:?}");
    }
    let nowhere = Path::new("/nonexistent/workspace");
    let boxes = Host::boxes(
        &host.helper,
        nowhere,
        MemoryPolicy::BestEffort,
        host.layers.clone(),
    );
    let refused = boxes.unwrap().run(host.job(argv_action(&["true"])));
    let refused = refused.unwrap_err();
    assert!(
        refused.reason.contains("/nonexistent/workspace"),
        "{refused:?}"
    );
}
