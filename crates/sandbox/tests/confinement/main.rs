//! Each program's confinement, tried from inside: this executable confines itself as a program
//! and attempts what it must not do. Every attempt is also made unconfined, where it must
//! succeed, so that a refusal is the confinement's.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests by libtest's attribute, which these have not"
)]

#[path = "../harness/mod.rs"]
mod harness;
mod inside;
mod users;

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Programs that start no other and have a list of what they may call.
const LISTED: [&str; 8] = [
    "gateway",
    "agent",
    "egress",
    "vault",
    "ledger",
    "workspace",
    "web",
    "telegram",
];
/// Programs that start others.
const STARTERS: [&str; 2] = ["supervisor", "sandbox"];

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "listed_programs_reach_no_call_that_they_do_not_need",
        listed_programs_reach_no_call_that_they_do_not_need,
    ),
    (
        "starters_reach_no_call_that_nobody_needs",
        starters_reach_no_call_that_nobody_needs,
    ),
    (
        "a_program_opens_its_own_files_and_no_others",
        a_program_opens_its_own_files_and_no_others,
    ),
    (
        "who_keeps_folders_moves_all_between_them_and_nothing_out",
        who_keeps_folders_moves_all_between_them_and_nothing_out,
    ),
    ("only_egress_connects", only_egress_connects),
    (
        "no_listed_program_starts_another",
        no_listed_program_starts_another,
    ),
    ("no_program_maps_new_code", no_program_maps_new_code),
    (
        "no_program_makes_a_setuid_file",
        no_program_makes_a_setuid_file,
    ),
    (
        "a_parent_is_closed_to_its_confined_child",
        a_parent_is_closed_to_its_confined_child,
    ),
    (
        "threads_files_and_links_still_work",
        threads_files_and_links_still_work,
    ),
    (
        "the_kernel_says_that_it_is_confined",
        the_kernel_says_that_it_is_confined,
    ),
    (
        "programs_of_root_have_users_of_their_own_and_no_group_besides",
        users::programs_of_root_have_users_of_their_own_and_no_group_besides,
    ),
    (
        "no_signal_and_no_look_goes_from_one_program_s_user_to_another_s_without_any_confinement",
        users::no_signal_and_no_look_goes_from_one_program_s_user_to_another_s_without_any_confinement,
    ),
    (
        "root_s_files_stay_root_s_for_who_keeps_them_and_nobody_else_has_them",
        users::root_s_files_stay_root_s_for_who_keeps_them_and_nobody_else_has_them,
    ),
    (
        "a_supervisor_that_could_not_end_its_programs_does_not_start",
        users::a_supervisor_that_could_not_end_its_programs_does_not_start,
    ),
    (
        "an_ordinary_user_is_confined_the_same",
        an_ordinary_user_is_confined_the_same,
    ),
    (
        "each_program_has_namespaces_of_its_own_and_only_egress_the_network_of_the_machine",
        each_program_has_namespaces_of_its_own_and_only_egress_the_network_of_the_machine,
    ),
    (
        "a_program_takes_no_more_than_its_limits",
        a_program_takes_no_more_than_its_limits,
    ),
    (
        "who_builds_boxes_writes_to_its_own_folders_and_does_not_see_what_is_hidden",
        who_builds_boxes_writes_to_its_own_folders_and_does_not_see_what_is_hidden,
    ),
    (
        "a_program_dies_with_its_parent",
        a_program_dies_with_its_parent,
    ),
    (
        "a_second_thread_or_a_missing_file_is_an_error",
        a_second_thread_or_a_missing_file_is_an_error,
    ),
    (
        "stop_signals_wait_to_be_taken",
        stop_signals_wait_to_be_taken,
    ),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "inside") {
        return inside::main(args[1..].to_vec());
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match harness::asked(&args) {
        harness::Asked::List => harness::list(&args, TESTS.iter().map(|(name, _)| *name)),
        harness::Asked::One(wanted) => {
            let test = TESTS.iter().find(|(name, _)| *name == wanted);
            run(test.expect("the test is on the list"));
        }
        harness::Asked::All => TESTS.iter().for_each(run),
    }
}

fn run((name, test): &Test) {
    let begun = Instant::now();
    test();
    println!("test {name} ... ok ({} ms)", begun.elapsed().as_millis());
}

