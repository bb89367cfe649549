//! Cgroups: what holds the memory and the processes of a box as a whole, where it is to be had.
//!
//! cgroups(7). Version 2 needs `memory` and `pids` in a group that is delegated to this user (systemd:
//! `Delegate=yes`), or root; version 1 needs root. Elsewhere limits of single processes and a watcher hold
//! what they can, and the receipt says "best effort".

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use protocol::control::BoxGroups;
use protocol::runner::Limits;

use crate::ablation::{self, Layer};

/// Where groups of boxes can be made.
#[derive(Debug)]
pub(crate) enum Cgroups {
    /// In this folder; both controllers are on.
    V2(PathBuf),
    /// In these folders, one for each controller.
    V1 {
        /// Of the controller `memory`.
        memory: PathBuf,
        /// Of the controller `pids`.
        pids: PathBuf,
    },
    /// Nowhere.
    Nowhere {
        /// Why.
        reason: String,
    },
}

/// The caller, for a file of a cgroup that names processes.
pub(crate) const MYSELF: &[u8] = b"0";
/// Folders of a service are called so, followed by its process id and a number.
const PREFIX: &str = "bulkhead-";
/// Where programs move in a delegated group, since one with groups below it may hold none itself.
const PROGRAMS: &str = "bulkhead-programs";

impl Cgroups {
    /// Looks for a place, and makes this service's folder in it.
    pub(crate) fn find(groups: &BoxGroups) -> Self {
        if !ablation::on(Layer::CgroupLimits) {
            return Self::Nowhere {
                reason: "left out".to_owned(),
            };
        }
        let found = match groups.clone() {
            BoxGroups::Own => Hierarchies::of_this_process(),
            BoxGroups::V2 { folder } => Ok(Hierarchies {
                unified: Some(folder),
                ..Hierarchies::default()
            }),
            BoxGroups::V1 { memory, pids } => Ok(Hierarchies {
                memory: Some(memory),
                pids: Some(pids),
                ..Hierarchies::default()
            }),
        };
        match found {
            Ok(found) => Self::within(&found).unwrap_or_else(|reason| Self::Nowhere { reason }),
            Err(error) => Self::Nowhere {
                reason: format!("/proc/self cannot be read: {error}"),
            },
        }
    }

    fn within(found: &Hierarchies) -> Result<Self, String> {
        static FOUND: AtomicU64 = AtomicU64::new(0);
        let number = FOUND.fetch_add(1, Ordering::Relaxed);
        let own = format!("{PREFIX}{}-{number}", std::process::id());
        let second = match &found.unified {
            Some(group) => delegated(group, &own),
            None => Err("no cgroups are mounted".to_owned()),
        };
        match (second, &found.memory, &found.pids) {
            (Ok(folder), _, _) => Ok(Self::V2(folder)),
            (Err(_), Some(memory), Some(pids)) => Ok(Self::V1 {
                memory: made(memory, &own)?,
                pids: made(pids, &own)?,
            }),
            (Err(reason), _, _) => Err(reason),
        }
    }

    /// Leaves this service's folder to another program, which makes its own below. It stays when this process
    /// ends; the next one that looks for a place removes it then.
    fn leave(self) -> BoxGroups {
        let groups = match &self {
            Self::V2(folder) => BoxGroups::V2 {
                folder: folder.clone(),
            },
            Self::V1 { memory, pids } => BoxGroups::V1 {
                memory: memory.clone(),
                pids: pids.clone(),
            },
            Self::Nowhere { .. } => BoxGroups::Own,
        };
        std::mem::forget(self);
        groups
    }

    /// How they are called in receipts.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::V2(_) => Version::Second.name(),
            Self::V1 { .. } => Version::First.name(),
            Self::Nowhere { .. } => "best effort",
        }
    }

    /// A group with these limits for one box; none where none can be had.
    pub(crate) fn make(&self, number: u64, limits: &Limits) -> io::Result<Option<Cgroup>> {
        let name = format!("box-{number}");
        let set =
            |folder: &Path, file: &str, value: u64| fs::write(folder.join(file), value.to_string());
        // Swap is memory too. A kernel that does not count it has not the file.
        let swap = |folder: &Path, file: &str, value: u64| match set(folder, file, value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        match self {
            Self::Nowhere { .. } => Ok(None),
            Self::V2(all) => {
                let group = Cgroup::new(Version::Second, vec![all.join(name)])?;
                let folder = &group.folders[0];
                set(folder, "memory.max", limits.memory_bytes)?;
                swap(folder, "memory.swap.max", 0)?;
                set(folder, "memory.oom.group", 1)?;
                set(folder, "pids.max", limits.pids.into())?;
                Ok(Some(group))
            }
            Self::V1 { memory, pids } => {
                let folders = vec![memory.join(&name), pids.join(&name)];
                let group = Cgroup::new(Version::First, folders)?;
                set(
                    &group.folders[0],
                    "memory.limit_in_bytes",
                    limits.memory_bytes,
                )?;
                swap(
                    &group.folders[0],
                    "memory.memsw.limit_in_bytes",
                    limits.memory_bytes,
                )?;
                set(&group.folders[1], "pids.max", limits.pids.into())?;
                Ok(Some(group))
            }
        }
    }
}

