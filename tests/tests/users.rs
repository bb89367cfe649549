//! As whom the programs run, when root starts them and when somebody else does.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::model::{Script, ScriptedModel};
use testkit::system::System;
use testkit::telegram::TelegramServer;

/// The first id of those that docs/decisions/0013 names; the process id is added to it.
const FIRST: u32 = 0x7800_0000;

/// Who has a user of its own and no file.
const OWN: [&str; 4] = [
    "bulkhead-agent",
    "bulkhead-egress",
    "bulkhead-channel-web",
    "bulkhead-channel-telegram",
];
/// Who has a user of its own, and the files of whoever started it.
const KEEPERS: [&str; 3] = ["bulkhead-gateway", "bulkhead-ledger", "bulkhead-vault"];
/// Who stays whoever started it.
const ROOTS: [&str; 3] = [
    "bulkhead-supervisor",
    "bulkhead-sandbox",
    "bulkhead-workspace",
];

const TOKEN: &str = "4242:correct-horse_battery-staple";

#[test]
fn each_program_has_the_user_that_the_table_says_and_none_another_s() {
    let model = ScriptedModel::start(Script::echo()).expect("a scripted model");
    let telegram = TelegramServer::start(TOKEN).expect("a Telegram server");
    let system = everything(&model, &telegram);
    let (root, me) = (
        rustix::process::geteuid().is_root(),
        rustix::process::getuid().as_raw(),
    );
    let programs = running(&system);
    for name in OWN.iter().chain(&KEEPERS).chain(&ROOTS) {
        let found = programs.iter().filter(|program| program.name == *name);
        let expected = if *name == "bulkhead-agent" { 2 } else { 1 };
        assert_eq!(found.count(), expected, "{name}");
    }
    for program in &programs {
        let name = program.name.as_str();
        let user = match root && !ROOTS.contains(&name) {
            true => FIRST + program.pid,
            false => me,
        };
        let files = if OWN.contains(&name) { user } else { me };
        assert_eq!(program.users, [user, user, user, files], "{name}");
        if root {
            assert_eq!(program.groups, program.users, "{name}");
            assert_eq!(program.supplementary, "", "{name}");
        }
    }
    let users: BTreeSet<u32> = programs.iter().map(|program| program.users[0]).collect();
    let distinct = if root {
        programs.len() + 1 - ROOTS.len()
    } else {
        1
    };
    assert_eq!(users.len(), distinct, "{users:?}");
    assert!(users.contains(&0) == root);
}

#[test]
fn without_any_confinement_an_agent_s_user_reaches_no_other_program() {
    let model = ScriptedModel::start(Script::echo()).expect("a scripted model");
    let telegram = TelegramServer::start(TOKEN).expect("a Telegram server");
    let system = everything(&model, &telegram);
    let programs = running(&system);
    let agent = programs
        .iter()
        .find(|program| program.name == "bulkhead-agent")
        .expect("an agent");
    let user = agent.users[0];
    for program in programs.iter().filter(|other| other.pid != agent.pid) {
        let (name, pid) = (&program.name, program.pid.to_string());
        // As an ordinary user all of them have one, and it is the confinement that keeps them apart.
        let by_user = rustix::process::geteuid().is_root();
        assert_eq!(as_user(user, &["kill", "-0", &pid]), !by_user, "{name}");
        for file in ["environ", "mem", "fd/0"] {
            let path = format!("/proc/{pid}/{file}");
            assert!(!as_user(user, &["head", "-c0", &path]), "{name} {file}");
        }
    }
    // It is not the attempt that fails.
    assert!(as_user(user, &["kill", "-0", &agent.pid.to_string()]));
    assert!(as_user(user, &["head", "-c0", "/proc/self/environ"]));
}

#[test]
fn what_is_in_the_home_stays_with_whoever_started_everything() {
    let model = ScriptedModel::start(Script::echo()).expect("a scripted model");
    let telegram = TelegramServer::start(TOKEN).expect("a Telegram server");
    let system = everything(&model, &telegram);
    let written = system.ask("remember this");
    assert_eq!(written["reply"], "You said: remember this", "{written}");
    assert!(system.bulkhead(&["down"]).status.success());
    let me = rustix::process::getuid().as_raw();
    let all = below(system.home());
    assert!(all.len() > 20, "{all:?}");
    for path in all {
        let owner = fs::symlink_metadata(&path).expect("it is there").uid();
        assert_eq!(owner, me, "{path:?}");
    }
    system.up();
    assert_eq!(system.ask("again")["reply"], "You said: again");
}

/// All programs, and agents in two sessions.
fn everything(model: &ScriptedModel, telegram: &TelegramServer) -> System {
    let api = format!(
        "[channel.telegram]\napi = \"http://{}\"\n",
        telegram.address()
    );
    let system = System::prepare(model.port(), &api);
    system.keep_telegram_token(TOKEN);
    system.up();
    for text in ["one", "two"] {
        assert_eq!(system.ask(text)["reply"], format!("You said: {text}"));
    }
    system
}

/// A running program, as the kernel has it.
struct Running {
    name: String,
    pid: u32,
    /// Real, effective, saved, and that for files.
    users: Vec<u32>,
    groups: Vec<u32>,
    supplementary: String,
}

fn running(system: &System) -> Vec<Running> {
    let one = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).expect("it runs");
        let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
        let program = PathBuf::from(String::from_utf8_lossy(program).into_owned());
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.expect("the kernel tells it").trim().to_owned()
        };
        let ids = |name: &str| -> Vec<u32> {
            let ids = field(name);
            let ids = ids.split_whitespace();
            ids.map(|id| id.parse().expect("a number")).collect()
        };
        Running {
            name: program
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned(),
            pid,
            users: ids("Uid:"),
            groups: ids("Gid:"),
            supplementary: field("Groups:"),
        }
    };
    system.pids().into_iter().map(one).collect()
}

/// Whether this works for a process that has this user and no confinement.
fn as_user(user: u32, command: &[&str]) -> bool {
    let mut words = command.iter();
    let mut child = Command::new(words.next().expect("a program"));
    if rustix::process::geteuid().is_root() {
        use std::os::unix::process::CommandExt as _;
        child.uid(user).gid(user);
    }
    let child = child.args(words).current_dir("/");
    let child = child.stdout(Stdio::null()).stderr(Stdio::null());
    child.status().expect("it runs").success()
}

/// All files and folders below this one.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(below(&path));
        }
        all.push(path);
    }
    all
}