fn listed_programs_reach_no_call_that_they_do_not_need() {
    for probe in bulkhead_sandbox::probe::ALL {
        assert_eq!(
            attempt("unconfined", &["call", probe.name]),
            "allowed",
            "{}",
            probe.name
        );
        for program in LISTED {
            let expected = match (program, probe.name) {
                ("egress", "socket(AF_INET)" | "socketpair") => "allowed",
                _ => "refused",
            };
            assert_eq!(
                attempt(program, &["call", probe.name]),
                expected,
                "{program} {}",
                probe.name
            );
        }
    }
}

fn starters_reach_no_call_that_nobody_needs() {
    for name in [
        "ptrace",
        "process_vm_readv",
        "pidfd_getfd",
        "setns",
        "io_uring_setup",
        "keyctl",
        "add_key",
        "socket(AF_NETLINK)",
    ] {
        for program in STARTERS {
            assert_eq!(
                attempt(program, &["call", name]),
                "refused",
                "{program} {name}"
            );
        }
    }
    for name in ["memfd_create", "clone3", "name_to_handle_at"] {
        assert_eq!(attempt("sandbox", &["call", name]), "refused", "{name}");
    }
}

fn a_program_opens_its_own_files_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path());
    let canary = dir.path().join("canary");
    std::fs::write(&canary, "x").unwrap();
    open_to_all(&canary);
    let canary = canary.to_str().unwrap();
    for (act, control) in [
        ("read", "allowed"),
        ("append", "allowed"),
        ("truncate", "allowed"),
    ] {
        assert_eq!(attempt("unconfined", &[act, canary]), control, "{act}");
        for program in LISTED {
            assert_eq!(
                attempt(program, &[act, canary]),
                "refused",
                "{program} {act}"
            );
        }
    }
    for program in LISTED {
        assert_eq!(attempt(program, &["list", "/usr"]), "refused", "{program}");
        assert_eq!(
            attempt(program, &["read", "/proc/self/environ"]),
            "refused",
            "{program}"
        );
        if program != "egress" {
            assert_eq!(
                attempt(program, &["read", "/etc/hosts"]),
                "refused",
                "{program}"
            );
        }
    }
    assert_eq!(attempt("egress", &["read", "/etc/hosts"]), "allowed");
    // What it names, it has, and not more than it says.
    let folder = dir.path().join("own");
    std::fs::create_dir(&folder).unwrap();
    open_to_all(&folder);
    let inside = folder.join("file");
    std::fs::write(&inside, "x").unwrap();
    open_to_all(&inside);
    let (folder, inside) = (folder.to_str().unwrap(), inside.to_str().unwrap());
    for program in ["gateway", "vault", "ledger"] {
        assert_eq!(
            attempt_with(program, &["--read", folder], &["read", inside]),
            "allowed",
            "{program}"
        );
        assert_eq!(
            attempt_with(program, &["--read", folder], &["append", inside]),
            "refused",
            "{program}"
        );
        assert_eq!(
            attempt_with(program, &["--write", folder], &["append", inside]),
            "allowed",
            "{program}"
        );
        assert_eq!(
            attempt_with(program, &["--write", folder], &["symlink", folder]),
            "refused",
            "{program}"
        );
    }
    assert_eq!(
        attempt_with("unconfined", &[], &["symlink", folder]),
        "allowed"
    );
}

fn who_keeps_folders_moves_all_between_them_and_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path());
    let folder = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        open_to_all(&path);
        path.to_str().unwrap().to_owned()
    };
    let (one, two, outside) = (folder("one"), folder("two"), folder("outside"));
    let keep = ["--keep", &one, "--keep", &two];
    assert_eq!(
        attempt_with("workspace", &keep, &["symlink", &one]),
        "allowed"
    );
    for (from, to, expected) in [
        (&one, &two, "allowed"),
        (&one, &outside, "refused"),
        (&outside, &two, "refused"),
    ] {
        std::fs::write(Path::new(from).join("file"), "x").unwrap();
        assert_eq!(
            attempt_with("workspace", &keep, &["move", from, to]),
            expected,
            "{from} {to}"
        );
    }
    assert_eq!(attempt("unconfined", &["move", &outside, &two]), "allowed");
    // It can make no program of what it keeps.
    assert_eq!(
        attempt_with("workspace", &keep, &["setuid", &one]),
        "refused"
    );
}