/// Makes a place for the cgroups of boxes, for a program that starts with privileges and gives them up: afterwards it
/// could make none in groups that are closed to those without. What it reads is `/proc/self` and the
/// names in its own cgroup.
pub fn prepare() -> BoxGroups {
    Cgroups::find(&BoxGroups::Own).leave()
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        // A group that still holds something stays, and the next start removes it.
        match self {
            Self::V2(folder) => remove_with_boxes(folder),
            Self::V1 { memory, pids } => {
                remove_with_boxes(memory);
                remove_with_boxes(pids);
            }
            Self::Nowhere { .. } => {}
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    First,
    Second,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::First => "cgroup v1",
            Self::Second => "cgroup v2",
        }
    }
}

/// The group of one box; removed with it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    version: Version,
    folders: Vec<PathBuf>,
}

/// What a group holds, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// `cgroup v2` or `cgroup v1`.
    pub(crate) by: &'static str,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Processes and threads.
    pub(crate) pids: u64,
}

impl Cgroup {
    fn new(version: Version, folders: Vec<PathBuf>) -> io::Result<Self> {
        // What was made is removed if the rest cannot be.
        let mut group = Self {
            version,
            folders: Vec::new(),
        };
        for folder in folders {
            fs::create_dir(&folder)?;
            group.folders.push(folder);
        }
        Ok(group)
    }

    /// Puts a process into it, and with it all that it starts; or says through what that process enters by
    /// itself, writing [`MYSELF`] to each, before it starts anything.
    pub(crate) fn take_in(&self, pid: u32) -> io::Result<Vec<OwnedFd>> {
        let mut folders = self.folders.iter();
        match self.version {
            // Moving another process waits some ten milliseconds for the whole kernel (an RCU grace period);
            // a thread that moves itself does not.
            Version::First => folders
                .map(|folder| {
                    let door = fs::OpenOptions::new()
                        .write(true)
                        .open(folder.join("tasks"))?;
                    Ok(door.into())
                })
                .collect(),
            // A thread cannot leave its process there.
            Version::Second => folders
                .try_for_each(|folder| fs::write(folder.join("cgroup.procs"), pid.to_string()))
                .map(|()| Vec::new()),
        }
    }

    /// What is in force for a process that is in it.
    pub(crate) fn held(&self, pid: u32) -> io::Result<Held> {
        let (memory, pids) = (&self.folders[0], &self.folders[self.folders.len() - 1]);
        for folder in &self.folders {
            let members = fs::read_to_string(folder.join("cgroup.procs"))?;
            if !members.lines().any(|line| line == pid.to_string()) {
                return Err(io::Error::other(format!(
                    "the box is not in {}",
                    folder.display()
                )));
            }
        }
        let file = match self.version {
            Version::First => "memory.limit_in_bytes",
            Version::Second => "memory.max",
        };
        Ok(Held {
            by: self.version.name(),
            memory: number(&memory.join(file))?,
            pids: number(&pids.join("pids.max"))?,
        })
    }

    /// How many processes the kernel killed for want of memory in it.
    pub(crate) fn killed_for_memory(&self) -> u64 {
        let file = match self.version {
            Version::First => "memory.oom_control",
            Version::Second => "memory.events",
        };
        let text = fs::read_to_string(self.folders[0].join(file)).unwrap_or_default();
        let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
        text.lines().find_map(count).unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.folders.iter().for_each(|folder| remove(folder));
    }
}

/// Removes the group of a box that has ended. Kernels since 6.19 may let go of its last process only
/// after its end was told; what takes longer than this is left to the end or the next start of a service.
fn remove(folder: &Path) {
    const TRIES: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(1);
    for _ in 0..TRIES {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(PAUSE),
            _ => return,
        }
    }
}

/// Removes the folder of a service, and what is left of its boxes or of services that it made room for.
fn remove_with_boxes(folder: &Path) {
    remove_below(folder, 3);
}

