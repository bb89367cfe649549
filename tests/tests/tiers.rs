//! What runs without asking, what is asked once, what is asked every time, what never runs;
//! and what a call that runs finds around it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testkit::model::{Script, ScriptedModel, Step};
use testkit::system::System;

/// A model that makes these calls one by one, then says that it is done.
fn calling<'a>(calls: impl IntoIterator<Item = (&'a str, Value)>) -> ScriptedModel {
    let calls = calls.into_iter().map(|(name, args)| Step::call(name, args));
    ScriptedModel::start(Script::steps(calls.chain([Step::text("done")]))).expect("a model")
}

fn exec(command: &str) -> (&str, Value) {
    ("exec", json!({ "command": command }))
}

/// Asks, says yes to so many questions, and waits for the end.
fn ask_and_approve(system: &System, questions: usize) -> Value {
    let ask = system.spawn(&["ask", "--json", "go"]);
    for _ in 0..questions {
        let card = system.wait_for_approval();
        assert!(system.approve(&card).status.success());
    }
    ask.json()
}

/// The results that the model was given, in order.
fn results(model: &ScriptedModel) -> Vec<String> {
    let requests = model.requests();
    let last = requests.last().expect("a request").messages();
    let result = |message: String| message.strip_prefix("tool: ").map(str::to_owned);
    last.into_iter().filter_map(result).collect()
}

fn verdicts(system: &System) -> Vec<Value> {
    let rows = system.rows("decision");
    rows.iter()
        .map(|row| row["event"]["verdict"].clone())
        .collect()
}

#[test]
fn inspection_runs_without_asking() {
    let model = calling([
        exec("ls"),
        exec("wc -l a.txt"),
        exec("sort -r a.txt | head -n 1"),
        exec("cat *.txt 2>/dev/null | wc -l"),
    ]);
    let system = System::start(model.port(), "");
    fs::write(system.workspace().join("a.txt"), "1\n2\n3\n").expect("a file");
    let answer = system.ask("look");
    assert_eq!(answer["reply"], "done");
    assert_eq!(results(&model), ["a.txt\n", "3 a.txt\n", "3\n", "3\n"]);
    assert_eq!(verdicts(&system), ["allow"; 4]);
    assert!(system.rows("approval_asked").is_empty());
    system.assert_record_is_sound();
}

/// Makes a repository with one commit, outside of any box.
fn repository(folder: &Path) {
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=n", "-c", "user.email=n@localhost"];
        let done = Command::new("git")
            .args(identity)
            .args(arguments)
            .current_dir(folder)
            .output()
            .expect("git");
        assert!(done.status.success(), "{done:?}");
    };
    git(&["init", "-q", "-b", "main"]);
    fs::write(folder.join("a.txt"), "one\n").expect("a file");
    git(&["add", "."]);
    git(&["commit", "-qm", "first"]);
}

#[test]
fn a_look_at_a_repository_runs_without_asking_and_changes_nothing_whatever_it_is_set_up_to_do() {
    let looks = [
        "git status --short",
        "git diff",
        "git log --oneline -p -1",
        "cd sub && git branch --show-current && ls",
        "git ls-files | xargs wc -l",
    ];
    let model = calling(looks.map(exec));
    let system = System::start(model.port(), "");
    let workspace = system.workspace();
    repository(&workspace);
    fs::create_dir(workspace.join("sub")).expect("a folder");
    fs::write(workspace.join("sub/b"), "").expect("a file");
    fs::write(workspace.join("a.txt"), "two\n").expect("a file");
    // All that a configuration can have started by looking.
    fs::write(workspace.join(".gitattributes"), "*.txt diff=x filter=x\n").expect("a file");
    let config = workspace.join(".git/config");
    let started =
        |what: &str| format!("\"sh -c 'touch /workspace/{what} /workspace/.git/{what}; cat'\"");
    let hostile = format!(
        "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = {}\n\tpager = {}\n\
         [diff]\n\texternal = {}\n[diff \"x\"]\n\ttextconv = {}\n\
         [filter \"x\"]\n\tclean = {}\n[alias]\n\tstatus = !touch /workspace/alias\n\
         [pager]\n\tlog = {}\n",
        started("monitor"),
        started("pager"),
        started("external"),
        started("textconv"),
        started("clean"),
        started("pager-of-log"),
    );
    fs::write(&config, &hostile).expect("a file");
    let index = fs::read(workspace.join(".git/index")).expect("an index");
    assert_eq!(system.ask("look")["reply"], "done");
    assert_eq!(verdicts(&system), ["allow"; 5]);
    let results = results(&model);
    assert!(results[0].contains(" M a.txt"), "{results:?}");
    assert!(results[2].contains("first"), "{results:?}");
    assert!(
        results[3].contains("main") && results[3].contains('b'),
        "{results:?}"
    );
    assert!(results[4].contains("a.txt"), "{results:?}");
    // Some of it ran, or else this shows nothing; what it left is gone with the box.
    assert!(
        results.iter().any(|it| it.contains("thrown away")),
        "{results:?}"
    );
    let mut left: Vec<_> = fs::read_dir(&workspace)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    left.sort();
    assert_eq!(left, [".git", ".gitattributes", "a.txt", "sub"]);
    for what in [
        "monitor",
        "pager",
        "external",
        "textconv",
        "clean",
        "pager-of-log",
    ] {
        assert!(!workspace.join(".git").join(what).exists(), "{what}");
    }
    assert_eq!(
        fs::read(workspace.join(".git/index")).expect("an index"),
        index
    );
    assert_eq!(fs::read_to_string(&config).expect("a file"), hostile);
    system.assert_record_is_sound();
}