fn only_egress_connects() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for program in LISTED.into_iter().chain(["sandbox"]) {
        let expected = if program == "egress" {
            "allowed"
        } else {
            "refused"
        };
        assert_eq!(
            attempt(program, &["connect", &address]),
            expected,
            "{program}"
        );
        assert_eq!(
            attempt(program, &["udp", "127.0.0.1:0"]),
            expected,
            "{program}"
        );
        assert_eq!(
            attempt(program, &["listen", "127.0.0.1:0"]),
            "refused",
            "{program}"
        );
    }
    for act in [
        ["connect", &address],
        ["listen", "127.0.0.1:0"],
        ["udp", "127.0.0.1:0"],
    ] {
        assert_eq!(attempt("unconfined", &act), "allowed");
    }
}

fn no_listed_program_starts_another() {
    for program in LISTED {
        assert_eq!(
            attempt(program, &["start", "/bin/true"]),
            "refused",
            "{program}"
        );
    }
    for program in STARTERS.into_iter().chain(["unconfined"]) {
        assert_eq!(
            attempt(program, &["start", "/bin/true"]),
            "allowed",
            "{program}"
        );
    }
}

fn no_program_maps_new_code() {
    assert_eq!(attempt("unconfined", &["map-code"]), "allowed");
    for program in LISTED {
        assert_eq!(attempt(program, &["map-code"]), "refused", "{program}");
    }
}

fn no_program_makes_a_setuid_file() {
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path());
    let path = dir.path().to_str().unwrap();
    assert_eq!(attempt("unconfined", &["setuid", path]), "allowed");
    for program in LISTED {
        assert_eq!(
            attempt_with(program, &["--write", path], &["setuid", path]),
            "refused",
            "{program}"
        );
    }
}

fn a_parent_is_closed_to_its_confined_child() {
    let environ = format!("/proc/{}/environ", std::process::id());
    assert_eq!(attempt("unconfined", &["read", &environ]), "allowed");
    for program in LISTED.into_iter().chain(["sandbox"]) {
        assert_eq!(
            attempt(program, &["read", &environ]),
            "refused",
            "{program}"
        );
        assert_eq!(attempt(program, &["signal-parent"]), "refused", "{program}");
    }
    assert_eq!(attempt("unconfined", &["signal-parent"]), "allowed");
}

fn threads_files_and_links_still_work() {
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path());
    let path = dir.path().to_str().unwrap();
    for program in LISTED.into_iter().chain(STARTERS) {
        assert_eq!(attempt(program, &["threads"]), "allowed", "{program}");
        assert_eq!(attempt(program, &["link"]), "allowed", "{program}");
    }
    for program in ["gateway", "vault", "ledger"] {
        assert_eq!(
            attempt_with(program, &["--write", path], &["database", path]),
            "allowed",
            "{program}"
        );
    }
    for program in ["egress", "web", "telegram"] {
        assert_eq!(attempt(program, &["epoll"]), "allowed", "{program}");
    }
}

fn the_kernel_says_that_it_is_confined() {
    for program in LISTED.into_iter().chain(STARTERS) {
        let held = hold(program, As::Me);
        let status = held.status();
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(
                field(&status, set),
                capabilities(program, set),
                "{program} {set}"
            );
        }
        held.assert_closed(program);
    }
    let control = hold("unconfined", As::Me);
    assert_eq!(field(&control.status(), "NoNewPrivs"), "0");
    assert_eq!(field(&control.status(), "CapBnd"), own("CapBnd"));
}

/// What root keeps: to map its own id into a box, and in the supervisor (which gives and takes users) as well
/// `CAP_KILL`, `CAP_SETGID` and `CAP_SETUID`. Without a user namespace of its own, which the supervisor has not, an
/// ordinary user cannot empty its bounding set, which `no_new_privs` makes worthless.
fn capabilities(program: &str, set: &str) -> String {
    match (is_root(), program, set) {
        (true, "sandbox", "CapPrm" | "CapEff" | "CapBnd") => "0000000080000000".to_owned(),
        (true, "supervisor", "CapPrm" | "CapEff" | "CapBnd") => "00000000800000e0".to_owned(),
        (false, "supervisor", "CapBnd") => own("CapBnd"),
        (true | false, _, _) => "0000000000000000".to_owned(),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn own(name: &str) -> String {
    field(&std::fs::read_to_string("/proc/self/status").unwrap(), name).to_owned()
}

fn an_ordinary_user_is_confined_the_same() {
    for program in LISTED.into_iter().chain(STARTERS) {
        let held = hold(program, As::Ordinary);
        let status = held.status();
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(&status, set), "0000000000000000", "{program} {set}");
        }
        held.assert_closed(program);
        // Nobody of the same user may look into it: the kernel gives its files in /proc to root.
        assert_eq!(held.owner(), 0, "{program}");
    }
    assert_ne!(hold("unconfined", As::Ordinary).owner(), 0);
}

