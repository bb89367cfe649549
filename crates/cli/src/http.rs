//! Asking a model server on this machine one thing: HTTP/1.1 (RFC 9112), one request a
//! connection. Nothing here reaches another machine; that is egress' business.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use config::BaseUrl;

/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// The longest body of an answer, in bytes. Ollama's `/api/show` can be some megabytes.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The body, without its transfer coding.
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The host is another machine, or has no loopback address.
    #[error("{0} is not this machine")]
    NotLoopback(String),
    /// Nobody listens, the time was up, or the connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came is not HTTP, or longer than the limits.
    #[error("the answer is not HTTP/1.1: {0}")]
    Malformed(&'static str),
}

/// `GET path` below this address. `limit` bounds connecting, sending and each wait together.
pub(crate) fn get(base: &BaseUrl, path: &str, limit: Duration) -> Result<Answer, HttpError> {
    exchange(base, "GET", path, None, limit)
}

/// `POST path` with a JSON body.
pub(crate) fn post(
    base: &BaseUrl,
    path: &str,
    body: &serde_json::Value,
    limit: Duration,
) -> Result<Answer, HttpError> {
    exchange(base, "POST", path, Some(body.to_string()), limit)
}

fn exchange(
    base: &BaseUrl,
    method: &str,
    path: &str,
    body: Option<String>,
    limit: Duration,
) -> Result<Answer, HttpError> {
    let deadline = Instant::now() + limit;
    let mut stream = connect(base, deadline)?;
    let host = match base.host.contains(':') {
        true => format!("[{}]:{}", base.host, base.port),
        false => format!("{}:{}", base.host, base.port),
    };
    let mut request = format!(
        "{method} {}{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAccept: application/json\r\n",
        base.path
    );
    if let Some(body) = &body {
        request.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        ));
    }
    request.push_str("\r\n");
    request.push_str(body.as_deref().unwrap_or_default());
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    read_answer(&mut Deadlined { stream, deadline })
}

/// Connects to a loopback address of the host; another one is not even tried.
fn connect(base: &BaseUrl, deadline: Instant) -> Result<TcpStream, HttpError> {
    let addresses = (base.host.as_str(), base.port).to_socket_addrs()?;
    let mut last = HttpError::NotLoopback(base.host.clone());
    for address in addresses.filter(|address: &SocketAddr| address.ip().is_loopback()) {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// A stream whose reads together end at a moment.
struct Deadlined {
    stream: TcpStream,
    deadline: Instant,
}

impl Read for Deadlined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        self.stream.read(buffer)
    }
}

/// How the end of the body is known.
enum Length {
    Bytes(usize),
    Chunked,
    UntilClose,
}

fn read_answer(from: &mut impl Read) -> Result<Answer, HttpError> {
    let mut input = Input {
        from,
        buffer: Vec::new(),
    };
    let (status, length) = read_head(&mut input)?;
    let body = match length {
        Length::Bytes(count) if count > MAX_BODY => {
            return Err(HttpError::Malformed("its body is too long"));
        }
        Length::Bytes(count) => input.exactly(count)?,
        Length::Chunked => read_chunks(&mut input)?,
        Length::UntilClose => input.rest()?,
    };
    Ok(Answer { status, body })
}

fn read_head(input: &mut Input<'_, impl Read>) -> Result<(u16, Length), HttpError> {
    let status_line = input.line()?;
    let mut words = status_line.split(' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|word| word.parse().ok());
    let (true, Some(status)) = (version.starts_with("HTTP/1."), status) else {
        return Err(HttpError::Malformed("no status line"));
    };
    let mut length = Length::UntilClose;
    let mut seen = status_line.len();
    loop {
        let line = input.line()?;
        seen += line.len();
        if seen > MAX_HEAD {
            return Err(HttpError::Malformed("its head is too long"));
        }
        if line.is_empty() {
            return Ok((status, length));
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(HttpError::Malformed("a header without a colon"));
        };
        if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.trim().eq_ignore_ascii_case("chunked") {
                return Err(HttpError::Malformed("an unknown transfer coding"));
            }
            length = Length::Chunked;
        } else if name.eq_ignore_ascii_case("content-length") && !matches!(length, Length::Chunked)
        {
            let bytes = value.trim().parse();
            length = Length::Bytes(bytes.map_err(|_| HttpError::Malformed("a strange length"))?);
        }
    }
}