#[test]
fn a_folder_that_only_looks_like_a_repository_names_no_programs() {
    // A tool may write such files without a question, unlike those of a folder called .git.
    let model = calling([
        (
            "write_file",
            json!({"path": "bare/HEAD", "content": "ref: refs/heads/main\n"}),
        ),
        (
            "write_file",
            json!({"path": "bare/objects/x", "content": ""}),
        ),
        ("write_file", json!({"path": "bare/refs/x", "content": ""})),
        (
            "write_file",
            json!({"path": "bare/config", "content": "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = /workspace\n\tfsmonitor = \"echo it ran >&2\"\n[diff]\n\texternal = \"echo it ran\"\n"}),
        ),
        exec("git -C bare status"),
        exec("cd bare && git diff"),
    ]);
    let system = System::start(model.port(), "");
    assert_eq!(system.ask("look")["reply"], "done");
    assert_eq!(verdicts(&system), ["allow"; 6]);
    let results = &results(&model)[4..];
    assert!(results[0].contains("bareRepository"), "{results:?}");
    assert!(
        results.iter().all(|it| !it.contains("it ran")),
        "{results:?}"
    );
    system.assert_record_is_sound();
}

#[test]
fn an_ordinary_command_is_asked_about_once_and_remembered() {
    let model = calling([exec("touch made"), exec("touch made"), exec("touch other")]);
    let system = System::start(model.port(), "");
    // The second is the same call; the third is another one.
    let answer = ask_and_approve(&system, 2);
    assert_eq!(answer["reply"], "done");
    assert!(system.workspace().join("other").exists());
    assert_eq!(verdicts(&system), ["ask_once", "ask_once", "ask_once"]);
    let grounds: Vec<Value> = system
        .rows("permit")
        .iter()
        .map(|row| row["event"]["ground"]["ground"].clone())
        .collect();
    assert_eq!(grounds.len(), 3);
    assert_eq!(grounds[1], "grant", "{grounds:?}");
    let grants = system.json_lines(&["grants", "list"]);
    assert_eq!(grants.len(), 2);
    assert!(
        grants[0]["key"]
            .as_str()
            .is_some_and(|key| key.contains("touch"))
    );

    // Taken back, it is asked about again.
    let number = grants[0]["grant"].to_string();
    assert!(
        system
            .bulkhead(&["grants", "revoke", &number])
            .status
            .success()
    );
    model.push(Step::call("exec", json!({ "command": "touch made" })));
    model.push(Step::text("done"));
    assert_eq!(ask_and_approve(&system, 1)["reply"], "done");
    system.assert_record_is_sound();
}

#[test]
fn a_grant_survives_a_restart() {
    let model = calling([exec("touch made")]);
    let system = System::start(model.port(), "");
    ask_and_approve(&system, 1);
    assert!(system.bulkhead(&["down"]).status.success());
    system.up();
    model.push(Step::call("exec", json!({ "command": "touch made" })));
    model.push(Step::text("again"));
    assert_eq!(system.ask("again")["reply"], "again");
    system.assert_record_is_sound();
}

