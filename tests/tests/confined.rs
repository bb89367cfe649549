//! That the programs which are shipped confine themselves: what the kernel says of each of them while all of them
//! run, as root and as an ordinary user.
//!
//! The tests of `crates/sandbox` show what a confinement holds; these, that no program is without one. A Landlock
//! domain has no entry in `/proc`. It is entered before the filter of system calls, by the same call, which fails as
//! a whole: whoever has the filter has the domain. Takes root, as CI has it, to see who is closed to others.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use testkit::model::{Rule, Script, ScriptedModel, Step};
use testkit::system::{Running, System, free_port, processes_with, program, said, wait_for};
use testkit::telegram::TelegramServer;

/// An ordinary user whom nothing else runs as.
const ORDINARY: u32 = 4246;

/// What root keeps where a user id has to be mapped (capabilities(7)).
const SETFCAP: u64 = 1 << 31;

/// What the supervisor keeps besides: its programs take users of their own and are ended by it. `CAP_KILL`,
/// `CAP_SETGID`, `CAP_SETUID`.
const GIVE_IDS: u64 = 1 << 5 | 1 << 6 | 1 << 7;

/// What the kernel has to say of a program.
struct Confined {
    name: &'static str,
    /// Filters of system calls above those that this test has: its own, and those of who started it.
    filters: u32,
    /// The capabilities that it keeps when it runs as root.
    as_root: u64,
    /// The namespaces that it has for itself; the others are the machine's.
    own: &'static [&'static str],
}

const fn confined(name: &'static str, own: &'static [&'static str]) -> Confined {
    Confined {
        name,
        filters: 2,
        as_root: 0,
        own,
    }
}

/// The kinds of namespaces that are looked at.
const KINDS: [&str; 4] = ["user", "ipc", "net", "mnt"];
const APART: &[&str] = &["user", "ipc", "net"];

const SUPERVISOR: Confined = Confined {
    name: "bulkhead-supervisor",
    filters: 1,
    as_root: SETFCAP | GIVE_IDS,
    own: &[],
};

/// All that keep running while a tool runs, but the supervisor.
const PROGRAMS: [Confined; 9] = [
    confined("bulkhead-gateway", APART),
    confined("bulkhead-agent", APART),
    // The only one that has the network of the machine.
    confined("bulkhead-egress", &["user", "ipc"]),
    confined("bulkhead-vault", APART),
    confined("bulkhead-ledger", APART),
    confined("bulkhead-workspace", APART),
    confined("bulkhead-channel-web", APART),
    confined("bulkhead-channel-telegram", APART),
    Confined {
        as_root: SETFCAP,
        ..confined("bulkhead-sandbox", &["user", "ipc", "net", "mnt"])
    },
];

/// Everything with both channels, a session, and a tool that runs in a box.
struct Rig {
    /// Who waits for the tool.
    _ask: Running,
    system: System,
    /// The process of the tool.
    tool: u32,
    _model: ScriptedModel,
    _platform: TelegramServer,
}

impl Rig {
    fn start(user: Option<u32>) -> Self {
        let sleep = format!("sleep 60.{}{}", std::process::id(), free_port());
        let rule = Rule {
            contains: "go".to_owned(),
            steps: vec![
                Step::call("exec", json!({ "command": sleep })),
                Step::text("It is over."),
            ],
        };
        let script = Script {
            rules: vec![rule],
            ..Script::echo()
        };
        let model = ScriptedModel::start(script).expect("a scripted model");
        let token = "4242:a-token-that-nobody-has";
        let platform = TelegramServer::start(token).expect("a Telegram server");
        let extra = format!(
            "[channel.telegram]\napi = \"http://{}\"\n",
            platform.address()
        );
        let system = match user {
            None => System::prepare(model.port(), &extra),
            Some(user) => System::prepare_as(user, model.port(), &extra),
        };
        system.keep_telegram_token(token);
        system.up();
        let ask = system.spawn(&["ask", "--json", "go"]);
        let tool = wait_for("the tool runs", || {
            let named = processes_with(&sleep).into_iter();
            let mut tools = named.filter(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.starts_with(b"sleep\0")
            });
            tools.next()
        });
        Self {
            _ask: ask,
            system,
            tool,
            _model: model,
            _platform: platform,
        }
    }

    /// What runs, by name, as `bulkhead status` says.
    fn programs(&self) -> Vec<(String, u32)> {
        let status = self.system.json(&["status"]);
        let number = |pid: &Value| {
            let pid = pid.as_u64().expect("a process id");
            u32::try_from(pid).expect("a process id")
        };
        let programs = status["programs"].as_array().expect("programs").iter();
        let programs = programs.map(|program| {
            let name = program["name"].as_str().expect("a name").to_owned();
            (name, number(&program["state"]["pid"]))
        });
        let supervisor = (SUPERVISOR.name.to_owned(), number(&status["pid"]));
        programs.chain([supervisor]).collect()
    }
}

/// What the kernel says of a thread, by the name of the line.
fn field(status: &str, name: &str) -> String {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}"))
        .trim()
        .to_owned()
}

fn status(pid: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).expect("its status can be read")
}

fn filters(status: &str) -> u32 {
    let count = field(status, "Seccomp_filters");
    count.parse().expect("a number")
}

fn namespace(pid: &str, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("root may see it")
}

