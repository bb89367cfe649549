//! A small HTTP/1.1 client for tests: it sends exactly the headers it is given, also those
//! that no browser would send.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a server may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request to a port of loopback.
pub struct Request {
    port: u16,
    head: String,
    host: bool,
    body: String,
}

/// What came back.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers as they were written.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// A `GET` of this path.
pub fn get(port: u16, path: &str) -> Request {
    Request {
        port,
        head: format!("GET {path} HTTP/1.1\r\n"),
        host: false,
        body: String::new(),
    }
}

/// A `POST` of this JSON.
pub fn post(port: u16, path: &str, body: &Value) -> Request {
    let request = Request {
        port,
        head: format!("POST {path} HTTP/1.1\r\n"),
        host: false,
        body: body.to_string(),
    };
    request.header("Content-Type", "application/json")
}

impl Request {
    /// Adds a header. Without one of its own the `Host` is `127.0.0.1:PORT`.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.host |= name.eq_ignore_ascii_case("host");
        self.head += &format!("{name}: {value}\r\n");
        self
    }

    /// Sends it and reads the whole response.
    pub fn send(self) -> Response {
        let (mut response, mut reader) = self.open();
        let chunked = response
            .header("transfer-encoding")
            .is_some_and(|value| value == "chunked");
        let length = response
            .header("content-length")
            .and_then(|value| value.parse().ok());
        let mut body = Vec::new();
        if chunked {
            while let Some(chunk) = next_chunk(&mut reader) {
                body.extend(chunk);
            }
        } else if let Some(length) = length {
            body.resize(length, 0);
            reader.read_exact(&mut body).expect("the announced body");
        } else {
            reader.read_to_end(&mut body).expect("a body");
        }
        response.body = String::from_utf8_lossy(&body).into_owned();
        response
    }

    /// Sends it and leaves the body open, for an event stream.
    pub fn stream(self) -> (Response, Events) {
        let (response, reader) = self.open();
        (
            response,
            Events {
                reader,
                text: String::new(),
            },
        )
    }

    fn open(self) -> (Response, BufReader<TcpStream>) {
        let stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("somebody listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        let host = if self.host {
            String::new()
        } else {
            format!("Host: 127.0.0.1:{}\r\n", self.port)
        };
        let length = format!(
            "Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.body.len()
        );
        (&stream)
            .write_all(
                [&self.head, &host, &length, &self.body]
                    .map(String::as_str)
                    .concat()
                    .as_bytes(),
            )
            .expect("the request is taken");
        let mut reader = BufReader::new(stream);
        let first = line(&mut reader);
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let mut response = Response {
            status: status.unwrap_or_else(|| panic!("not a response: {first:?}")),
            headers: Vec::new(),
            body: String::new(),
        };
        loop {
            let header = line(&mut reader);
            let Some((name, value)) = header.split_once(':') else {
                break;
            };
            response
                .headers
                .push((name.to_owned(), value.trim().to_owned()));
        }
        (response, reader)
    }
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// A stream of server-sent events.
pub struct Events {
    reader: BufReader<TcpStream>,
    text: String,
}

impl Iterator for Events {
    type Item = Value;

    /// The data of the next event, which has to be JSON; none at the end of the stream, also
    /// if it was cut off. Lines that only keep the connection alive are no events.
    fn next(&mut self) -> Option<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < end, "no event within {PATIENCE:?}");
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data: Vec<&str> = event
                    .lines()
                    .filter_map(|line| line.strip_prefix("data:"))
                    .collect();
                let data = data.join("\n");
                self.text = rest.to_owned();
                if !data.is_empty() {
                    return Some(serde_json::from_str(data.trim()).expect("an event is JSON"));
                }
                continue;
            }
            let chunk = next_chunk(&mut self.reader)?;
            self.text += &String::from_utf8_lossy(&chunk);
        }
    }
}

fn line(reader: &mut BufReader<TcpStream>) -> String {
    let mut text = String::new();
    reader.read_line(&mut text).expect("a line");
    text.trim_end().to_owned()
}

/// The next piece of a chunked body; none at its end, or where the server broke it off.
fn next_chunk(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut size = String::new();
    unless_broken(reader.read_line(&mut size))?;
    let length = usize::from_str_radix(size.trim_end(), 16)
        .ok()
        .filter(|length| *length > 0)?;
    // The line end behind the piece belongs to it.
    let mut chunk = vec![0; length + 2];
    unless_broken(reader.read_exact(&mut chunk))?;
    chunk.truncate(length);
    Some(chunk)
}

fn unless_broken<T>(read: io::Result<T>) -> Option<T> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            panic!("nothing came within {PATIENCE:?}")
        }
        read => read.ok(),
    }
}
