//! The vault as its owner sees it: what opens it, what was put in its place, what is due.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use config::Home;
use protocol::time::Millis;
use protocol::vault::{SecretText, Subject, Terms};
use serde_json::{Value, json};
use testkit::model::{Script, ScriptedModel};
use testkit::operator::operator_key;
use testkit::system::{System, program, said, wait_for};
use testkit::telegram::{Chat, TelegramServer};

const TOKEN: &str = "4242:correct-horse_battery-staple";
const OWNER: i64 = 7;
const WORDS: &str = "several words that nobody guesses";

/// Everything, with Telegram switched on and its token in the vault; not started yet.
struct Rig {
    system: System,
    server: TelegramServer,
    _model: ScriptedModel,
}

impl Rig {
    fn prepared() -> Self {
        let model = ScriptedModel::start(Script::echo()).expect("a scripted model");
        let server = TelegramServer::start(TOKEN).expect("a Telegram server");
        let api = format!(
            "[channel.telegram]\napi = \"http://{}\"\n",
            server.address()
        );
        let system = System::prepare(model.port(), &api);
        let rig = Self {
            system,
            server,
            _model: model,
        };
        rig.system.keep_telegram_token(TOKEN);
        rig
    }

    /// A file with this in it, for the owner alone.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.system.home().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        path.display().to_string()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.system.bulkhead(arguments)
    }

    fn vault(&self) -> Value {
        self.system.json(&["vault", "status"])
    }

    /// Somebody who never wrote before writes.
    fn writes(&self, user: i64) {
        self.server.user_writes(user, &Chat::private(user), "hello");
    }

    /// Waits until the bot answers them.
    fn hears(&self, user: i64) {
        wait_for("the bot answers", || {
            let mut texts = self.server.texts(user).into_iter();
            texts.find(|text| text.contains("pair approve"))
        });
    }
}

/// Keeps a secret that has expired, which `bulkhead` itself does not take.
fn keep_expired(system: &System, name: &str, value: &str) {
    system.up();
    let home = Home::at(system.home()).expect("a home");
    let stream = home.connect("vault.sock").expect("it listens");
    let mut vault = vault::client::operator(stream, &operator_key(system)).expect("a link");
    let terms = Terms {
        hosts: vec!["*.example.com".parse().expect("a host")],
        expires: Some(Millis(1_577_836_800_000)),
        ..Terms::default()
    };
    let (name, value) = (
        name.parse().expect("a name"),
        SecretText::new(value.to_owned()),
    );
    vault
        .add(name, Subject::Tool, terms, value)
        .expect("it is kept");
    assert!(system.bulkhead(&["down"]).status.success());
}

