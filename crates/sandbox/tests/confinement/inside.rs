//! What runs confined: `inside PROGRAM [--read PATH | --write PATH | --keep PATH]... ACT [ARGUMENT]`. Prints
//! `allowed` or `refused`.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bulkhead_sandbox::probe::{self, Outcome};
use bulkhead_sandbox::{Files, Program, confine, signals};

pub(crate) fn main(args: Vec<String>) {
    match args[0].as_str() {
        "as-parent" => return as_parent(&args[1]),
        "wait-for-stop" => return wait_for_stop(),
        _ => {}
    }
    let (mut files, mut rest) = (Files::default(), &args[1..]);
    while let [flag, path, others @ ..] = rest {
        match flag.as_str() {
            "--read" => files.read.push(path.into()),
            "--write" => files.write.push(path.into()),
            "--hide" => files.hide.push(path.into()),
            "--keep" => files.keep.push(path.into()),
            _ => break,
        }
        rest = others;
    }
    // Made while that is allowed, like the links of a real program.
    let mut given = Given {
        link: std::os::unix::net::UnixStream::pair().unwrap(),
    };
    if rest.first().map(String::as_str) == Some("--thread-first") {
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(60)));
    }
    if let Some(program) = program(&args[0])
        && let Err(error) = confine(program, &files)
    {
        eprintln!("{error}");
        std::process::exit(1);
    }
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    match act(&rest, &mut given) {
        Ok(()) => println!("allowed"),
        Err(error) => {
            eprintln!("{error}");
            println!("refused");
        }
    }
}

struct Given {
    link: (
        std::os::unix::net::UnixStream,
        std::os::unix::net::UnixStream,
    ),
}

fn program(name: &str) -> Option<Program> {
    Some(match name {
        "unconfined" => return None,
        "supervisor" => Program::Supervisor,
        "gateway" => Program::Gateway,
        "agent" => Program::Agent,
        "egress" => Program::Egress,
        "vault" => Program::Vault,
        "ledger" => Program::Ledger,
        "sandbox" => Program::Sandbox,
        "workspace" => Program::Workspace,
        "engine" => Program::Engine,
        "web" => Program::ChannelWeb,
        "telegram" => Program::ChannelTelegram,
        other => panic!("no such program: {other}"),
    })
}

fn act(act: &[&str], given: &mut Given) -> io::Result<()> {
    match *act {
        ["call", name] => match probe::ALL
            .iter()
            .find(|probe| probe.name == name)
            .unwrap()
            .attempt()
        {
            Outcome::Reached => Ok(()),
            Outcome::Refused => Err(io::Error::other("refused")),
        },
        ["read", path] => std::fs::File::open(path)?.read(&mut [0]).map(drop),
        ["full", path] => match std::fs::read(path)?.is_empty() {
            true => Err(io::Error::other("it is empty")),
            false => Ok(()),
        },
        ["descriptors", count] => {
            let all: io::Result<Vec<_>> = (0..count.parse().unwrap())
                .map(|_| given.link.0.try_clone())
                .collect();
            all.map(drop)
        }
        ["uncover", path, _] => Ok(rustix::mount::unmount(
            path,
            rustix::mount::UnmountFlags::DETACH,
        )?),
        ["append", path] => std::fs::OpenOptions::new()
            .append(true)
            .open(path)?
            .write_all(b"y"),
        ["truncate", path] => std::fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(path)
            .map(drop),
        ["list", path] => std::fs::read_dir(path).map(drop),
        ["symlink", folder] => {
            let link = Path::new(folder).join("link");
            Ok(rustix::fs::symlinkat("/etc/shadow", rustix::fs::CWD, link)?)
        }
        ["move", from, to] => {
            std::fs::rename(Path::new(from).join("file"), Path::new(to).join("moved"))
        }
        ["connect", address] => TcpStream::connect(address).map(drop),
        ["udp", address] => std::net::UdpSocket::bind(address).map(drop),
        ["listen", address] => TcpListener::bind(address).map(drop),
        ["start", path] => Command::new(path).status().map(drop),
        ["map-code"] => probe::map_code(),
        ["setuid", folder] => setuid(Path::new(folder)),
        ["signal-parent"] => {
            let parent = rustix::process::getppid().unwrap();
            Ok(rustix::process::test_kill_process(parent)?)
        }
        ["signal", pid] => Ok(rustix::process::test_kill_process(process(pid))?),
        // Opening it asks the kernel what attaching to it would ask.
        ["memory", pid] => {
            let path = format!("/proc/{}/mem", process(pid).as_raw_nonzero());
            std::fs::File::open(path).map(drop)
        }
        ["make", folder] => std::fs::write(Path::new(folder).join("made"), "x"),
        ["threads"] => {
            let work = || std::thread::current().name().map(str::len);
            let thread = std::thread::Builder::new()
                .name("worker".into())
                .spawn(work)?;
            assert_eq!(thread.join().unwrap(), Some(6));
            Ok(())
        }
        ["link"] => link(given),
        ["database", folder] => database(Path::new(folder)),
        ["epoll"] => epoll(given),
        ["hold"] => {
            println!("holding");
            io::stdin().read_to_end(&mut Vec::new())?;
            std::process::exit(0)
        }
        _ => panic!("no such act: {act:?}"),
    }
}

