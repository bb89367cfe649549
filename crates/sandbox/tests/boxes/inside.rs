//! What runs in the box: `inside ACT ARGUMENT...` prints `allowed` or `refused`, or what it counted. As
//! the tool program, without arguments, it says what it was given.

use std::io::{self, Read as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::{Command, Stdio};

use bulkhead_sandbox::probe::{self, Outcome};
use rustix::fs::{CWD, FileType, Mode};

/// Where the tool program is in the box.
pub(crate) const TOOL: &str = "/run/bulkhead/tool";

pub(crate) fn main(act: &[&str]) {
    match *act {
        ["children", most] => println!("{}", children(most.parse().unwrap())),
        ["together", processes, mebibytes] => {
            println!("{}", together(processes.parse().unwrap(), mebibytes))
        }
        ["hold", mebibytes] => {
            let held = allocate(mebibytes.parse().unwrap());
            std::thread::sleep(std::time::Duration::from_secs(1));
            assert_eq!(held.len().to_string(), mebibytes);
        }
        ["ask", address] => {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            io::Write::write_all(&mut stream, b"who is there?").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            println!("{answer}");
        }
        ["allocate", mebibytes] => println!("{}", allocate(mebibytes.parse().unwrap()).len()),
        _ => match attempt(act) {
            Ok(()) => println!("allowed"),
            Err(error) => {
                eprintln!("{error}");
                println!("refused");
            }
        },
    }
}

/// The tool program: its call, and what it can do beside.
pub(crate) fn tool() {
    let mut call = String::new();
    io::stdin().read_to_string(&mut call).unwrap();
    let other = attempt(&["start", "/bin/true"]).is_err();
    let thread = std::thread::spawn(|| 7).join().unwrap();
    std::fs::write("tool-was-here", &call).unwrap();
    println!("{call}");
    println!("other programs refused: {other}; thread: {thread}");
}

fn attempt(act: &[&str]) -> io::Result<()> {
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
        ["start", path] => Command::new(path).stdout(Stdio::null()).status().map(drop),
        ["tcp", address] => std::net::TcpStream::connect(address).map(drop),
        ["listen", address] => std::net::TcpListener::bind(address).map(drop),
        ["udp", address] => std::net::UdpSocket::bind("0.0.0.0:0")?
            .send_to(b"x", address)
            .map(drop),
        ["abstract", name] => {
            UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?).map(drop)
        }
        ["unix", path] => UnixStream::connect(path).map(drop),
        ["chmod"] => {
            std::fs::write("plain", "x")?;
            std::fs::set_permissions("plain", std::fs::Permissions::from_mode(0o4755))
        }
        ["fchmod"] => {
            std::fs::File::create("plain")?.set_permissions(std::fs::Permissions::from_mode(0o2755))
        }
        ["open"] => std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o4755)
            .open("open-setuid")
            .map(drop),
        ["mkdir"] => std::fs::DirBuilder::new()
            .mode(0o2777)
            .create("mkdir-setgid"),
        ["mknod"] => Ok(rustix::fs::mknodat(
            CWD,
            "node-setuid",
            FileType::RegularFile,
            Mode::from_raw_mode(0o4755),
            0,
        )?),
        ["device"] => Ok(rustix::fs::mknodat(
            CWD,
            "null",
            FileType::CharacterDevice,
            Mode::RUSR,
            rustix::fs::makedev(1, 3),
        )?),
        ["signal", pid] => {
            let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
            Ok(rustix::process::test_kill_process(pid)?)
        }
        _ => panic!("no such act: {act:?}"),
    }
}

/// How many children can be had at once.
fn children(most: usize) -> usize {
    let mut children = Vec::new();
    for _ in 0..most {
        match Command::new("/bin/sleep").arg("20").spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                eprintln!("{error}");
                break;
            }
        }
    }
    let count = children.len();
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    count
}

/// How many of so many processes could hold so many mebibytes each for a second.
fn together(processes: usize, mebibytes: &str) -> usize {
    let exe = std::env::current_exe().unwrap();
    let start = |_| {
        Command::new(&exe)
            .args(["inside", "hold", mebibytes])
            .spawn()
            .unwrap()
    };
    let mut all: Vec<_> = (0..processes).map(start).collect();
    all.iter_mut()
        .filter_map(|child| child.wait().ok())
        .filter(std::process::ExitStatus::success)
        .count()
}

/// As many of so many mebibytes as can be had, written to.
fn allocate(mebibytes: usize) -> Vec<Vec<u8>> {
    const MEBIBYTE: usize = 1024 * 1024;
    let mut all: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mebibytes {
        let mut one = Vec::new();
        if one.try_reserve_exact(MEBIBYTE).is_err() {
            break;
        }
        one.resize(MEBIBYTE, 1);
        all.push(std::hint::black_box(one));
    }
    all
}