fn remove_below(folder: &Path, levels: u32) {
    if levels > 1 {
        for inner in fs::read_dir(folder).into_iter().flatten().flatten() {
            if inner.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_below(&inner.path(), levels - 1);
            }
        }
    }
    let _ = fs::remove_dir(folder);
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let text = text.trim();
    text.parse()
        .map_err(|_| io::Error::other(format!("{} says {text:?}", path.display())))
}

/// Makes a folder of this service's own in a group, and removes those of services that are gone.
fn made(group: &Path, own: &str) -> Result<PathBuf, String> {
    remove_old(group);
    let folder = group.join(own);
    match fs::create_dir(&folder) {
        Ok(()) => Ok(folder),
        Err(error) => Err(format!(
            "no cgroup can be made in {}: {error}",
            group.display()
        )),
    }
}

fn remove_old(group: &Path) {
    let gone = |name: &str| {
        let (pid, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
        let pid = pid.parse::<u32>().ok()?;
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    };
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_name().to_str().and_then(gone).is_some() {
            remove_with_boxes(&entry.path());
        }
    }
}

/// Makes this service's folder in a group of version 2, with both controllers on.
fn delegated(group: &Path, own: &str) -> Result<PathBuf, String> {
    const NEEDED: [&str; 2] = ["memory", "pids"];
    let has = |folder: &Path, file: &str| {
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        NEEDED
            .iter()
            .all(|controller| text.split_whitespace().any(|word| word == *controller))
    };
    // Programs that moved before are below the group that was delegated.
    let group = match group.file_name() {
        Some(name) if name == PROGRAMS => group.parent().unwrap_or(group),
        Some(_) | None => group,
    };
    let place = group.display();
    if !has(group, "cgroup.controllers") {
        return Err(format!(
            "the cgroup {place} has not the controllers `memory` and `pids`"
        ));
    }
    if !has(group, "cgroup.subtree_control") {
        turn_on(group)?;
    }
    let folder = made(group, own)?;
    match fs::write(folder.join("cgroup.subtree_control"), CONTROLLERS) {
        Ok(()) => Ok(folder),
        Err(error) => {
            let _ = fs::remove_dir(&folder);
            Err(format!(
                "no limits can be set below the cgroup {}: {error}",
                folder.display()
            ))
        }
    }
}

/// What is written to `cgroup.subtree_control`.
const CONTROLLERS: &str = "+memory +pids";

/// Turns both controllers on for groups below this one. It may hold no processes itself then, but for
/// the root of all.
fn turn_on(group: &Path) -> Result<(), String> {
    // Each time something else may have been started in between.
    const TRIES: usize = 16;
    let place = group.display();
    for _ in 0..TRIES {
        match fs::write(group.join("cgroup.subtree_control"), CONTROLLERS) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => move_programs(group)?,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(format!(
                    "the cgroup {place} is not delegated to this user: {error}"
                ));
            }
            Err(error) => {
                return Err(format!(
                    "no limits can be set below the cgroup {place}: {error}"
                ));
            }
        }
    }
    Err(format!(
        "processes are started in the cgroup {place} faster than they can be moved"
    ))
}

/// Moves Bulkhead's programs to a group below; a group in which others are too is not touched.
fn move_programs(group: &Path) -> Result<(), String> {
    let wrong = |e: io::Error| format!("the cgroup {} is not delegated: {e}", group.display());
    let members = fs::read_to_string(group.join("cgroup.procs")).map_err(wrong)?;
    let members: Vec<u32> = members.lines().filter_map(|pid| pid.parse().ok()).collect();
    let family = Family::of_this_process(&members);
    if let Some(stranger) = members.iter().find(|pid| !family.has(**pid)) {
        let program = name(*stranger);
        return Err(format!(
            "other programs are in the cgroup {} too, such as {program:?} ({stranger})",
            group.display()
        ));
    }
    let programs = group.join(PROGRAMS);
    match fs::create_dir(&programs) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(wrong(error)),
        _ => {}
    }
    for pid in members {
        match fs::write(programs.join("cgroup.procs"), pid.to_string()) {
            // It ended in between.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            moved => moved.map_err(wrong)?,
        }
    }
    Ok(())
}

/// Those who may be moved: Bulkhead's first program, and all that it started. Whoever is above it, such
/// as a shell, has the group in common with it and did not ask for anything.
#[derive(Debug)]
struct Family {
    eldest: u32,
}

impl Family {
    /// The eldest is the farthest program of that name above this process, without a gap and within the
    /// group.
    fn of_this_process(members: &[u32]) -> Self {
        let mut eldest = std::process::id();
        while let Some(above) = parent(eldest).filter(|above| members.contains(above)) {
            if !name(above).starts_with("bulkhead") {
                break;
            }
            eldest = above;
        }
        Self { eldest }
    }