fn each_program_has_namespaces_of_its_own_and_only_egress_the_network_of_the_machine() {
    for user in [As::Me, As::Ordinary] {
        for program in LISTED.into_iter().chain(["sandbox"]) {
            let held = hold(program, user);
            for name in ["user", "ipc"] {
                assert_ne!(
                    held.namespace(name),
                    own_namespace(name),
                    "{program} {name}"
                );
            }
            assert_eq!(
                held.namespace("net") == own_namespace("net"),
                program == "egress",
                "{program}"
            );
            assert_eq!(
                held.namespace("mnt") != own_namespace("mnt"),
                program == "sandbox",
                "{program}"
            );
        }
        for program in ["supervisor", "unconfined"] {
            let held = hold(program, user);
            for name in ["user", "ipc", "net", "mnt"] {
                assert_eq!(
                    held.namespace(name),
                    own_namespace(name),
                    "{program} {name}"
                );
            }
        }
    }
}

fn own_namespace(name: &str) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap()
}

fn a_program_takes_no_more_than_its_limits() {
    for program in LISTED {
        let held = hold(program, As::Me);
        let limits = std::fs::read_to_string(held.proc("limits")).unwrap();
        for (name, most) in [
            ("Max open files", 4096),
            ("Max processes", 1024),
            ("Max data size", 4 << 30),
        ] {
            let line = limits
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            let numbers = line.split_whitespace().take(2).map(str::parse::<u64>);
            for number in numbers {
                let number = number.unwrap_or(u64::MAX);
                assert!(number <= most, "{program} {name}: {number}");
            }
        }
    }
    // It is held to them: the agent has 64 descriptors.
    assert_eq!(attempt("unconfined", &["descriptors", "100"]), "allowed");
    assert_eq!(attempt("agent", &["descriptors", "100"]), "refused");
    assert_eq!(attempt("agent", &["descriptors", "40"]), "allowed");
}