#[test]
fn a_high_risk_command_is_asked_about_every_time() {
    let model = calling([exec("rm -f x"), exec("rm -f x")]);
    let system = System::start(model.port(), "");
    assert_eq!(ask_and_approve(&system, 2)["reply"], "done");
    assert_eq!(verdicts(&system), ["ask_always", "ask_always"]);
    assert!(system.json_lines(&["grants", "list"]).is_empty());
    system.assert_record_is_sound();
}

#[test]
fn what_is_not_understood_is_asked_about_every_time_and_shown_whole() {
    let script = "echo $(id -u) > who && printf '%s' \"$HOME\" >> who";
    let model = calling([exec(script)]);
    let system = System::start(model.port(), "");
    let ask = system.spawn(&["ask", "--json", "go"]);
    let card = system.wait_for_approval();
    let action = card["action"].as_str().expect("an action");
    assert!(action.contains(script), "{action}");
    assert!(system.approve(&card).status.success());
    assert_eq!(ask.json()["reply"], "done");
    assert_eq!(verdicts(&system), ["ask_always"]);
    system.assert_record_is_sound();
}

#[test]
fn a_path_outside_the_workspace_is_refused_without_asking() {
    let outside = tempfile::tempdir().expect("a folder");
    let secret = outside.path().join("secret");
    fs::write(&secret, "the secret").expect("a file");
    let path = secret.to_str().expect("a path");
    let model = calling([
        ("read_file", json!({ "path": path })),
        ("read_file", json!({ "path": "../bulkhead.toml" })),
        (
            "write_file",
            json!({ "path": "../bulkhead.toml", "content": "" }),
        ),
        ("list_files", json!({ "path": ".." })),
    ]);
    let system = System::start(model.port(), "");
    let answer = system.ask("steal");
    let calls = answer["calls"].as_array().expect("calls");
    assert!(
        calls.iter().all(|call| call["state"] == "refused"),
        "{answer}"
    );
    assert_eq!(calls.len(), 4);
    for result in results(&model) {
        assert!(result.contains("outside the workspace"), "{result}");
        assert!(!result.contains("the secret"));
    }
    assert!(system.rows("approval_asked").is_empty());
    assert!(system.rows("permit").is_empty());
    system.assert_record_is_sound();
}

#[test]
fn a_link_that_leads_out_of_the_workspace_is_not_followed() {
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("secret"), "the secret").expect("a file");
    let model = calling([
        ("read_file", json!({ "path": "link/secret" })),
        (
            "write_file",
            json!({ "path": "link/new", "content": "out" }),
        ),
    ]);
    let system = System::start(model.port(), "");
    std::os::unix::fs::symlink(outside.path(), system.workspace().join("link")).expect("a link");
    let answer = system.ask("steal");
    let calls = answer["calls"].as_array().expect("calls");
    assert!(
        calls.iter().all(|call| call["state"] == "failed"),
        "{answer}"
    );
    assert!(!results(&model)[0].contains("the secret"));
    assert!(!outside.path().join("new").exists());
    system.assert_record_is_sound();
}

#[test]
fn the_file_tools_work_through_the_whole_line() {
    let model = calling([
        (
            "write_file",
            json!({ "path": "notes/day.md", "content": "one\ntwo\nthree\n" }),
        ),
        (
            "edit_file",
            json!({ "path": "notes/day.md", "old": "two", "new": "2" }),
        ),
        ("read_file", json!({ "path": "notes/day.md" })),
        ("list_files", json!({ "path": "notes" })),
        ("search_files", json!({ "text": "three" })),
        (
            "edit_file",
            json!({ "path": "notes/day.md", "old": "nowhere", "new": "x" }),
        ),
    ]);
    let system = System::start(model.port(), "");
    let answer = system.ask("take notes");
    let states: Vec<Value> = answer["calls"]
        .as_array()
        .expect("calls")
        .iter()
        .map(|call| call["state"].clone())
        .collect();
    assert_eq!(states, ["done", "done", "done", "done", "done", "failed"]);
    let text = fs::read_to_string(system.workspace().join("notes/day.md"));
    assert_eq!(text.expect("the file"), "one\n2\nthree\n");
    let results = results(&model);
    assert!(results[2].contains("2\n"), "{results:?}");
    assert!(results[3].contains("day.md"), "{results:?}");
    assert!(results[4].contains("three"), "{results:?}");
    system.assert_record_is_sound();
}

