//! `bulkhead blast-radius`, as root and as an ordinary user, against the table in SECURITY.md.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::system::{program, said};

const BEGIN: &str = "<!-- written by the test `blast_radius` -->\n";
const END: &str = "<!-- end -->\n";

/// An ordinary user whom nothing else runs as.
const ORDINARY: u32 = 4243;

/// The attacker who is under no confinement; it shows that the attempts can see, and is no row of the table.
const CONTROL: &str = "unconfined";

#[test]
fn whoever_takes_over_a_program_reaches_what_the_table_says_and_nothing_else() {
    let cells = run(&program("bulkhead"), None);
    assert_table(&cells);
}

#[test]
fn of_an_ordinary_user_s_programs_too() {
    let root = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o711)).expect("its mode is set");
    let programs = root.path().join("programs");
    fs::create_dir(&programs).expect("a folder");
    fs::set_permissions(&programs, fs::Permissions::from_mode(0o755)).expect("its mode is set");
    let installed = program("bulkhead");
    let installed = installed.parent().expect("a folder").read_dir();
    for entry in installed.expect("it can be read").flatten() {
        let name = entry.file_name();
        let is_program = entry.path().extension().is_none() && entry.path().is_file();
        if is_program && name.to_string_lossy().starts_with("bulkhead") {
            fs::copy(entry.path(), programs.join(name)).expect("a program is copied");
        }
    }
    let cells = run(&programs.join("bulkhead"), Some(ORDINARY));
    assert_table(&cells);
}

/// What it prints as this user, in a folder that is empty again afterwards.
fn run(bulkhead: &Path, user: Option<u32>) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = rustix::process::geteuid().is_root();
    let mut command = match user.filter(|_| root) {
        None => Command::new(bulkhead),
        Some(user) => {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(user))
                .expect("it is given away");
            let mut command = Command::new("setpriv");
            let id = user.to_string();
            command.args([
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "--inh-caps=-all",
                "--",
            ]);
            command.arg(bulkhead).current_dir("/");
            command
        }
    };
    let output = command
        .args(["blast-radius", "--json"])
        .env("TMPDIR", folder.path())
        .env("HOME", folder.path())
        .env_remove("BULKHEAD_HOME")
        .stdin(Stdio::null())
        .output()
        .expect("bulkhead runs");
    let cells: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    let off: Vec<&Value> = cells
        .iter()
        .filter(|cell| cell["expected"] != cell["observed"])
        .collect();
    assert!(off.is_empty(), "{off:#?}");
    assert!(output.status.success(), "{}", said(&output));
    let left = folder.path().read_dir().expect("it can be read").count();
    assert_eq!(left, 0, "something is left behind");
    cells
}

/// Programs are columns, since there are fewer of them.
fn table(cells: &[Value]) -> String {
    let text = |cell: &Value, key: &str| cell[key].as_str().expect("a text").to_owned();
    let (mut programs, mut assets) = (Vec::new(), Vec::new());
    for cell in cells.iter().filter(|cell| cell["program"] != CONTROL) {
        let (program, asset) = (text(cell, "program"), text(cell, "asset"));
        if !programs.contains(&program) {
            programs.push(program);
        }
        if !assets.contains(&asset) {
            assets.push(asset);
        }
    }
    assert!(
        programs.len() >= 9 && assets.len() >= 14,
        "{programs:?} {assets:?}"
    );
    let short = |name: &String| name.trim_start_matches("bulkhead-").to_owned();
    let heads: Vec<String> = programs.iter().map(short).collect();
    let mut table = format!(
        "| | {} |\n|---|{}\n",
        heads.join(" | "),
        "---|".repeat(heads.len())
    );
    for asset in &assets {
        write!(table, "| {asset} |").expect("a text takes everything");
        for program in &programs {
            let cell = cells.iter().find(|cell| {
                cell["program"] == program.as_str() && cell["asset"] == asset.as_str()
            });
            let word = match cell.map(|cell| &cell["observed"]) {
                Some(observed) if observed == "yes" => " **yes** |",
                Some(observed) if observed == "no" => " no |",
                other => panic!("{program} {asset}: {other:?}"),
            };
            table.push_str(word);
        }
        table.push('\n');
    }
    table
}

fn assert_table(cells: &[Value]) {
    let seen = |cell: &&Value| cell["program"] == CONTROL && cell["observed"] == "yes";
    assert!(
        cells.iter().filter(seen).count() >= 10,
        "the attempts are blind"
    );
    let table = table(cells);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../SECURITY.md");
    let text = fs::read_to_string(&page).expect("the page is there");
    let (before, rest) = text.split_once(BEGIN).expect("the table has a beginning");
    let (written, after) = rest.split_once(END).expect("and an end");
    if std::env::var_os("BULKHEAD_WRITE_DOCS").is_some() {
        let new = format!("{before}{BEGIN}{table}{END}{after}");
        return fs::write(page, new).expect("the page is written");
    }
    assert_eq!(
        written, table,
        "the table in SECURITY.md is not what was found; if that is meant, write it: \
         BULKHEAD_WRITE_DOCS=1 cargo nextest run --release -p bulkhead-e2e --test blast_radius"
    );
}

#[test]
fn outside_of_a_scene_the_intruder_does_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place: PathBuf = folder.path().join("bulkhead-agent");
    std::os::unix::fs::symlink(program("bulkhead-intruder"), &place).expect("a link is made");
    for (path, code) in [(program("bulkhead-intruder"), 2), (place, 1)] {
        let output = Command::new(path)
            .stdin(Stdio::null())
            .output()
            .expect("it starts");
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    }
}
