//! Bombs, counted out: each tries for a little more than its box allows, and lets go of it at once.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::runner::Limits;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::Probe;
use super::attempt::Attempt;
use super::scene::Bounds;
use crate::sys::{
    self,
    probe::{Fork, hold_shared},
};

const MEBIBYTE: u64 = 1024 * 1024;

/// How long memory is held: longer than it takes anybody to look, also on a busy machine.
const HELD: Duration = Duration::from_secs(1);

/// Limits of the boxes for bombs: small, so that little is enough to be over them.
fn small(limits: &mut Limits) {
    *limits = Limits {
        wall_seconds: 20,
        cpu_seconds: 10,
        memory_bytes: 128 * MEBIBYTE,
        pids: 64,
        tmp_bytes: 8 * MEBIBYTE,
        workspace_bytes: 16 * MEBIBYTE,
        ..limits.clone()
    };
}

fn second_of_cpu(limits: &mut Limits) {
    small(limits);
    limits.cpu_seconds = 1;
}

/// A little more than [`small`] allows. Of process ids, root's boxes may have 300 more.
pub(super) const BOUNDS: Bounds = Bounds {
    processes: 500,
    memory: 192 << 20,
    tmp: 12 << 20,
    workspace: 24 << 20,
};

pub(super) const PROBES: &[Probe] = &[
    Probe::new(
        "fork-bomb",
        "pids cgroup; RLIMIT_NPROC; for root's boxes a small pid_max of the pid namespace",
        |scene| processes(scene.bounds.processes),
        |_| processes(8),
    )
    .alone(small),
    Probe::new(
        "thread-bomb",
        "pids cgroup; RLIMIT_NPROC; for root's boxes a small pid_max of the pid namespace",
        |scene| threads(scene.bounds.processes),
        |_| threads(8),
    )
    .alone(small),
    Probe::new(
        "memory-bomb",
        "memory cgroup; RLIMIT_DATA",
        |scene| memory(scene.bounds.memory),
        |_| memory(8 << 20),
    )
    .alone(small),
    Probe::new(
        "memory-bomb-of-many",
        "memory cgroup; where there is none, a watcher looks every 20 ms and kills",
        |scene| memory_of_many(6, scene.bounds.memory / 6),
        |_| memory_of_many(2, 4 << 20),
    )
    .alone(small),
    Probe::new(
        "shared-memory-bomb",
        "memory cgroup; where there is none, a watcher looks every 20 ms and kills",
        |scene| shared(scene.bounds.memory),
        |_| shared(4 << 20),
    )
    .alone(small),
    Probe::new(
        "memory-file-bomb",
        "seccomp: memfd_create does not exist in a box; memory cgroup",
        |scene| Attempt::of(memory_file(scene.bounds.memory)),
        |_| memory(4 << 20),
    )
    .alone(small),
    Probe::new(
        "system-v-memory",
        "seccomp: shmget, semget and msgget do not exist in a box",
        |_| system_v(),
        |_| memory(1 << 20),
    ),
    Probe::new(
        "message-queue",
        "seccomp: mq_open does not exist in a box; RLIMIT_MSGQUEUE is 0",
        |_| message_queue(),
        |_| memory(1 << 20),
    ),
    Probe::new(
        "locked-memory",
        "RLIMIT_MEMLOCK is 0",
        |_| {
            let page = vec![1_u8; 8192];
            Attempt::of(crate::sys::probe::call(
                libc::SYS_mlock,
                [super::calls::n(page.as_ptr() as i64), super::calls::n(4096)],
            ))
        },
        |_| memory(1 << 20),
    ),
    Probe::new(
        "fill-tmp",
        "/tmp is a tmpfs of a size",
        |scene| fill(&scene.tmp, scene.bounds.tmp),
        |scene| fill(&scene.tmp, MEBIBYTE),
    )
    .alone(small),
    Probe::new(
        "fill-tmp-with-names",
        "/tmp is a tmpfs of a number of files",
        |scene| names(&scene.tmp, 70_000),
        |scene| names(&scene.tmp, 100),
    )
    .alone(small),
    Probe::new(
        "fill-workspace",
        "what is written to the layer over the workspace is watched",
        |scene| fill_as_disks_do(Path::new("."), scene.bounds.workspace),
        |_| fill(Path::new("."), MEBIBYTE),
    )
    .alone(small),
    Probe::new(
        "huge-sparse-file",
        "RLIMIT_FSIZE",
        |_| {
            const TEBIBYTE: u64 = 1 << 40;
            sparse(TEBIBYTE)
        },
        |_| sparse(MEBIBYTE),
    )
    .alone(small),
    Probe::new(
        "many-descriptors",
        "RLIMIT_NOFILE",
        |_| descriptors(1000),
        |_| descriptors(100),
    ),
    Probe::new(
        "burn-processor",
        "RLIMIT_CPU",
        |_| burn(Duration::from_millis(2500)),
        |_| burn(Duration::from_millis(50)),
    )
    .alone(second_of_cpu),
];

