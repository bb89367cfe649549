//! What of the kernel a box needs, whether it is there, and what to do if not.

use std::path::Path;

use protocol::control::BoxGroups;
use serde::Serialize;

use crate::cgroup::Cgroups;
use crate::landlock_domain;
use crate::native::spec::Failure;
use crate::run::Refused;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, with a weakness.
    Warn,
    /// No box can be had.
    Fail,
}

/// One check, for `bulkhead doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    #[serde(rename = "check")]
    pub name: String,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What to do; empty if nothing.
    pub fix: String,
}

/// Looks at what confinement and boxes need of this machine. Nothing is started, and nothing stays changed.
pub fn check() -> Vec<Check> {
    vec![namespaces(), landlock(), seccomp(), memory(), user()]
}

fn namespaces() -> Check {
    let name = "user namespaces".to_owned();
    match obstacle(Path::new("/")) {
        Some(Refused { reason, fix }) => Check {
            name,
            status: Status::Fail,
            detail: reason,
            fix,
        },
        None => Check {
            name,
            status: Status::Ok,
            detail: "no setting of this kernel forbids them".to_owned(),
            fix: String::new(),
        },
    }
}

fn landlock() -> Check {
    let name = "landlock".to_owned();
    match landlock_domain::abi() {
        Ok(abi) => Check {
            name,
            status: Status::Ok,
            detail: format!("ABI {abi}"),
            fix: String::new(),
        },
        Err(error) => Check {
            name,
            status: Status::Fail,
            detail: error,
            fix: "boot a kernel with Landlock".to_owned(),
        },
    }
}

fn seccomp() -> Check {
    let name = "seccomp".to_owned();
    let actions =
        std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let has = |action| actions.split_whitespace().any(|word| word == action);
    match has("kill_process") && has("errno") {
        true => Check {
            name,
            status: Status::Ok,
            detail: format!("actions: {}", actions.trim()),
            fix: String::new(),
        },
        false => Check {
            name,
            status: Status::Fail,
            detail: "this kernel has no seccomp filters".to_owned(),
            fix: "boot a kernel with CONFIG_SECCOMP_FILTER".to_owned(),
        },
    }
}

fn memory() -> Check {
    let name = "memory limit".to_owned();
    match &Cgroups::find(&BoxGroups::Own) {
        Cgroups::Nowhere { reason } => Check {
            name,
            status: Status::Warn,
            detail: format!(
                "memory: best effort. Each process of a box is held to the limit; their sum is looked at every 20 ms ({reason})"
            ),
            fix: CGROUP_FIX.to_owned(),
        },
        found @ (Cgroups::V1 { .. } | Cgroups::V2(_)) => Check {
            name,
            status: Status::Ok,
            detail: format!("held by {}", found.name()),
            fix: String::new(),
        },
    }
}

fn user() -> Check {
    let name = "user".to_owned();
    match rustix::process::geteuid().is_root() {
        false => Check { name, status: Status::Ok, detail: "an ordinary user".to_owned(), fix: String::new() },
        true => Check {
            name,
            status: Status::Warn,
            detail: "Bulkhead runs as root, so a box that were broken out of would be root without capabilities".to_owned(),
            fix: "run Bulkhead as an ordinary user".to_owned(),
        },
    }
}

/// How to have memory held as a whole.
pub(crate) const CGROUP_FIX: &str = "start Bulkhead as a systemd service with Delegate=yes (`bulkhead.service` in etc/), or allow \
     best effort: memory = \"best_effort\" under [box] in bulkhead.toml";

/// Why a box could not be built, for people.
pub(crate) fn refusal(failure: &Failure) -> Refused {
    let what = format!("no box can be built: {}: {}", failure.doing, failure.error);
    let denied = matches!(
        failure.errno,
        Some(
            libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EUSERS | libc::ENOSYS | libc::EINVAL
        )
    );
    match obstacle(Path::new("/")).filter(|_| denied) {
        Some(Refused { reason, fix }) => Refused { reason: format!("{what} ({reason})"), fix },
        None if denied => Refused {
            reason: what,
            fix: "a container or service manager around Bulkhead may forbid namespaces or mounts: run it outside, or allow \
                  unshare(2) and mount(2) there (systemd: RestrictNamespaces=no)"
                .to_owned(),
        },
        None => Refused { reason: what, fix: "look at `bulkhead doctor`, and whether the workspace exists and can be entered".to_owned() },
    }
}

/// A setting that keeps ordinary users, or everybody, from user namespaces. `root` is where `/proc` is found.
pub(crate) fn obstacle(root: &Path) -> Option<Refused> {
    let setting = |name: &str| {
        let text = std::fs::read_to_string(root.join("proc/sys").join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let refused = |reason: &str, fix: &str| {
        Some(Refused {
            reason: reason.to_owned(),
            fix: fix.to_owned(),
        })
    };
    if setting("user/max_user_namespaces") == Some(0) {
        return refused(
            "user.max_user_namespaces is 0",
            "allow user namespaces: sysctl -w user.max_user_namespaces=10000, and the same line in /etc/sysctl.d/bulkhead.conf",
        );
    }
    if setting("kernel/unprivileged_userns_clone") == Some(0) {
        return refused(
            "kernel.unprivileged_userns_clone is 0",
            "allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1, and the same line in /etc/sysctl.d/bulkhead.conf",
        );
    }
    if setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1)
        && !allowed_by_apparmor(root)
    {
        return refused(
            "AppArmor keeps programs without a profile from user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)",
            "give bulkhead-sandbox an AppArmor profile that allows `userns`, or \
             sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 for all programs",
        );
    }
    None
}

/// Whether a profile other than the one for strangers holds this process.
fn allowed_by_apparmor(root: &Path) -> bool {
    let label = std::fs::read_to_string(root.join("proc/self/attr/current")).unwrap_or_default();
    label.starts_with("bulkhead")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(settings: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, value) in settings {
            let path = root.path().join("proc").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value).unwrap();
        }
        root
    }

    #[test]
    fn each_setting_that_forbids_namespaces_is_named_with_its_fix() {
        for (name, value, word) in [
            ("sys/user/max_user_namespaces", "0\n", "max_user_namespaces"),
            (
                "sys/kernel/unprivileged_userns_clone",
                "0\n",
                "unprivileged_userns_clone",
            ),
            (
                "sys/kernel/apparmor_restrict_unprivileged_userns",
                "1\n",
                "AppArmor",
            ),
        ] {
            let refused = obstacle(host(&[(name, value)]).path()).unwrap();
            assert!(refused.reason.contains(word), "{refused:?}");
            assert!(refused.fix.contains("sysctl -w"), "{refused:?}");
        }
    }

    #[test]
    fn an_open_host_has_no_obstacle() {
        let settings = [
            ("sys/user/max_user_namespaces", "96365\n"),
            ("sys/kernel/apparmor_restrict_unprivileged_userns", "0\n"),
        ];
        assert_eq!(obstacle(host(&settings).path()), None);
        let profiled = [
            ("sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"),
            ("self/attr/current", "bulkhead-sandbox (enforce)\n"),
        ];
        assert_eq!(obstacle(host(&profiled).path()), None);
    }
}