fn process(id: &str) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(id.parse().unwrap()).unwrap()
}

fn setuid(folder: &Path) -> io::Result<()> {
    let path = folder.join("setuid");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o4755))
}

fn link(given: &mut Given) -> io::Result<()> {
    let (mut a, mut b) = (&given.link.0, &given.link.1);
    a.set_read_timeout(Some(Duration::from_secs(5)))?;
    a.try_clone()?.write_all(b"ping")?;
    let mut four = [0; 4];
    b.read_exact(&mut four)?;
    b.write_all(&four)?;
    a.read_exact(&mut four)?;
    assert_eq!(&four, b"ping");
    let control = protocol::control::ControlEnd::<u32, u32>::new(a.try_clone()?);
    let other = protocol::control::ControlEnd::<u32, u32>::new(b.try_clone()?);
    control
        .send_with(&7, b.try_clone()?.into())
        .map_err(io::Error::other)?;
    let (number, fd) = other.receive().map_err(io::Error::other)?;
    assert!(number == 7 && fd.is_some());
    a.shutdown(std::net::Shutdown::Both)
}

/// What SQLite does to its files.
fn database(folder: &Path) -> io::Result<()> {
    let (path, temporary) = (folder.join("ledger.db"), folder.join("ledger.tmp"));
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&temporary)?;
    file.lock()?;
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    file.write_all_at(b"row", 4096)?;
    file.sync_data()?;
    file.set_len(4099)?;
    let mut row = [0; 3];
    file.read_exact_at(&mut row, 4096)?;
    assert_eq!(&row, b"row");
    assert_eq!(std::fs::metadata(&temporary)?.len(), 4099);
    std::fs::rename(&temporary, &path)?;
    std::fs::File::open(folder)?.sync_all()?;
    std::fs::remove_file(&path)
}

fn epoll(given: &mut Given) -> io::Result<()> {
    use rustix::event::{Timespec, epoll};
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let wake = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    given.link.0.set_nonblocking(true)?;
    epoll::add(
        &set,
        &given.link.0,
        epoll::EventData::new_u64(1),
        epoll::EventFlags::IN,
    )?;
    epoll::add(
        &set,
        &wake,
        epoll::EventData::new_u64(2),
        epoll::EventFlags::IN,
    )?;
    given.link.1.write_all(b"x")?;
    let mut events = [epoll::Event {
        flags: epoll::EventFlags::empty(),
        data: epoll::EventData::new_u64(0),
    }; 2];
    let ready = epoll::wait(
        &set,
        &mut events[..],
        Some(&Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        }),
    )?;
    assert_eq!(ready, 1);
    Ok(())
}

/// Starts a confined child that shares the standard input, says its id, and waits to be killed.
fn as_parent(program: &str) {
    let exe = std::env::current_exe().unwrap();
    let mut child = Command::new(exe)
        .args(["inside", program, "hold"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut holding = [0; 8];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut holding)
        .unwrap();
    println!("{}", child.id());
    child.wait().unwrap();
}

fn wait_for_stop() {
    signals::block_stop_signals().unwrap();
    println!("blocked");
    let signal = std::thread::spawn(signals::wait_for_stop)
        .join()
        .unwrap()
        .unwrap();
    println!("{signal:?}");
}
