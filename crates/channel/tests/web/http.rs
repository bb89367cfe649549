//! Just enough HTTP to send what no library would.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    port: u16,
    method: Method,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(port: u16, method: Method, target: &str) -> Self {
        let headers = vec![("Host".to_owned(), format!("127.0.0.1:{port}"))];
        Self {
            port,
            method,
            target: target.to_owned(),
            headers,
            body: Vec::new(),
        }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn with(self, name: &str, value: &str) -> Self {
        self.without(name).header(name, value)
    }

    pub(crate) fn body(mut self, body: Vec<u8>) -> Self {
        self.body = body;
        self
    }

    pub(crate) fn is_post(&self) -> bool {
        self.method == Method::Post
    }

    /// The same request for this target, which need not be a path.
    pub(crate) fn target(mut self, target: &str) -> Self {
        self.target = target.to_owned();
        self
    }

    pub(crate) fn send(self) -> Reply {
        let mut stream = self.write();
        let reply = read_head(&mut stream);
        let length = reply
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        Reply { body, ..reply }
    }

    /// Sends it and reads an event stream.
    pub(crate) fn open(self) -> Events {
        let mut stream = self.write();
        let reply = read_head(&mut stream);
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("content-type"), Some("text/event-stream"));
        Events {
            stream,
            text: String::new(),
        }
    }

    fn write(&self) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(25)))
            .unwrap();
        let method = match self.method {
            Method::Get => "GET",
            Method::Post => "POST",
        };
        let mut head = format!("{method} {} HTTP/1.1\r\n", self.target);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if self.is_post()
            && !self
                .headers
                .iter()
                .any(|(name, _)| name == "Content-Length")
        {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head += "\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        // The server may refuse by the head alone, and close.
        let _ = stream.write_all(&self.body);
        BufReader::new(stream)
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The sentence for the person.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

fn read_head(stream: &mut BufReader<TcpStream>) -> Reply {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status = lines
        .first()
        .and_then(|line| line.split(' ').nth(1))
        .expect("a status line")
        .parse()
        .unwrap();
    let headers = lines[1..].iter().map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    });
    Reply {
        status,
        headers: headers.collect(),
        body: Vec::new(),
    }
}

/// An event stream that is being read.
pub(crate) struct Events {
    stream: BufReader<TcpStream>,
    text: String,
}

impl Events {
    /// The next event.
    pub(crate) fn event(&mut self) -> serde_json::Value {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let event = block
                    .strip_prefix("data: ")
                    .map(|json| serde_json::from_str(json).unwrap());
                self.text = rest.to_owned();
                match event {
                    Some(event) => return event,
                    None => continue,
                }
            }
            let chunk = self.chunk().expect("the stream ended");
            self.text += &chunk;
        }
    }

    /// Whether the stream ends without a further event. That the link is up it may hear twice, if it begins
    /// while the link comes up; lines that only keep it alive are no events.
    pub(crate) fn has_ended(&mut self) -> bool {
        const UP: &str = "data: {\"type\":\"link\",\"state\":\"up\"}\n\n";
        while let Some(chunk) = self.chunk() {
            self.text += &chunk;
        }
        self.text.replace(UP, "").replace(":\n\n", "").is_empty()
    }

    /// A piece of the chunked body (RFC 9112, section 7.1).
    fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        self.stream.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16)
            .ok()
            .filter(|size| *size > 0)?;
        let mut bytes = vec![0; size + 2];
        self.stream.read_exact(&mut bytes).unwrap();
        Some(String::from_utf8(bytes[..size].to_vec()).unwrap())
    }
}