    /// What has ended is nobody's.
    fn has(&self, member: u32) -> bool {
        let mut line = std::iter::successors(Some(member), |pid| parent(*pid));
        line.any(|pid| pid == self.eldest) || !Path::new(&format!("/proc/{member}")).exists()
    }
}

/// What a process calls itself.
fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Who started a process, or whom it was left to; none of the first one (proc(5), `stat`).
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
    (parent != 0).then_some(parent)
}

/// This process' groups, as folders.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hierarchies {
    unified: Option<PathBuf>,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
}

impl Hierarchies {
    fn of_this_process() -> io::Result<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        Ok(Self::read(
            &groups,
            &fs::read_to_string("/proc/self/mountinfo")?,
        ))
    }

    /// From the texts of `/proc/PID/cgroup` and `/proc/PID/mountinfo` (proc(5)).
    fn read(groups: &str, mounts: &str) -> Self {
        let mut found = Self::default();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let has = |name| controllers.split(',').any(|controller| controller == name);
            if controllers.is_empty() {
                found.unified = folder(mounts, "cgroup2", None, path);
            }
            if has("memory") {
                found.memory = folder(mounts, "cgroup", Some("memory"), path);
            }
            if has("pids") {
                found.pids = folder(mounts, "cgroup", Some("pids"), path);
            }
        }
        found
    }
}

/// The folder of a group where its hierarchy is mounted.
fn folder(mounts: &str, kind: &str, controller: Option<&str>, group: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, at) = (mount.next()?, mount.next()?);
        let mut file_system = file_system.split(' ');
        if file_system.next()? != kind {
            return None;
        }
        let options = file_system.nth(1)?;
        if controller.is_some_and(|name| !options.split(',').any(|option| option == name)) {
            return None;
        }
        // A container sees a part of the hierarchy, which begins at `root`.
        let below = Path::new(group).strip_prefix(root).ok()?;
        Some(Path::new(at).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &str = "9:name=systemd:/\n8:pids:/\n4:cpu,memory:/a/b\n0::/user.slice/x\n";
    const MOUNTS: &str = "30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw shared:5 - cgroup2 cgroup2 rw\n\
        32 30 0:28 /a /sys/fs/cgroup/memory rw - cgroup cgroup rw,cpu,memory\n\
        33 30 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";

    #[test]
    fn groups_are_found_where_their_hierarchies_are_mounted() {
        let found = Hierarchies::read(GROUPS, MOUNTS);
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(found.unified, path("/sys/fs/cgroup/unified/user.slice/x"));
        assert_eq!(found.memory, path("/sys/fs/cgroup/memory/b"));
        assert_eq!(found.pids, path("/sys/fs/cgroup/pids/"));
        assert_eq!(Hierarchies::read("", MOUNTS), Hierarchies::default());
        assert_eq!(Hierarchies::read(GROUPS, ""), Hierarchies::default());
    }

    #[test]
    fn who_may_be_moved_is_this_process_and_what_it_started_and_nobody_above() {
        let own = std::process::id();
        let above = parent(own).unwrap();
        let mut below = std::process::Command::new("sh")
            .args(["-c", "read wait; sleep 0"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The test's own program is called as Bulkhead's are, and what started it is not.
        let family = Family::of_this_process(&[1, above, own, below.id()]);
        assert_eq!(family.eldest, own);
        assert!(family.has(own) && family.has(below.id()));
        assert!(!family.has(above) && !family.has(1));
        drop(below.stdin.take());
        below.wait().unwrap();
        assert!(family.has(below.id()), "it has ended");
        assert_eq!(parent(1), None);
    }

    #[test]
    fn a_group_without_the_controllers_or_with_strangers_in_it_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path();
        let write = |name: &str, text: &str| fs::write(group.join(name), text).unwrap();
        write("cgroup.controllers", "cpu pids\n");
        assert!(delegated(group, "own").unwrap_err().contains("controllers"));
        write("cgroup.controllers", "cpu memory pids\n");
        write("cgroup.procs", &format!("{}\n1\n", std::process::id()));
        assert!(move_programs(group).unwrap_err().contains("other programs"));
        assert!(!group.join(PROGRAMS).exists());
        // Where the controllers are on already, nobody has to move.
        write("cgroup.subtree_control", "memory pids\n");
        assert_eq!(delegated(group, "own"), Ok(group.join("own")));
        let programs = group.join(PROGRAMS);
        assert_eq!(delegated(&programs, "other"), Ok(group.join("other")));
    }
}
