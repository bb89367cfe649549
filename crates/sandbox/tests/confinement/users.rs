//! As whom programs go on that root started.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use crate::{
    As, Held, LISTED, STARTERS, allowed, attempt, attempt_with, command, field, hold, hold_by,
    is_root,
};

/// Programs for whom root's files are theirs, though their user is not root.
const KEEPERS: [&str; 3] = ["gateway", "vault", "ledger"];

/// Programs that stay root.
const ROOTS: [&str; 3] = ["supervisor", "sandbox", "workspace"];

pub(crate) fn programs_of_root_have_users_of_their_own_and_no_group_besides() {
    for program in LISTED.into_iter().chain(STARTERS) {
        let held = hold(program, As::Me);
        let status = held.status();
        let ids = |name: &str| -> Vec<u32> {
            let ids = field(&status, name).split_whitespace();
            ids.map(|id| id.parse().unwrap()).collect()
        };
        // Real, effective, saved, and that for files.
        let (uid, gid) = match (is_root(), ROOTS.contains(&program)) {
            (true, false) => (held.user(), held.user()),
            (true, true) => (0, 0),
            (false, _) => (
                rustix::process::getuid().as_raw(),
                rustix::process::getgid().as_raw(),
            ),
        };
        let (file_uid, file_gid) = match is_root() && KEEPERS.contains(&program) {
            true => (0, 0),
            false => (uid, gid),
        };
        assert_eq!(ids("Uid"), [uid, uid, uid, file_uid], "{program}");
        assert_eq!(ids("Gid"), [gid, gid, gid, file_gid], "{program}");
        if is_root() {
            assert_eq!(ids("Groups"), [0_u32; 0], "{program}");
        }
    }
}

pub(crate) fn no_signal_and_no_look_goes_from_one_program_s_user_to_another_s_without_any_confinement()
 {
    let agent = hold("agent", As::Me);
    let attempt = |act: &str, held: &Held| {
        let mut command = command(&["unconfined", act, &held.child.id().to_string()]);
        if is_root() {
            agent.as_its_user(&mut command);
        }
        allowed(&command.output().unwrap(), act)
    };
    for program in LISTED.into_iter().chain(STARTERS) {
        let other = hold(program, As::Me);
        // Of an ordinary user's programs only the confinement keeps one from the other.
        let expected = if is_root() { "refused" } else { "allowed" };
        assert_eq!(attempt("signal", &other), expected, "{program}");
        assert_eq!(attempt("memory", &other), "refused", "{program}");
    }
    // The same user can, where nothing else is in the way.
    assert_eq!(attempt("signal", &agent), "allowed");
    let mut plain = hold_by("unconfined", |command| {
        if is_root() {
            agent.as_its_user(command);
        }
    });
    assert_eq!(attempt("memory", &plain), "allowed");
    plain = hold("unconfined", As::Me);
    let expected = if is_root() { "refused" } else { "allowed" };
    assert_eq!(attempt("memory", &plain), expected);
}

pub(crate) fn root_s_files_stay_root_s_for_who_keeps_them_and_nobody_else_has_them() {
    let dir = tempfile::tempdir().unwrap();
    // As a home below /root is: for its owner alone.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (folder, path) = (dir.path().to_str().unwrap(), file.to_str().unwrap());
    for program in ["gateway", "vault", "ledger"] {
        assert_eq!(
            attempt_with(program, &["--write", folder], &["append", path]),
            "allowed",
            "{program}"
        );
        assert_eq!(
            attempt_with(program, &["--write", folder], &["make", folder]),
            "allowed",
            "{program}"
        );
        let made = dir.path().join("made");
        let owner = std::fs::metadata(&made).unwrap().uid();
        assert_eq!(owner, rustix::process::getuid().as_raw(), "{program}");
        std::fs::remove_file(made).unwrap();
    }
    // Though their Landlock domain would give it to them. As an ordinary user they would have it.
    let expected = if is_root() { "refused" } else { "allowed" };
    for program in ["egress", "web", "telegram"] {
        assert_eq!(
            attempt_with(program, &["--read", folder], &["read", path]),
            expected,
            "{program}"
        );
    }
}

pub(crate) fn a_supervisor_that_could_not_end_its_programs_does_not_start() {
    if !is_root() {
        // Whoever is not root ends its own.
        assert_eq!(attempt("supervisor", &["threads"]), "allowed");
        return;
    }
    for missing in ["kill", "setuid", "setgid"] {
        let output = Command::new("setpriv")
            .args([&format!("--bounding-set=-{missing}"), "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["inside", "supervisor", "threads"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{missing}");
        assert!(said.contains("CAP_KILL"), "{missing}: {said}");
    }
}

impl Held {
    /// The id that root gives it.
    fn user(&self) -> u32 {
        bulkhead_sandbox::FIRST_ID + self.child.id()
    }

    /// Has this run as the same user, from a place that it can reach.
    fn as_its_user(&self, command: &mut Command) {
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut new = Command::new(self.folder.path().join("confinement"));
        new.args(arguments).gid(self.user()).uid(self.user());
        new.stdin(Stdio::piped()).stdout(Stdio::piped());
        *command = new;
    }
}
