//! What attacks from inside of a box, where no program at hand would: bytes that a proxy must not take.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Where this program is in the box.
pub(crate) const TOOL: &str = "/run/bulkhead/tool";

const PROXY: &str = "127.0.0.1:3128";

pub(crate) fn main(act: &[&str]) {
    match *act {
        // Sends the bytes, in which \r and \n are written so, and prints what comes back.
        ["say", text] => {
            let text = text.replace("\\r", "\r").replace("\\n", "\n");
            print!("{}", say(text.as_bytes()));
        }
        // Opens so many tunnels, says hello in each, and counts those that stay open.
        ["many", count, place, hello] => println!("{}", many(count.parse().unwrap(), place, hello)),
        ["environment"] => {
            for entry in std::fs::read_dir("/proc").unwrap() {
                let path = entry.unwrap().path();
                print!("{}", path.display());
                if let Ok(text) = std::fs::read_to_string(path.join("cmdline")) {
                    print!(" {text:?}");
                }
                println!();
            }
        }
        _ => panic!("no such act: {act:?}"),
    }
}

fn say(bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(PROXY).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    // What is refused early need not be read to its end.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn many(count: usize, place: &str, hello: &str) -> usize {
    let hello: Vec<u8> = (0..hello.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hello[at..at + 2], 16).unwrap())
        .collect();
    let mut open = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(PROXY).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(15)))
            .unwrap();
        write!(stream, "CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n").unwrap();
        open.push(stream);
    }
    let mut served = 0;
    for stream in &mut open {
        let mut answer = [0; 39];
        let opened = stream.read_exact(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200");
        // The server's answer to the hello, whatever it says.
        let answered = opened
            && stream.write_all(&hello).is_ok()
            && stream.read(&mut [0; 5]).is_ok_and(|read| read > 0);
        served += usize::from(answered);
    }
    served
}
