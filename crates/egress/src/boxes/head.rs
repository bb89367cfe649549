//! The head of a request of a program in a box, and what frames its body: RFC 9112, read strictly.
//!
//! A library forgives what two readers may read differently, and that is how a request is smuggled past a rule.
//! Here it is refused. What goes on is written anew from what was read.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest head.
pub(crate) const MAX_HEAD: usize = 32 * 1024;
/// The most header lines.
const MAX_HEADERS: usize = 100;

/// Why a request is not understood, or not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    /// It ended in the middle, or the connection broke.
    #[error("the request was cut off")]
    CutOff,
    /// A limit.
    #[error("the head of the request is too long")]
    TooLong,
    /// Not what the standard says, or what it lets senders do that nobody needs.
    #[error("the request is malformed: {0}")]
    Form(&'static str),
}

/// A version that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.0
    Ten,
    /// HTTP/1.1
    Eleven,
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// A token.
    pub(crate) method: String,
    /// Visible ASCII.
    pub(crate) target: String,
    /// The version.
    pub(crate) version: Version,
    /// Names in lower case.
    headers: Vec<(String, Vec<u8>)>,
}

/// What frames the body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes, maybe none.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// Headers that are about one connection and end with it (RFC 9110, 7.6.1).
const HOP: [&str; 9] = [
    "connection",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a header ends with its connection.
pub(crate) fn is_of_one_hop(name: &str) -> bool {
    HOP.contains(&name)
}

impl Head {
    /// Parses all up to and with the empty line.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Bad> {
        let text = bytes
            .strip_suffix(b"\r\n\r\n")
            .ok_or(Bad::Form("its head has no end"))?;
        let mut lines = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
            lines.push(&rest[..at]);
            rest = &rest[at + 2..];
        }
        lines.push(rest);
        if lines
            .iter()
            .any(|line| line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)))
        {
            return Err(Bad::Form("a line ends otherwise than with CR LF"));
        }
        // There is always one.
        let (first, headers) = lines
            .split_first()
            .ok_or(Bad::Form("it has no first line"))?;
        if headers.len() > MAX_HEADERS {
            return Err(Bad::TooLong);
        }
        let (method, target, version) = request_line(first)?;
        let headers = headers.iter().map(|line| header(line));
        Ok(Self {
            method,
            target,
            version,
            headers: headers.collect::<Result<_, _>>()?,
        })
    }

    /// All values of a header, whose name is given in lower case.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.headers.iter().filter(move |(have, _)| have == name);
        named.map(|(_, value)| value.as_slice())
    }

    /// Its one value, if it is there; twice is once too much.
    pub(crate) fn one<'a>(&'a self, name: &'a str) -> Result<Option<&'a [u8]>, Bad> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Bad::Form("a header that there is one of is there twice")),
        }
    }

    /// All headers that go on.
    pub(crate) fn lasting(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let of_framing = ["host", "content-length", "expect"];
        let all = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()));
        all.filter(move |(name, _)| !is_of_one_hop(name) && !of_framing.contains(name))
    }

    /// What frames its body.
    pub(crate) fn framing(&self) -> Result<Framing, Bad> {
        let length = self.one("content-length")?;
        match (self.one("transfer-encoding")?, length) {
            (Some(_), Some(_)) => Err(Bad::Form(
                "it has both a Content-Length and a Transfer-Encoding",
            )),
            (Some(_), None) if self.version == Version::Ten => {
                Err(Bad::Form("HTTP/1.0 has no Transfer-Encoding"))
            }
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (Some(_), None) => Err(Bad::Form("its Transfer-Encoding is not `chunked`")),
            (None, Some(text)) => decimal(text).map(Framing::Length),
            (None, None) => Ok(Framing::Length(0)),
        }
    }

    /// Whether another request may follow. Nothing but that may be said about the connection.
    pub(crate) fn keeps_alive(&self) -> Result<bool, Bad> {
        if self.all("upgrade").next().is_some() || self.all("http2-settings").next().is_some() {
            return Err(Bad::Form("it asks for another protocol"));
        }
        let mut keeps = self.version == Version::Eleven;
        for value in self.all("connection").chain(self.all("proxy-connection")) {
            for word in value.split(|byte| *byte == b',') {
                match word.trim_ascii().to_ascii_lowercase().as_slice() {
                    b"close" => keeps = false,
                    b"keep-alive" | b"te" | b"" => {}
                    _ => {
                        return Err(Bad::Form(
                            "its Connection header says more than whether it stays open",
                        ));
                    }
                }
            }
        }
        Ok(keeps)
    }

    /// Whether the sender waits to be told to send the body.
    pub(crate) fn waits(&self) -> Result<bool, Bad> {
        match self.one("expect")? {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
            Some(_) => Err(Bad::Form("it expects something that there is not")),
        }
    }
}