/// What a shell in the box prints.
fn in_the_box(system: &System, model: &ScriptedModel, script: &str) -> String {
    model.push(Step::call("exec", json!({ "command": script })));
    model.push(Step::text("done"));
    assert_eq!(ask_and_approve(system, 1)["reply"], "done", "{script}");
    results(model).pop().expect("a result")
}

#[test]
fn the_box_has_no_network_no_privilege_and_no_host_files() {
    let model = ScriptedModel::start(Script::default()).expect("a model");
    let secret = tempfile::tempdir().expect("a folder");
    fs::write(secret.path().join("secret"), "the secret").expect("a file");
    let system = System::start(model.port(), "");

    let connect = format!("bash -c '< /dev/tcp/127.0.0.1/{}' 2>&1; true", model.port());
    let refused = in_the_box(&system, &model, &connect);
    // The same line connects outside of the box.
    assert!(refused.contains("/dev/tcp"), "{refused}");
    assert!(std::net::TcpStream::connect(model.address()).is_ok());

    let status = in_the_box(&system, &model, "cat /proc/self/status; true");
    let field = |name: &str| -> String {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {status}"))
            .trim()
            .to_owned()
    };
    assert_eq!(
        field("Uid:").split_whitespace().collect::<Vec<_>>(),
        ["1000"; 4]
    );
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");

    for path in [
        secret.path().join("secret"),
        system.home().join("bulkhead.toml"),
        system.home().join("keys/operator.key"),
        Path::new("/etc/shadow").to_owned(),
    ] {
        assert!(path.exists(), "{path:?} is there for the host");
        let seen = in_the_box(
            &system,
            &model,
            &format!("cat {} 2>&1; true", path.display()),
        );
        assert!(
            seen.contains("No such file") || seen.contains("Permission denied"),
            "{path:?}: {seen}"
        );
    }
    let written = in_the_box(
        &system,
        &model,
        "touch /usr/planted /etc/planted 2>&1; ls /usr/planted /etc/planted 2>&1; true",
    );
    assert!(!Path::new("/usr/planted").exists() && !Path::new("/etc/planted").exists());
    assert!(written.contains("No such file"), "{written}");

    for row in system.rows("outcome") {
        let receipt = &row["event"]["outcome"]["run"]["receipt"];
        assert_eq!(receipt["backend"], "native", "{row}");
        assert_eq!(receipt["network"], "none");
        assert_eq!(receipt["uid"], 1000);
        for namespace in ["user", "mnt", "pid", "net", "ipc", "uts"] {
            let all = receipt["namespaces"].as_array().expect("namespaces");
            assert!(all.iter().any(|name| name == namespace), "{receipt}");
        }
    }
    system.assert_record_is_sound();
}

#[test]
fn the_environment_of_whoever_starts_it_reaches_no_program_and_no_box() {
    let canary = format!("canary-{:x}", std::process::id());
    let model = calling([exec("cat /proc/self/environ"), exec("env; set; true")]);
    let system = System::prepare(model.port(), "");
    let mut up = system.command(&["up", "--detach"]);
    up.env("SECRET_TOKEN", &canary);
    assert!(up.output().expect("up runs").status.success());
    let ask = system.spawn(&["ask", "--json", "look"]);
    // While an agent is there too.
    let card = system.wait_for_approval();
    for pid in system.pids() {
        let environ = fs::read(format!("/proc/{pid}/environ")).expect("it runs");
        let environ = String::from_utf8_lossy(&environ);
        assert!(!environ.contains(&canary), "{pid}");
    }
    assert!(system.pids().len() > 6);
    assert!(system.approve(&card).status.success());
    let more = system.wait_for_approval_other_than(&card);
    assert!(system.approve(&more).status.success());
    assert_eq!(ask.json()["reply"], "done");
    assert_eq!(results(&model).len(), 2);
    for result in results(&model) {
        assert!(result.contains("PATH="), "{result}");
        assert!(!result.contains(&canary), "{result}");
    }
    system.assert_record_is_sound();
}