/// What holds of every program and of what runs in a box, in each of its threads.
fn assert_held(name: &str, pid: u32, least_filters: u32) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    for task in tasks.flatten() {
        // A thread may have ended meanwhile.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else {
            continue;
        };
        assert_eq!(field(&status, "NoNewPrivs"), "1", "{name}");
        assert_eq!(field(&status, "Seccomp"), "2", "{name}");
        assert!(filters(&status) >= least_filters, "{name}: {status}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
    let core = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"));
    let core: Vec<&str> = core.expect("a limit").split_whitespace().take(2).collect();
    assert_eq!(core, ["0", "0"], "{name}");
}

impl Confined {
    fn assert(&self, pid: u32) {
        let (name, own) = (self.name, pid.to_string());
        let above = filters(&status("self"));
        assert_held(name, pid, above + self.filters);
        let status = status(&own);
        assert_eq!(filters(&status), above + self.filters, "{name}");
        for kind in KINDS {
            assert_eq!(
                namespace(&own, kind) != namespace("self", kind),
                self.own.contains(&kind),
                "{name}: {kind}"
            );
        }
        let root = field(&status, "Uid").starts_with("0\t");
        let keeps = if root { self.as_root } else { 0 };
        let of = |set: &str| u64::from_str_radix(&field(&status, set), 16).expect("a set");
        assert_eq!(of("CapInh") | of("CapAmb"), 0, "{name}");
        assert_eq!((of("CapPrm"), of("CapEff")), (keeps, keeps), "{name}");
        // An ordinary user can take nothing out of that set but in a user namespace of its own.
        if root || self.own.contains(&"user") {
            assert_eq!(of("CapBnd"), keeps, "{name}");
        }
        assert_eq!(read_by_its_own_user(pid), Read::Refused, "{name}");
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    Allowed,
    Refused,
}

/// Whether another process of the same user, without any capability, may look into this one.
fn read_by_its_own_user(pid: u32) -> Read {
    let status = status(&pid.to_string());
    let id = |name: &str| {
        let ids = field(&status, name);
        let first = ids.split_whitespace().next().map(str::to_owned);
        first.expect("an id")
    };
    let output = without_privilege(&id("Uid"), &id("Gid"))
        .args(["cat", &format!("/proc/{pid}/environ")])
        .output()
        .expect("setpriv runs");
    match output.status.success() {
        true => Read::Allowed,
        false => {
            assert!(said(&output).contains("ermi"), "{}", said(&output));
            Read::Refused
        }
    }
}

fn without_privilege(user: &str, group: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", group, "--clear-groups"]);
    command.args(["--inh-caps=-all", "--bounding-set=-all", "--"]);
    command
}

/// A program that is started by hand; killed when it is dropped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn each_program_is_confined(user: Option<u32>) {
    let rig = Rig::start(user);
    let running = rig.programs();
    let mut seen = BTreeSet::new();
    let mut namespaces = BTreeSet::new();
    for (name, pid) in &running {
        let mut all = PROGRAMS.iter().chain([&SUPERVISOR]);
        let program = all
            .find(|program| program.name == name)
            .unwrap_or_else(|| panic!("nothing is known of {name}, which runs"));
        program.assert(*pid);
        seen.insert(name.as_str());
        for kind in program.own {
            let own = namespace(&pid.to_string(), kind);
            assert!(namespaces.insert(own), "{name} shares {kind} with another");
        }
    }
    assert_eq!(seen.len(), PROGRAMS.len() + 1, "{running:?}");

    // What runs in the box has the filter of the box over all of those, and nothing of the machine.
    let (tool, above) = (rig.tool.to_string(), filters(&status("self")));
    assert_held("the box", rig.tool, above + 3);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&status(&tool), set), "0000000000000000", "{set}");
    }
    for kind in KINDS.into_iter().chain(["pid", "uts"]) {
        let own = namespace(&tool, kind);
        assert_ne!(own, namespace("self", kind), "{kind}");
        assert!(!namespaces.contains(&own), "{kind} is a program's");
    }
}

#[test]
fn each_program_that_runs_is_confined_as_the_kernel_says() {
    each_program_is_confined(None);
}

#[test]
fn each_program_of_an_ordinary_user_is_confined_as_the_kernel_says() {
    each_program_is_confined(Some(ORDINARY));
}

#[test]
fn what_is_started_for_one_thing_is_confined_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().to_str().expect("a path");
    for (name, argument) in [
        ("bulkhead-engine", folder),
        ("bulkhead-gateway", "--check-rules"),
    ] {
        let (_ours, theirs) = UnixStream::pair().expect("a link");
        let child = Command::new(program(name))
            .arg(argument)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let child = Started(child);
        let alone = Confined {
            filters: 1,
            ..confined(name, APART)
        };
        let above = filters(&status("self"));
        // It confines itself first, which takes a moment.
        wait_for(&format!("{name} has a filter"), || {
            (filters(&status(&child.0.id().to_string())) > above).then_some(())
        });
        alone.assert(child.0.id());
    }
}

#[test]
fn who_is_not_confined_can_be_looked_into_by_its_user() {
    for user in ["0", "4246"] {
        let child = without_privilege(user, user)
            .args(["sleep", "60"])
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts");
        let child = Started(child);
        wait_for("it is asleep", || {
            let line = fs::read(format!("/proc/{}/cmdline", child.0.id())).unwrap_or_default();
            line.starts_with(b"sleep\0").then_some(())
        });
        assert_eq!(read_by_its_own_user(child.0.id()), Read::Allowed, "{user}");
    }
}