fn request_line(line: &[u8]) -> Result<(String, String, Version), Bad> {
    let wrong = Bad::Form("its first line is not METHOD TARGET HTTP/1.1");
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(wrong);
    };
    let version = match version {
        b"HTTP/1.1" => Version::Eleven,
        b"HTTP/1.0" => Version::Ten,
        _ => return Err(wrong),
    };
    let visible = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
    if !is_token(method) || !visible(target) {
        return Err(wrong);
    }
    let owned = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    Ok((owned(method), owned(target), version))
}

fn header(line: &[u8]) -> Result<(String, Vec<u8>), Bad> {
    let at = line.iter().position(|byte| *byte == b':');
    let (name, value) = at
        .and_then(|at| line.split_at_checked(at))
        .ok_or(Bad::Form("a header has no colon"))?;
    // Also a continued line, and a blank before the colon.
    if !is_token(name) {
        return Err(Bad::Form("the name of a header is none"));
    }
    let value = value[1..].trim_ascii();
    let fits = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if !value.iter().all(fits) {
        return Err(Bad::Form("a header holds a control character"));
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    Ok((name, value.to_vec()))
}

/// RFC 9110, 5.6.2.
fn is_token(text: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(fits)
}

fn decimal(text: &[u8]) -> Result<u64, Bad> {
    let wrong = Bad::Form("its Content-Length is no number");
    let digits = (1..=18).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or(wrong)
}

/// A connection that is read, and what was read too early.
pub(crate) struct Reading<R> {
    from: R,
    have: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reading<R> {
    pub(crate) fn new(from: R) -> Self {
        Self {
            from,
            have: Vec::new(),
        }
    }

    /// The connection, if nothing was read too early.
    pub(crate) fn into_inner(self) -> Result<R, Bad> {
        match self.have.as_slice() {
            [] => Ok(self.from),
            _ => Err(Bad::Form("something was sent before the answer")),
        }
    }

    /// The next head; none if the connection ended before it.
    pub(crate) async fn head(&mut self) -> Result<Option<Head>, Bad> {
        match self.until(b"\r\n\r\n", MAX_HEAD).await? {
            Some(bytes) => Head::parse(&bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Reads a little of what nobody wants, so that who sends it gets to see the answer.
    pub(crate) async fn drain(&mut self) {
        const MOST: usize = 256 * 1024;
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
        let reading = async {
            let mut left = MOST;
            while let Ok(read @ 1..) = self.fill().await {
                self.have.clear();
                left = left.saturating_sub(read);
                if left == 0 {
                    return;
                }
            }
        };
        // It is closed in any case.
        let _ = tokio::time::timeout(PATIENCE, reading).await;
    }

    /// All up to and with these bytes; none if the connection ended before the first of them.
    async fn until(&mut self, end: &[u8], most: usize) -> Result<Option<Vec<u8>>, Bad> {
        let mut looked = 0;
        loop {
            let from = looked.min(self.have.len());
            if let Some(at) = self.have[from..]
                .windows(end.len())
                .position(|window| window == end)
            {
                check_lines(&self.have[..from + at])?;
                let rest = self.have.split_off(from + at + end.len());
                return Ok(Some(std::mem::replace(&mut self.have, rest)));
            }
            // Who ends lines otherwise would wait for an answer for ever.
            check_lines(&self.have)?;
            looked = self.have.len().saturating_sub(end.len() - 1);
            if self.have.len() > most {
                return Err(Bad::TooLong);
            }
            match self.fill().await? {
                0 if self.have.is_empty() => return Ok(None),
                0 => return Err(Bad::CutOff),
                _ => {}
            }
        }
    }

    /// Reads more.
    async fn fill(&mut self) -> Result<usize, Bad> {
        self.have.reserve(16 * 1024);
        let read = self.from.read_buf(&mut self.have).await;
        read.map_err(|_| Bad::CutOff)
    }

    /// At least one byte and at most so many.
    async fn some(&mut self, most: u64) -> Result<Vec<u8>, Bad> {
        if self.have.is_empty() && self.fill().await? == 0 {
            return Err(Bad::CutOff);
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let rest = self.have.split_off(most.min(self.have.len()));
        Ok(std::mem::replace(&mut self.have, rest))
    }
}

/// No line ends with a bare LF.
fn check_lines(bytes: &[u8]) -> Result<(), Bad> {
    let mut before = 0;
    for byte in bytes {
        if *byte == b'\n' && before != b'\r' {
            return Err(Bad::Form("a line ends otherwise than with CR LF"));
        }
        before = *byte;
    }
    Ok(())
}

/// The body of a request that is being read.
pub(crate) struct Body {
    /// Of the body, or of the chunk.
    left: u64,
    /// The chunk before this point was not the last.
    more: bool,
    /// Whether a chunk came, whose end has to be read.
    within: bool,
}

impl Body {
    /// Of a request that is framed so.
    pub(crate) fn new(framing: Framing) -> Self {
        let (left, more) = match framing {
            Framing::Length(length) => (length, false),
            Framing::Chunked => (0, true),
        };
        Self {
            left,
            more,
            within: false,
        }
    }

    /// The next piece; none at its end.
    pub(crate) async fn next<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut Reading<R>,
    ) -> Result<Option<Vec<u8>>, Bad> {
        if self.left == 0 && self.more {
            self.next_chunk(from).await?;
        }
        if self.left == 0 {
            return Ok(None);
        }
        let piece = from.some(self.left).await?;
        self.left -= piece.len() as u64;
        Ok(Some(piece))
    }

    async fn next_chunk<R: AsyncRead + Unpin>(&mut self, from: &mut Reading<R>) -> Result<(), Bad> {
        /// The size, and the end of a line.
        const MAX_LINE: usize = 32;
        if self.within && line(from, MAX_LINE).await? != b"" {
            return Err(Bad::Form("a chunk is longer than it says"));
        }
        self.left = hexadecimal(&line(from, MAX_LINE).await?)?;
        self.within = true;
        if self.left == 0 {
            self.more = false;
            if line(from, MAX_LINE).await? != b"" {
                return Err(Bad::Form("it has trailers"));
            }
        }
        Ok(())
    }
}

async fn line<R: AsyncRead + Unpin>(from: &mut Reading<R>, most: usize) -> Result<Vec<u8>, Bad> {
    let mut line = from.until(b"\r\n", most).await?.ok_or(Bad::CutOff)?;
    line.truncate(line.len() - 2);
    match line.len() > most {
        true => Err(Bad::Form("a chunk's first line is too long")),
        false => Ok(line),
    }
}

/// Without extensions, of which no client here has any.
fn hexadecimal(text: &[u8]) -> Result<u64, Bad> {
    let digits = (1..=15).contains(&text.len()) && text.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits);
    text.and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(Bad::Form("a chunk's size is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Head, Bad> {
        Head::parse(text.as_bytes())
    }

    fn with(headers: &str) -> Head {
        parse(&format!("POST /a HTTP/1.1\r\n{headers}\r\n")).unwrap()
    }

    #[test]
    fn a_head_is_read_as_it_stands() {
        let head =
            parse("GET /a?b HTTP/1.1\r\nHost: example.com\r\nX-A:  b \r\nx-a:c\r\n\r\n").unwrap();
        assert_eq!(
            (head.method.as_str(), head.target.as_str()),
            ("GET", "/a?b")
        );
        assert_eq!(head.one("host").unwrap(), Some(&b"example.com"[..]));
        assert_eq!(head.all("x-a").collect::<Vec<_>>(), [b"b", b"c"]);
        assert!(head.one("x-a").is_err());
        let lasting: Vec<_> = head.lasting().collect();
        assert_eq!(lasting, [("x-a", &b"b"[..]), ("x-a", b"c")]);
    }

    #[test]
    fn every_other_form_of_a_head_is_refused() {
        for text in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\x7fb\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / a HTTP/1.1\r\n\r\n",
            "GET /\t HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET /é HTTP/1.1\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/0.9\r\n\r\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        let many = "x: y\r\n".repeat(MAX_HEADERS + 1);
        assert_eq!(
            parse(&format!("GET / HTTP/1.1\r\n{many}\r\n")),
            Err(Bad::TooLong)
        );
    }

    #[test]
    fn a_body_is_framed_in_one_way_or_not_at_all() {
        assert_eq!(with("").framing(), Ok(Framing::Length(0)));
        assert_eq!(
            with("Content-Length: 12\r\n").framing(),
            Ok(Framing::Length(12))
        );
        let chunked = "Transfer-Encoding: Chunked\r\n";
        assert_eq!(with(chunked).framing(), Ok(Framing::Chunked));
        for smuggled in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: 1 2\r\n",
            "Content-Length:\r\n",
            "Content-Length: 9999999999999999999\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
        ] {
            assert!(with(smuggled).framing().is_err(), "{smuggled:?}");
        }
        let old = parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert!(old.framing().is_err());
    }

    #[test]
    fn no_other_protocol_can_be_asked_for() {
        assert_eq!(with("").keeps_alive(), Ok(true));
        assert_eq!(with("Connection: close\r\n").keeps_alive(), Ok(false));
        assert_eq!(
            with("Connection: Keep-Alive, TE\r\n").keeps_alive(),
            Ok(true)
        );
        for other in [
            "Upgrade: websocket\r\n",
            "Connection: Upgrade\r\n",
            "HTTP2-Settings: x\r\n",
            "Connection: close, content-length\r\n",
            "Connection: host\r\n",
        ] {
            assert!(with(other).keeps_alive().is_err(), "{other:?}");
        }
    }

    async fn read(framing: Framing, bytes: &str) -> Result<(String, String), Bad> {
        let mut from = Reading::new(bytes.as_bytes());
        let mut body = Body::new(framing);
        let mut text = String::new();
        while let Some(piece) = body.next(&mut from).await? {
            text.push_str(&String::from_utf8(piece).unwrap());
        }
        let mut rest = String::from_utf8(from.have.clone()).unwrap();
        if rest.is_empty() && from.fill().await? > 0 {
            rest = String::from_utf8(from.have.clone()).unwrap();
        }
        Ok((text, rest))
    }

    #[tokio::test]
    async fn a_body_ends_where_it_says_and_the_next_request_begins_there() {
        let got = |text: &str, rest: &str| Ok((text.to_owned(), rest.to_owned()));
        assert_eq!(read(Framing::Length(3), "abcGET").await, got("abc", "GET"));
        assert_eq!(read(Framing::Length(0), "GET").await, got("", "GET"));
        let chunks = "3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\nGET";
        assert_eq!(
            read(Framing::Chunked, chunks).await,
            got("abc0123456789", "GET")
        );
        assert_eq!(read(Framing::Length(4), "abc").await, Err(Bad::CutOff));
        for wrong in [
            "3\nabc\n0\n\n",
            "3;a=b\r\nabc\r\n0\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            " 3\r\nabc\r\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "-1\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "ffffffffffffffffff\r\n",
            "3\r\nabc\r\n0\r\nX: y\r\n\r\n",
            "3\r\nabc\r\n",
            "",
        ] {
            assert!(read(Framing::Chunked, wrong).await.is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn pipelined_requests_are_read_one_by_one() {
        let two = "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        let mut from = Reading::new(two.as_bytes());
        assert_eq!(from.head().await.unwrap().unwrap().target, "/a");
        assert_eq!(from.head().await.unwrap().unwrap().target, "/b");
        assert_eq!(from.head().await, Ok(None));
        let mut from = Reading::new(&b"GET /a HTTP/1.1\nHost: a\n\n"[..]);
        assert!(matches!(from.head().await, Err(Bad::Form(_))));
        let endless = "GET /a HTTP/1.1\r\nX: ".to_owned() + &"y".repeat(2 * MAX_HEAD);
        let mut from = Reading::new(endless.as_bytes());
        assert_eq!(from.head().await, Err(Bad::TooLong));
        let mut from = Reading::new(&b"GET /a HT"[..]);
        assert_eq!(from.head().await, Err(Bad::CutOff));
    }
}
