//! Each layer of the box left out, one at a time: the start is refused, or another layer holds, or the attacks
//! that hang on this layer alone get through. Which those are is written in `docs/box-layers.md`; with
//! `BULKHEAD_WRITE_DOCS=1` this program writes it. A test build only: the feature `ablation`.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests by libtest's attribute, which these have not"
)]

mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bulkhead_sandbox::ablation::switch::{NAMES, WITHOUT};
use bulkhead_sandbox::probes::stage::Told;

/// Who runs the boxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Root,
    Ordinary,
}

/// What a box does with a layer left out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Without {
    /// It does not start.
    Refused,
    /// It starts, and these attacks get through that do not otherwise.
    Starts(BTreeSet<String>),
}

/// One layer left out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    /// With the self-check.
    checked: Without,
    /// With the self-check left out too.
    unchecked: Without,
}

type Table = BTreeMap<(&'static str, Who), Left>;

/// So many attacks at least have been seen to get through, or the probes see nothing.
const SEEN: usize = 40;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let programs = Programs::copied_to(folder.path());
    let users: &[Who] = match rustix::process::geteuid().is_root() {
        true => &[Who::Root, Who::Ordinary],
        false => &[Who::Ordinary],
    };
    let table = programs.table(users);
    each_layer_that_is_left_out_is_refused_or_replaced_or_written_down(&table, users);
    most_attacks_on_one_layer_are_seen_to_get_through(&table);
}

fn each_layer_that_is_left_out_is_refused_or_replaced_or_written_down(
    table: &Table,
    users: &[Who],
) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/box-layers.md");
    let found = page::render(table);
    if std::env::var_os("BULKHEAD_WRITE_DOCS").is_some() {
        assert_eq!(users.len(), 2, "only root can be both users");
        std::fs::write(&page, &found).unwrap();
    }
    let written = std::fs::read_to_string(&page).unwrap();
    for who in users {
        let (written, found) = (page::cells(&written, *who), page::cells(&found, *who));
        assert_eq!(
            written, found,
            "docs/box-layers.md (left) is not what was found (right); if that is right, write it: \
             BULKHEAD_WRITE_DOCS=1 cargo test -p bulkhead-sandbox --features ablation --test ablation"
        );
    }
    println!("test each_layer_that_is_left_out_is_refused_or_replaced_or_written_down ... ok");
}

fn most_attacks_on_one_layer_are_seen_to_get_through(table: &Table) {
    let seen: BTreeSet<&String> = table
        .values()
        .filter_map(|left| match &left.unchecked {
            Without::Starts(through) => Some(through),
            Without::Refused => None,
        })
        .flatten()
        .collect();
    assert!(seen.len() >= SEEN, "{}: {seen:?}", seen.len());
    println!(
        "test most_attacks_on_one_layer_are_seen_to_get_through ({}) ... ok",
        seen.len()
    );
}

struct Programs {
    probe: PathBuf,
    helper: PathBuf,
}

impl Programs {
    /// Copies, since the build folder may be closed to others.
    fn copied_to(folder: &Path) -> Self {
        let open = |path: &Path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let copy = |program: &str| {
            let copy = folder.join(Path::new(program).file_name().unwrap());
            std::fs::copy(program, &copy).unwrap();
            open(&copy);
            copy
        };
        open(folder);
        Self {
            probe: copy(env!("CARGO_BIN_EXE_bulkhead-probe")),
            helper: copy(env!("CARGO_BIN_EXE_bulkhead-sandbox")),
        }
    }

    fn table(&self, users: &[Who]) -> Table {
        const LANES: usize = 2;
        let layers = || NAMES.iter().filter(|name| **name != "check");
        let work: Vec<_> = users
            .iter()
            .flat_map(|who| layers().map(|layer| (*layer, *who)))
            .collect();
        let whole: BTreeMap<Who, BTreeSet<String>> = users
            .iter()
            .map(|who| match self.stage("inside", &["check"], *who) {
                Without::Starts(through) => (*who, through),
                Without::Refused => panic!("a whole box does not start as {who:?}"),
            })
            .collect();
        let (next, table) = (AtomicUsize::new(0), Mutex::new(Table::new()));
        std::thread::scope(|scope| {
            for _ in 0..LANES {
                scope.spawn(|| {
                    while let Some((layer, who)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let left = self.left(layer, *who, &whole[who]);
                        println!("without {layer} as {who:?}: {left:?}");
                        table.lock().unwrap().insert((layer, *who), left);
                    }
                });
            }
        });
        table.into_inner().unwrap()
    }

    fn left(&self, layer: &str, who: Who, whole: &BTreeSet<String>) -> Left {
        let unchecked = match self.stage("inside", &["check", layer], who) {
            Without::Starts(through) => Without::Starts(&through - whole),
            Without::Refused => Without::Refused,
        };
        Left {
            checked: self.stage("start", &[layer], who),
            unchecked,
        }
    }

    fn stage(&self, scope: &str, without: &[&str], who: Who) -> Without {
        let mut command = Command::new(&self.probe);
        command
            .args(["stage", "start"])
            .arg(&self.helper)
            .args(["/no/such/configuration", "native", scope])
            .args(without.iter().map(|layer| format!("{WITHOUT}{layer}")))
            .current_dir("/");
        if who == Who::Ordinary && rustix::process::geteuid().is_root() {
            const USER: u32 = 4242;
            command.gid(USER).uid(USER);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{without:?}: {output:?}");
        match serde_json::from_slice(&output.stdout).unwrap() {
            Told::Refused { .. } => Without::Refused,
            Told::Findings(findings) => {
                let through = findings.into_iter().filter(|finding| !finding.stopped);
                Without::Starts(through.map(|finding| finding.probe).collect())
            }
        }
    }
}
