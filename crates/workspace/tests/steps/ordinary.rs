//! The same as an ordinary user.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

#[test]
fn an_ordinary_user_keeps_and_undoes_the_same() {
    const ORDINARY: u32 = 4244;
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    };
    // Copies, since the build folder may be closed to others.
    let folder = tempfile::tempdir().unwrap();
    open(folder.path());
    let exe = folder.path().join("steps");
    std::fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    open(&exe);
    let mut command = Command::new(&exe);
    command
        .args([
            "keep::",
            "kinds::",
            "traps::",
            "sessions::",
            "history::",
            "--test-threads",
            "2",
        ])
        .env("TMPDIR", folder.path())
        .current_dir(folder.path());
    if rustix::process::geteuid().is_root() {
        command.gid(ORDINARY).uid(ORDINARY);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let counted = text
        .split("test result: ok. ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let ran: u32 = counted.unwrap().parse().unwrap();
    assert!(ran >= 20, "{text}");
}
