//! An engine that does not do what it is asked: it stands before a real one and changes what passes.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What becomes of a request.
#[derive(Clone, Copy)]
pub(crate) enum Twist {
    /// The container that is asked for is another.
    Container(fn(&mut Value)),
    /// The engine says this about itself.
    Info(&'static str),
}

/// Listens beside `folder`'s other files for as long as this process lives.
pub(crate) fn before(engine: &Path, folder: &Path, twist: Twist) -> PathBuf {
    let socket = folder.join("proxy.sock");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let engine = engine.to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let engine = engine.clone();
            // An engine that is gone, or a client: the other side sees that.
            std::thread::spawn(move || drop(pass(client, &engine, twist)));
        }
    });
    socket
}

fn pass(mut client: UnixStream, engine: &Path, twist: Twist) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Ok(());
        }
    }
    let mut head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    match twist {
        Twist::Info(info) if head.starts_with("GET /info ") => {
            let length = info.len();
            return client.write_all(
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{info}").as_bytes(),
            );
        }
        Twist::Container(change) if head.starts_with("POST /containers/create ") => {
            let mut container = serde_json::from_slice(&body)?;
            change(&mut container);
            let changed = container.to_string().into_bytes();
            head = head.replace(
                &format!("content-length: {}", body.len()),
                &format!("content-length: {}", changed.len()),
            );
            body = changed;
        }
        Twist::Container(_) | Twist::Info(_) => {}
    }
    let mut server = UnixStream::connect(engine)?;
    server.write_all(head.as_bytes())?;
    server.write_all(&body)?;
    let (mut back, mut there) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut there, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    io::copy(&mut reader, &mut server)?;
    server.shutdown(Shutdown::Write)
}