/// Whether so many children can be had at once.
fn processes(most: usize) -> Attempt {
    const LONGEST: Duration = Duration::from_secs(10);
    let mut children: Vec<Pid> = Vec::new();
    let mut error = None;
    while children.len() < most {
        match sys::probe::fork() {
            Ok(Fork::Parent(pid)) => children.push(pid),
            Ok(Fork::Child) => {
                std::thread::sleep(LONGEST);
                std::process::exit(0);
            }
            Err(why) => {
                error = Some(why);
                break;
            }
        }
    }
    let had = children.len();
    for child in children {
        let _ = kill_process(child, Signal::KILL);
        let _ = waitpid(Some(child), WaitOptions::empty());
    }
    counted(had, most, "processes", error)
}

fn threads(most: usize) -> Attempt {
    let gate = std::sync::Arc::new(std::sync::Mutex::new(()));
    let closed = gate.lock();
    let mut all = Vec::new();
    let mut error = None;
    while all.len() < most {
        let gate = gate.clone();
        let builder = std::thread::Builder::new().stack_size(64 * 1024);
        match builder.spawn(move || drop(gate.lock())) {
            Ok(thread) => all.push(thread),
            Err(why) => {
                error = Some(why);
                break;
            }
        }
    }
    let had = all.len();
    drop(closed);
    for thread in all {
        let _ = thread.join();
    }
    counted(had, most, "threads", error)
}

fn counted(had: usize, most: usize, what: &str, error: Option<io::Error>) -> Attempt {
    match (had >= most, error) {
        (true, _) => Attempt::through(format_args!("{had} {what}")),
        (false, Some(error)) => {
            Attempt::of(Err::<(), _>(error)).at(format_args!("{had} {what}, then"))
        }
        (false, None) => Attempt::stopped(format_args!("{had} {what}")),
    }
}

/// Whether so much memory can be written to.
fn memory(bytes: usize) -> Attempt {
    let mut all: Vec<u8> = Vec::new();
    if all.try_reserve_exact(bytes).is_err() {
        return Attempt::stopped("ENOMEM");
    }
    all.resize(bytes, 1);
    std::hint::black_box(&all);
    std::thread::sleep(HELD);
    Attempt::through(format_args!("{bytes} bytes"))
}

fn memory_of_many(processes: usize, bytes: usize) -> Attempt {
    let mut children = Vec::new();
    for _ in 0..processes {
        match sys::probe::fork() {
            Ok(Fork::Parent(pid)) => children.push(pid),
            Ok(Fork::Child) => std::process::exit(i32::from(!memory(bytes).got_through)),
            Err(error) => return Attempt::of(Err::<(), _>(error)),
        }
    }
    let ended_well = |pid: &Pid| {
        let ended = waitpid(Some(*pid), WaitOptions::empty());
        ended.is_ok_and(|ended| ended.is_some_and(|(_, status)| status.exit_status() == Some(0)))
    };
    let well = children.iter().filter(|pid| ended_well(pid)).count();
    counted(well, processes, "processes held their share", None)
}

fn shared(bytes: usize) -> Attempt {
    let held = hold_shared(bytes);
    std::thread::sleep(HELD);
    Attempt::of(held)
}

fn memory_file(bytes: usize) -> io::Result<()> {
    let mut file = File::from(memfd_create("probe", MemfdFlags::CLOEXEC)?);
    let block = vec![1; 1 << 20];
    for _ in 0..bytes / block.len() {
        file.write_all(&block)?;
    }
    Ok(())
}