fn done(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

fn refused(output: &Output, because: &str) {
    let words = said(output);
    assert!(
        !output.status.success() && words.contains(because),
        "{words}"
    );
}

#[test]
fn with_a_passphrase_all_starts_and_channels_wait_until_it_is_given() {
    let rig = Rig::prepared();
    let words = rig.file("words", WORDS);
    let wrong = rig.file("wrong", "several words that somebody guessed");
    let protect = [
        "vault",
        "protect",
        "--with",
        "passphrase",
        "--new-passphrase-file",
        &words,
    ];
    done(&rig.run(&protect));
    refused(&rig.run(&["vault", "list"]), "--passphrase-file");
    refused(
        &rig.run(&["vault", "list", "--passphrase-file", &wrong]),
        "does not open",
    );
    done(&rig.run(&["vault", "list", "--passphrase-file", &words]));

    let up = rig.run(&["up", "--detach"]);
    done(&up);
    assert!(said(&up).contains("the vault is locked"), "{}", said(&up));
    let state = rig.vault();
    assert_eq!(
        (&state["lock"], &state["key"]),
        (&json!("locked"), &json!("passphrase"))
    );
    assert_eq!(rig.system.json(&["status"])["vault"]["lock"], "locked");
    rig.writes(OWNER);
    // What needs no secret goes on meanwhile.
    assert_eq!(
        rig.system.ask("are you there?")["reply"],
        "You said: are you there?"
    );
    assert!(rig.server.texts(OWNER).is_empty());
    refused(
        &rig.run(&["vault", "unlock", "--passphrase-file", &wrong]),
        "does not open",
    );
    done(&rig.run(&["vault", "unlock", "--passphrase-file", &words]));
    rig.hears(OWNER);
    done(&rig.run(&["vault", "lock"]));
    assert_eq!(rig.vault()["lock"], "locked");

    // A script that starts it hears that it is not as it was wanted.
    let empty = rig.file("empty", "");
    for (file, why) in [(&wrong, "does not open"), (&empty, "empty")] {
        done(&rig.run(&["down"]));
        let up = rig.run(&["up", "--detach", "--passphrase-file", file]);
        let told = said(&up);
        assert_eq!(up.status.code(), Some(3), "{told}");
        assert!(
            told.contains(why) && told.contains("bulkhead vault unlock"),
            "{told}"
        );
        assert_eq!(rig.vault()["lock"], "locked");
        rig.system.ask("are you there?");
    }
    done(&rig.run(&["down"]));
    done(&rig.run(&["up", "--detach", "--passphrase-file", &words]));
    assert_eq!(rig.vault()["lock"], "open");
    rig.writes(OWNER + 1);
    rig.hears(OWNER + 1);
    let keys =
        fs::read_to_string(rig.system.home().join("vault/vault.key")).expect("the key's file");
    assert!(!keys.contains(WORDS));
    rig.system.assert_record_is_sound();
}

#[test]
fn an_older_copy_of_the_vault_s_folder_is_refused_and_a_backup_is_the_way_back() {
    let rig = Rig::prepared();
    let words = rig.file("words", WORDS);
    rig.system.up();
    let folder = rig.system.home().join("vault");
    let (older, kept) = (
        rig.system.home().join("older"),
        rig.system.home().join("backup"),
    );
    let kept = kept.display().to_string();
    let add = [
        "vault",
        "add",
        "hub",
        "--for",
        "tool",
        "--host",
        "api.example.com",
    ];
    done(&rig.system.bulkhead_with(&add, "first-value-of-hub"));
    copy(&folder, &older);
    done(
        &rig.system
            .bulkhead_with(&["vault", "rotate", "hub"], "second-value-of-hub"),
    );
    done(&rig.run(&["vault", "backup", &kept, "--backup-passphrase-file", &words]));
    let text = fs::read_to_string(&kept).expect("the backup");
    assert!(!text.contains("second-value") && !text.contains(TOKEN));
    let mode = fs::metadata(&kept).expect("its facts").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // It is not written over.
    refused(
        &rig.run(&["vault", "backup", &kept, "--backup-passphrase-file", &words]),
        "new file",
    );

    done(&rig.run(&["down"]));
    copy(&older, &folder);
    let up = rig.run(&["up", "--detach"]);
    assert!(said(&up).contains("an older copy"), "{}", said(&up));
    assert!(rig.vault()["rolled_back"].is_u64());
    let checks = rig.system.json_lines(&["doctor"]);
    let checks = checks
        .iter()
        .flat_map(|line| line.as_array().cloned().unwrap_or(vec![line.clone()]));
    let vault: Vec<_> = checks.filter(|check| check["check"] == "vault").collect();
    assert!(
        vault.iter().any(|check| check["status"] == "fail"),
        "{vault:?}"
    );
    let rotate = rig
        .system
        .bulkhead_with(&["vault", "rotate", "hub"], "third-value-of-hub");
    refused(&rotate, "older copy");
    rig.writes(OWNER);

    let wrong = rig.file("wrong", "several words that somebody guessed");
    let restore =
        |words: &str| rig.run(&["vault", "restore", &kept, "--backup-passphrase-file", words]);
    refused(&restore(&wrong), "not its passphrase");
    assert!(rig.server.texts(OWNER).is_empty(), "no token was given out");
    done(&restore(&words));
    assert!(rig.vault()["rolled_back"].is_null());
    done(&rig.run(&["down"]));
    rig.system.up();
    assert!(rig.vault()["rolled_back"].is_null());
    rig.hears(OWNER);
    let rows = rig.system.rows("vault_changed");
    let changes: Vec<_> = rows
        .iter()
        .map(|row| row["event"]["change"].clone())
        .collect();
    assert_eq!(changes, ["caught_up", "added", "rotated", "restored"]);
    rig.system.assert_record_is_sound();
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).expect("a folder");
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).expect("its mode");
    for file in fs::read_dir(from).expect("a folder").flatten() {
        fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
    }
}

/// `bulkhead ARGUMENTS` in a desktop's session with a real keyring that is open, whose files are below the home.
fn at_a_desktop(system: &System, arguments: &[&str]) -> Output {
    let mut command = Command::new("dbus-run-session");
    command
        .args(["--", "sh", "-c"])
        .arg("printf keyring | gnome-keyring-daemon --unlock --components=secrets > /dev/null 2>&1 && exec \"$@\"")
        .arg("sh")
        .arg(program("bulkhead"))
        .args(arguments)
        .env("BULKHEAD_HOME", system.home())
        .env("HOME", system.home())
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("XDG_DATA_HOME");
    command.output().expect("dbus-run-session runs")
}

#[test]
fn the_keyring_of_the_desktop_keeps_the_key_and_without_it_the_vault_stays_closed() {
    let rig = Rig::prepared();
    done(&at_a_desktop(
        &rig.system,
        &["vault", "protect", "--with", "keyring"],
    ));
    let keys =
        fs::read_to_string(rig.system.home().join("vault/vault.key")).expect("the key's file");
    assert!(keys.contains("keyring"), "{keys}");
    // No keyring to be asked: the session bus is not named here.
    let mut alone = rig.system.command(&["vault", "list"]);
    alone
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .env_remove("XDG_RUNTIME_DIR");
    refused(&alone.output().expect("it runs"), "keyring");
    let list = at_a_desktop(&rig.system, &["vault", "list"]);
    done(&list);
    assert!(said(&list).contains("telegram-token"));
    done(&at_a_desktop(&rig.system, &["up", "--detach"]));
    assert_eq!(rig.vault()["lock"], "open");
    rig.writes(OWNER + 1);
    rig.hears(OWNER + 1);
    done(&rig.run(&["down"]));
    let words = rig.file("words", WORDS);
    let protect = [
        "vault",
        "protect",
        "--with",
        "passphrase",
        "--new-passphrase-file",
        &words,
    ];
    done(&at_a_desktop(&rig.system, &protect));
    done(&rig.run(&["vault", "list", "--passphrase-file", &words]));
}