fn who_builds_boxes_writes_to_its_own_folders_and_does_not_see_what_is_hidden() {
    let dir = tempfile::tempdir().unwrap();
    open_to_all(dir.path());
    let file = |folder: &str| {
        let path = dir.path().join(folder);
        std::fs::create_dir(&path).unwrap();
        open_to_all(&path);
        let file = path.join("file");
        std::fs::write(&file, "x").unwrap();
        open_to_all(&file);
        file.to_str().unwrap().to_owned()
    };
    let (own, other, hidden) = (file("own"), file("other"), file("hidden"));
    let folder = |file: &str| {
        Path::new(file)
            .parent()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    let (own_folder, hidden_folder) = (folder(&own), folder(&hidden));
    let alone = dir.path().join("alone");
    std::fs::write(&alone, "x").unwrap();
    let alone = alone.to_str().unwrap();
    let files = [
        "--write",
        &own_folder,
        "--hide",
        &hidden_folder,
        "--hide",
        alone,
    ];
    for (act, path, expected) in [
        ("append", &own, "allowed"),
        ("read", &other, "allowed"),
        ("append", &other, "refused"),
        ("read", &hidden, "refused"),
        ("append", &hidden, "refused"),
    ] {
        assert_eq!(
            attempt("unconfined", &[act, path]),
            "allowed",
            "{act} {path}"
        );
        assert_eq!(
            attempt_with("sandbox", &files, &[act, path]),
            expected,
            "{act} {path}"
        );
    }
    assert_eq!(attempt("unconfined", &["full", alone]), "allowed");
    assert_eq!(attempt_with("sandbox", &files, &["full", alone]), "refused");
    for act in ["move", "uncover"] {
        let arguments = [act, &hidden_folder, &own_folder];
        assert_eq!(
            attempt_with("sandbox", &files, &arguments),
            "refused",
            "{act}"
        );
    }
    assert_eq!(
        attempt("unconfined", &["move", &hidden_folder, &own_folder]),
        "allowed"
    );
}

fn a_program_dies_with_its_parent() {
    for (program, dies) in [("gateway", true), ("sandbox", true), ("supervisor", false)] {
        // Its standard input is ours, so that nothing but its parent's death can end it.
        let mut parent = command(&["as-parent", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid: u32 = line(parent.stdout.take().unwrap()).parse().unwrap();
        assert!(alive(pid), "{program}");
        parent.kill().unwrap();
        let stdin = parent.stdin.take();
        parent.wait().unwrap();
        let until = Instant::now() + Duration::from_secs(if dies { 10 } else { 1 });
        while alive(pid) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(alive(pid), !dies, "{program}");
        drop(stdin);
    }
}

fn a_second_thread_or_a_missing_file_is_an_error() {
    let threads = failure("gateway", &[], &["--thread-first"]);
    assert!(threads.contains("2 threads"), "{threads}");
    let missing = failure("ledger", &["--write", "/nonexistent/bulkhead"], &[]);
    assert!(missing.contains("/nonexistent/bulkhead"), "{missing}");
}

fn stop_signals_wait_to_be_taken() {
    let mut child = command(&["wait-for-stop"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    out.read_line(&mut text).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    out.read_line(&mut text).unwrap();
    assert_eq!(text, "blocked\nTerminate\n");
    assert!(child.wait().unwrap().success());
}

/// A process that waits, already confined.
struct Held {
    child: Child,
    /// Where its executable is, while it runs.
    folder: tempfile::TempDir,
}

/// Who a process runs as.
#[derive(Clone, Copy)]
enum As {
    Me,
    Ordinary,
}

fn hold(program: &str, user: As) -> Held {
    const ORDINARY: u32 = 4245;
    hold_by(program, |command| match user {
        As::Ordinary if is_root() => {
            command.gid(ORDINARY).uid(ORDINARY);
        }
        As::Ordinary | As::Me => {}
    })
}

fn hold_by(program: &str, change: impl FnOnce(&mut Command)) -> Held {
    // A copy, since the build folder may be closed to others.
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path());
    let exe = folder.path().join("confinement");
    std::fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    open_to_all(&exe);
    let mut command = Command::new(exe);
    command
        .args(["inside", program, "hold"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    change(&mut command);
    let mut child = command.spawn().unwrap();
    assert_eq!(line(child.stdout.take().unwrap()), "holding");
    Held { child, folder }
}

impl Held {
    fn proc(&self, name: &str) -> std::path::PathBuf {
        format!("/proc/{}/{name}", self.child.id()).into()
    }

    /// Needs root, since a confined process shows it to nobody else.
    fn namespace(&self, name: &str) -> std::path::PathBuf {
        std::fs::read_link(self.proc("ns").join(name)).unwrap()
    }

    fn status(&self) -> String {
        std::fs::read_to_string(self.proc("status")).unwrap()
    }

    fn owner(&self) -> u32 {
        std::fs::metadata(self.proc("environ")).unwrap().uid()
    }

    fn assert_closed(&self, program: &str) {
        let status = self.status();
        assert_eq!(field(&status, "NoNewPrivs"), "1", "{program}");
        assert_eq!(field(&status, "Seccomp"), "2", "{program}");
        let limits = std::fs::read_to_string(self.proc("limits")).unwrap();
        let core = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max core file size"))
            .unwrap();
        assert_eq!(
            core.split_whitespace().take(2).collect::<Vec<_>>(),
            ["0", "0"],
            "{program}"
        );
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It waits for its standard input to end; killing it ends it too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(":"))
        .unwrap()
        .trim()
}

fn alive(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => !field(&status, "State").starts_with('Z'),
        Err(_) => false,
    }
}

fn attempt(program: &str, act: &[&str]) -> String {
    attempt_with(program, &[], act)
}

fn attempt_with(program: &str, files: &[&str], act: &[&str]) -> String {
    let output = command(&[program]).args(files).args(act).output().unwrap();
    allowed(&output, &format!("{program} {act:?}"))
}

/// `allowed` or `refused`.
fn allowed(output: &Output, what: &str) -> String {
    assert!(
        output.status.success(),
        "{what}: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn failure(program: &str, files: &[&str], act: &[&str]) -> String {
    let output = command(&[program]).args(files).args(act).output().unwrap();
    assert!(!output.status.success(), "{program} {act:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("inside").args(args);
    command
}

fn line(from: ChildStdout) -> String {
    let mut text = String::new();
    BufReader::new(from).read_line(&mut text).unwrap();
    text.trim().to_owned()
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}