fn system_v() -> Attempt {
    use super::calls::{ZERO, n};
    use crate::sys::probe::call;
    const REMOVE: i64 = 0;
    let memory = call(libc::SYS_shmget, [ZERO, n(4096), n(0o600)]);
    if let Ok(id) = &memory {
        let _ = call(libc::SYS_shmctl, [n(*id as i64), n(REMOVE), ZERO]);
    }
    let queue = call(libc::SYS_msgget, [ZERO, n(0o600)]);
    if let Ok(id) = &queue {
        let _ = call(libc::SYS_msgctl, [n(*id as i64), n(REMOVE), ZERO]);
    }
    let semaphore = call(libc::SYS_semget, [ZERO, n(1), n(0o600)]);
    if let Ok(id) = &semaphore {
        let _ = call(libc::SYS_semctl, [n(*id as i64), ZERO, n(REMOVE), ZERO]);
    }
    Attempt::any([
        Attempt::of(memory),
        Attempt::of(queue),
        Attempt::of(semaphore),
    ])
}

fn message_queue() -> Attempt {
    use super::calls::{ZERO, n};
    use crate::sys::probe::{Arg, call};
    let name = c"bulkhead-probe";
    let flags = n(libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC);
    let opened = call(libc::SYS_mq_open, [Arg::Text(name), flags, n(0o600), ZERO]);
    if opened.is_ok() {
        let _ = call(libc::SYS_mq_unlink, [Arg::Text(name)]);
    }
    Attempt::of(opened)
}

/// Whether so many bytes can be written below a folder. What was written is removed again.
fn fill(folder: &Path, bytes: u64) -> Attempt {
    const FILE: u64 = 4 * MEBIBYTE;
    let mut files = Vec::new();
    let done = write_files(folder, bytes, FILE, &mut files);
    files.iter().for_each(|path| {
        let _ = std::fs::remove_file(path);
    });
    Attempt::of(done).at(format_args!("{} files", files.len()))
}

/// The same with a pause after each file, as if this were much more and took its time.
fn fill_as_disks_do(folder: &Path, bytes: u64) -> Attempt {
    const FILE: u64 = 4 * MEBIBYTE;
    let mut files = Vec::new();
    let mut done = Ok(());
    for _ in 0..bytes / FILE {
        done = done.and_then(|()| write_files(folder, FILE, FILE, &mut files));
        std::thread::sleep(Duration::from_millis(30));
    }
    // A disk that is full stays so until somebody notices.
    std::thread::sleep(Duration::from_secs(1));
    for path in &files {
        let _ = std::fs::remove_file(path);
    }
    Attempt::of(done).at(format_args!("{} files", files.len()))
}

fn write_files(folder: &Path, bytes: u64, each: u64, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let block = vec![b'x'; MEBIBYTE as usize];
    let mut left = bytes;
    while left > 0 {
        let path = folder.join(format!("fill-{}-{}", std::process::id(), files.len()));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        files.push(path);
        let now = left.min(each);
        for _ in 0..now / MEBIBYTE {
            file.write_all(&block)?;
        }
        left -= now;
    }
    Ok(())
}

fn names(folder: &Path, most: usize) -> Attempt {
    let folder = folder.join(format!("names-{}", std::process::id()));
    if let Err(error) = std::fs::create_dir(&folder) {
        return Attempt::of(Err::<(), _>(error));
    }
    let mut error = None;
    let mut had = 0;
    while had < most {
        match File::create(folder.join(had.to_string())) {
            Ok(_) => had += 1,
            Err(why) => {
                error = Some(why);
                break;
            }
        }
    }
    let _ = std::fs::remove_dir_all(&folder);
    counted(had, most, "files", error)
}

fn sparse(bytes: u64) -> Attempt {
    sys::probe::ignore_all();
    let path = format!("sparse-{}", std::process::id());
    let made = File::create(&path).and_then(|file| file.set_len(bytes));
    let _ = std::fs::remove_file(&path);
    Attempt::of(made)
}

fn descriptors(most: usize) -> Attempt {
    let mut all = Vec::new();
    let mut error = None;
    while all.len() < most {
        match File::open("/dev/null") {
            Ok(file) => all.push(file),
            Err(why) => {
                error = Some(why);
                break;
            }
        }
    }
    counted(all.len(), most, "descriptors", error)
}

fn burn(how_long: Duration) -> Attempt {
    let used = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    };
    while used() < how_long {
        std::hint::black_box(());
    }
    Attempt::through(format_args!(
        "{} ms of processor time",
        how_long.as_millis()
    ))
}