#[test]
fn a_service_opens_it_with_the_credential_that_systemd_gives_it() {
    let rig = Rig::prepared();
    let folder: PathBuf = rig.system.home().join("credentials");
    fs::create_dir(&folder).expect("a folder");
    let credential = rig.file("credentials/bulkhead-vault", &"k".repeat(44));
    let protect = [
        "vault",
        "protect",
        "--with",
        "credential",
        "--credential-file",
        &credential,
    ];
    done(&rig.run(&protect));
    refused(&rig.run(&["vault", "list"]), "LoadCredential");
    let mut up = rig.system.command(&["up", "--detach"]);
    done(
        &up.env("CREDENTIALS_DIRECTORY", &folder)
            .output()
            .expect("it runs"),
    );
    assert_eq!(rig.vault()["lock"], "open");
    rig.writes(OWNER + 1);
    rig.hears(OWNER + 1);
    // It opens by itself also after the program died.
    rig.system.signal("bulkhead-vault", "KILL");
    wait_for("it is open again", || {
        (rig.vault()["lock"] == "open").then_some(())
    });
    done(&rig.run(&["down"]));
    let up = rig.run(&["up", "--detach"]);
    assert!(said(&up).contains("LoadCredential"), "{}", said(&up));
    assert_eq!(rig.vault()["lock"], "locked");
}

#[test]
fn what_is_due_is_said_everywhere_and_no_command_shows_a_value() {
    let rig = Rig::prepared();
    let value = "invented-value-0123456789";
    let file = rig.file("value", value);
    let decoy = rig.system.home().join("decoy");
    let decoy = decoy.display().to_string();
    let add = |words: &[&str]| {
        let all = [&["vault", "add"], words].concat();
        rig.run(&all)
    };
    refused(&add(&["hub", "--for", "tool", "--file", &file]), "--host");
    let past = ["x", "--for", "model", "--expires", "2020-01-01"];
    refused(&add(&[&past[..], &["--file", &file]].concat()), "later day");
    keep_expired(&rig.system, "hub", value);
    let shown = [
        rig.run(&["vault", "list"]),
        add(&[
            "model-key",
            "--for",
            "model",
            "--rotate-by",
            "2021-01-01",
            "--file",
            &file,
        ]),
        add(&["aws-root", "--honeytoken", "--plant", &decoy]),
        rig.run(&["up", "--detach"]),
        rig.run(&["vault", "list"]),
        rig.run(&["vault", "list", "--json"]),
        rig.run(&["status"]),
        rig.run(&["audit", "log", "--json"]),
    ];
    shown.iter().for_each(done);
    let planted = fs::read_to_string(&decoy).expect("the decoy");
    let planted = planted.rsplit(' ').next().expect("its value").trim();
    assert!(planted.len() == 40);
    for output in shown.iter().chain([&rig.run(&["doctor"])]) {
        assert!(!said(output).contains(value) && !said(output).contains(planted));
    }
    for output in [&shown[3], &shown[4], &shown[6], &rig.run(&["doctor"])] {
        let words = said(output);
        assert!(
            words.contains("hub") && words.to_lowercase().contains("expired"),
            "{words}"
        );
        assert!(words.contains("model-key"), "{words}");
    }
    assert!(said(&shown[3]).contains("key file"), "{}", said(&shown[3]));
    let list = rig.system.json_lines(&["vault", "list"]);
    let facts: Vec<_> = list
        .iter()
        .map(|entry| {
            (
                entry["name"].clone(),
                entry["terms"]["kind"].clone(),
                entry["expired"].clone(),
                entry["due"].clone(),
            )
        })
        .collect();
    let is = |name: &str, kind: &str, expired: bool, due: bool| {
        (json!(name), json!(kind), json!(expired), json!(due))
    };
    assert_eq!(
        facts,
        [
            is("aws-root", "honeytoken", false, false),
            is("hub", "secret", true, false),
            is("model-key", "secret", false, true),
            is("telegram-token", "secret", false, false),
        ]
    );
    // As far off as it was is still in the past.
    let rotated = rig.run(&["vault", "rotate", "hub", "--file", &file]);
    done(&rotated);
    assert!(
        said(&rotated).contains("still expired") && said(&rotated).contains("--expires DATE"),
        "{}",
        said(&rotated)
    );
    done(&rig.run(&[
        "vault",
        "rotate",
        "hub",
        "--expires",
        "never",
        "--file",
        &file,
    ]));
    refused(
        &rig.run(&["vault", "add", "x", "--for", "model", "--expires", "soon"]),
        "2027-06-01",
    );
}