fn read_chunks(input: &mut Input<'_, impl Read>) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    loop {
        let line = input.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let count = usize::from_str_radix(digits, 16)
            .map_err(|_| HttpError::Malformed("a chunk without a length"))?;
        if count > MAX_BODY - body.len() {
            return Err(HttpError::Malformed("its body is too long"));
        }
        if count == 0 {
            return Ok(body);
        }
        body.extend(input.exactly(count)?);
        if !input.line()?.is_empty() {
            return Err(HttpError::Malformed("a chunk longer than announced"));
        }
    }
}

/// Bytes as they come, with what was read too far.
struct Input<'a, R> {
    from: &'a mut R,
    buffer: Vec<u8>,
}

impl<R: Read> Input<'_, R> {
    /// Reads some more; false at the end.
    fn more(&mut self) -> Result<bool, HttpError> {
        let mut bytes = [0; 8192];
        loop {
            match self.from.read(&mut bytes) {
                Ok(got) => {
                    self.buffer.extend(&bytes[..got]);
                    return Ok(got > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn line(&mut self) -> Result<String, HttpError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let text = String::from_utf8_lossy(&line);
                return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(HttpError::Malformed("a line that does not end"));
            }
            if !self.more()? {
                return Err(HttpError::Malformed("it ends too early"));
            }
        }
    }

    fn exactly(&mut self, count: usize) -> Result<Vec<u8>, HttpError> {
        while self.buffer.len() < count {
            if !self.more()? {
                return Err(HttpError::Malformed("it ends too early"));
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    fn rest(&mut self) -> Result<Vec<u8>, HttpError> {
        while self.more()? {
            if self.buffer.len() > MAX_BODY {
                return Err(HttpError::Malformed("its body is too long"));
            }
        }
        Ok(std::mem::take(&mut self.buffer))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn read(bytes: &str) -> Result<Answer, HttpError> {
        read_answer(&mut bytes.as_bytes())
    }

    fn body_of(bytes: &str) -> String {
        String::from_utf8(read(bytes).unwrap().body).unwrap()
    }

    #[test]
    fn all_three_kinds_of_length_are_read() {
        assert_eq!(
            body_of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
            "hi"
        );
        assert_eq!(body_of("HTTP/1.0 404 No\r\n\r\nall of it"), "all of it");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(body_of(chunked), "abc0123456789");
    }

    #[test]
    fn what_is_not_http_or_too_long_is_an_error() {
        for bad in [
            "",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        ] {
            assert!(matches!(read(bad), Err(HttpError::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_server_on_loopback_is_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let got = stream.read(&mut request).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .unwrap();
            String::from_utf8_lossy(&request[..got]).into_owned()
        });
        let base = BaseUrl::parse(&format!("http://127.0.0.1:{port}/base")).unwrap();
        let answer = get(&base, "/v1/models", Duration::from_secs(5)).unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{}"[..]));
        let request = server.join().unwrap();
        assert!(
            request.starts_with(&format!(
                "GET /base/v1/models HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            )),
            "{request}"
        );
    }

    #[test]
    fn a_server_that_says_nothing_costs_the_limit_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let base = BaseUrl::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let before = Instant::now();
        assert!(get(&base, "/", Duration::from_millis(50)).is_err());
        assert!(before.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn another_machine_is_not_asked() {
        let base = BaseUrl::parse("http://192.0.2.1:80").unwrap();
        assert!(matches!(
            get(&base, "/", Duration::from_secs(1)),
            Err(HttpError::NotLoopback(_))
        ));
    }
}
