//! What a TLS client asks for: the server's name in its first message, read before a byte of it goes on.
//!
//! RFC 8446, 4.1.2 and 5.1; RFC 6066, 3. A small reader of its own, since what goes on has to be what was
//! read: every form that two readers could understand differently is refused.

use std::time::Duration;

use protocol::outbound::HostName;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// The most bytes of the first message, with the headers of its records.
const MAX_HELLO: usize = 16 * 1024;
/// The most records that it may be cut into.
const MAX_RECORDS: usize = 4;
/// How long a client may take to send it.
const PATIENCE: Duration = Duration::from_secs(10);

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
/// Encrypted Client Hello, and what came before it: the name that counts cannot be seen.
const ENCRYPTED: [u16; 2] = [0xfe0d, 0xffce];

/// Why a connection does not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTls {
    /// Something else comes first.
    #[error("what was sent is no TLS: {0}")]
    Other(&'static str),
    /// More than is read.
    #[error("the first TLS message is cut into too many pieces or is too long")]
    TooLong,
    /// The name cannot be seen.
    #[error("the name of the server is encrypted (ECH), so it cannot be held against the rule")]
    Encrypted,
    /// There is none.
    #[error("the first TLS message names no server (SNI)")]
    Nameless,
    /// There is one where none belongs.
    #[error("TLS names a server where an address was asked for")]
    Named,
    /// Another one.
    #[error("TLS names another server than the one that was asked for")]
    OtherName,
    /// It ended or was silent.
    #[error("no TLS came within {} s", PATIENCE.as_secs())]
    Silent,
}

/// The first message of a TLS client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The one name, in lower case; none if it names nobody.
    server_name: Option<String>,
    /// Whether there is another one that is encrypted.
    encrypted: bool,
}

impl Hello {
    /// Whether it asks for this host, which is a name in lower case or an address. RFC 6066: addresses are
    /// not named.
    pub(crate) fn asks_for(&self, host: &str) -> Result<(), NotTls> {
        if self.encrypted {
            return Err(NotTls::Encrypted);
        }
        let is_name = HostName::parse(host).is_some();
        match &self.server_name {
            Some(_) if !is_name => Err(NotTls::Named),
            Some(name) if name == host => Ok(()),
            Some(_) => Err(NotTls::OtherName),
            None if is_name => Err(NotTls::Nameless),
            None => Ok(()),
        }
    }
}

/// Reads the first message and whatever comes with it; those bytes have to be sent on, or read again.
pub(crate) async fn receive(mut from: impl AsyncRead + Unpin) -> Result<(Vec<u8>, Hello), NotTls> {
    let reading = async {
        let mut bytes = Vec::with_capacity(2048);
        loop {
            // The capacity is what read_buf fills, so that no more than the limit is ever held.
            if bytes.len() == bytes.capacity() {
                bytes.reserve(2048);
            }
            match from.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return Err(NotTls::Silent),
                Ok(_) => {}
            }
            if let Some(hello) = parse(&bytes)? {
                return Ok((bytes, hello));
            }
            if bytes.len() >= MAX_HELLO {
                return Err(NotTls::TooLong);
            }
        }
    };
    timeout(PATIENCE, reading)
        .await
        .unwrap_or(Err(NotTls::Silent))
}

/// Reads the message from its beginning; none if a part of it is missing.
pub(crate) fn parse(mut bytes: &[u8]) -> Result<Option<Hello>, NotTls> {
    let mut message = Vec::new();
    for _ in 0..MAX_RECORDS {
        let Some(record) = next_record(&mut bytes)? else {
            return Ok(None);
        };
        message.extend_from_slice(record);
        if message.len() > MAX_HELLO {
            return Err(NotTls::TooLong);
        }
        if let Some(whole) = whole(&message)? {
            return body(whole).map(Some);
        }
    }
    Err(NotTls::TooLong)
}

/// The content of the next record of a handshake; none if a part of it is missing.
fn next_record<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, NotTls> {
    const MOST: usize = 1 << 14;
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE) {
        return Err(NotTls::Other("it begins with no handshake"));
    }
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Err(NotTls::Other("its version is none of TLS"));
    }
    let Some((header, rest)) = bytes.split_first_chunk::<5>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length == 0 || length > MOST {
        return Err(NotTls::Other("a record has no possible length"));
    }
    let Some((record, rest)) = rest.split_at_checked(length) else {
        return Ok(None);
    };
    *bytes = rest;
    Ok(Some(record))
}

/// The content of the message, if all of it is there. Nothing else may share its last record.
fn whole(message: &[u8]) -> Result<Option<&[u8]>, NotTls> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(NotTls::Other("its first message is no client's"));
    }
    let Some((header, rest)) = message.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
    if length > MAX_HELLO {
        return Err(NotTls::TooLong);
    }
    match rest.len() {
        have if have < length => Ok(None),
        have if have == length => Ok(Some(rest)),
        _ => Err(NotTls::Other("something else follows in the same record")),
    }
}

/// Cuts pieces off the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], NotTls> {
        let (piece, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(NotTls::Other("its first message is cut off"))?;
        self.0 = rest;
        Ok(piece)
    }

    fn byte(&mut self) -> Result<usize, NotTls> {
        Ok(usize::from(self.take(1)?[0]))
    }

    fn short(&mut self) -> Result<u16, NotTls> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// With a length of two bytes in front.
    fn vector(&mut self) -> Result<Cursor<'a>, NotTls> {
        let length = self.short()?;
        self.take(length.into()).map(Cursor)
    }

    fn end(&self) -> Result<(), NotTls> {
        match self.0 {
            [] => Ok(()),
            _ => Err(NotTls::Other("its first message is longer than it says")),
        }
    }
}

fn body(message: &[u8]) -> Result<Hello, NotTls> {
    let mut all = Cursor(message);
    // The version that is given for the sake of old servers, and the random bytes.
    all.take(2 + 32)?;
    let session = all.byte()?;
    all.take(session)?;
    // Cipher suites.
    all.vector()?;
    let compressions = all.byte()?;
    all.take(compressions)?;
    let mut hello = Hello {
        server_name: None,
        encrypted: false,
    };
    if all.0.is_empty() {
        // Before TLS 1.2 there were no extensions.
        return Ok(hello);
    }
    let mut extensions = all.vector()?;
    all.end()?;
    let mut seen = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.short()?;
        let content = extensions.vector()?;
        if seen.contains(&kind) {
            return Err(NotTls::Other("an extension is there twice"));
        }
        seen.push(kind);
        if kind == SERVER_NAME {
            hello.server_name = Some(server_name(content)?);
        }
        hello.encrypted |= ENCRYPTED.contains(&kind);
    }
    Ok(hello)
}

/// One name of the one kind that there is.
fn server_name(mut content: Cursor<'_>) -> Result<String, NotTls> {
    const HOST_NAME: usize = 0;
    let mut names = content.vector()?;
    content.end()?;
    if names.byte()? != HOST_NAME {
        return Err(NotTls::Other("the server's name is of no known kind"));
    }
    let name = names.vector()?.0;
    names.end()?;
    let name = std::str::from_utf8(name).ok().map(str::to_ascii_lowercase);
    name.filter(|name| HostName::parse(name).is_some())
        .ok_or(NotTls::Other("the server's name is none"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn vector(bytes: &[u8]) -> Vec<u8> {
        let mut all = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        all.extend(bytes);
        all
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector(content)].concat()
    }

    fn named(name: &str) -> Vec<u8> {
        let entry = [&[0][..], &vector(name.as_bytes())].concat();
        extension(SERVER_NAME, &vector(&entry))
    }

    /// The message alone, with these extensions.
    fn message(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(vector(&[0x13, 0x01]));
        body.extend([1, 0]);
        body.extend(vector(extensions));
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[CLIENT_HELLO][..], &length[1..], &body].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |piece: &[u8]| [&[HANDSHAKE, 3, 1][..], &vector(piece)].concat();
        message.chunks(size).flat_map(record).collect()
    }

    /// What a client sends that asks for this name.
    pub(crate) fn hello_for(name: &str) -> Vec<u8> {
        records(&message(&named(name)), 1 << 14)
    }

    fn asked(bytes: &[u8], host: &str) -> Result<(), NotTls> {
        parse(bytes)?.expect("it is whole").asks_for(host)
    }

    #[test]
    fn the_name_has_to_be_the_one_that_was_asked_for() {
        assert_eq!(asked(&hello_for("a.example.com"), "a.example.com"), Ok(()));
        assert_eq!(asked(&hello_for("A.Example.com"), "a.example.com"), Ok(()));
        for other in ["b.example.com", "example.com", "a.example.com.evil.org"] {
            assert_eq!(
                asked(&hello_for(other), "a.example.com"),
                Err(NotTls::OtherName)
            );
        }
        let nameless = records(&message(&extension(10, &[0, 2, 0, 29])), 1 << 14);
        assert_eq!(asked(&nameless, "a.example.com"), Err(NotTls::Nameless));
        assert_eq!(asked(&nameless, "127.0.0.1"), Ok(()));
        assert_eq!(
            asked(&hello_for("a.example.com"), "127.0.0.1"),
            Err(NotTls::Named)
        );
    }

    #[test]
    fn a_name_that_cannot_be_seen_is_refused() {
        for kind in ENCRYPTED {
            let both = [named("a.example.com"), extension(kind, &[0; 40])].concat();
            let bytes = records(&message(&both), 1 << 14);
            assert_eq!(asked(&bytes, "a.example.com"), Err(NotTls::Encrypted));
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let twice = [named("a.example.com"), named("b.example.com")].concat();
        let two = {
            let entry = |name: &str| [&[0][..], &vector(name.as_bytes())].concat();
            let list = [entry("a.example.com"), entry("b.example.com")].concat();
            extension(SERVER_NAME, &vector(&list))
        };
        let kind = extension(
            SERVER_NAME,
            &vector(&[&[1][..], &vector(b"a.example.com")].concat()),
        );
        let mut longer = message(&named("a.example.com"));
        longer.extend(b"\x14\0\0\0");
        let odd = [
            records(&message(&twice), 1 << 14),
            records(&message(&two), 1 << 14),
            records(&message(&kind), 1 << 14),
            records(&longer, 1 << 14),
            hello_for("a.example.com."),
            hello_for("a.example.com\0"),
            hello_for("127.0.0.1"),
            hello_for("localhost"),
            hello_for(""),
            hello_for("é.example.com"),
        ];
        for bytes in odd {
            assert!(
                matches!(parse(&bytes), Err(NotTls::Other(_))),
                "{:?}",
                parse(&bytes)
            );
        }
    }

    #[test]
    fn other_protocols_are_known_by_their_first_bytes() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PRI * HTTP/2.0",
            b"SSH-2.0-x",
            b"\x80\x2e\x01\x03\x01",
            b"\x16\x02",
            b"\x16\x03\x01\0\0",
            b"\x16\x03\x01\x50\x00",
            b"\x15\x03\x01\0\x02",
            b"\x16\x03\x01\0\x04\x02\0\0\0",
        ] {
            assert!(matches!(parse(bytes), Err(NotTls::Other(_))), "{bytes:?}");
        }
    }

    #[test]
    fn pieces_are_put_together_up_to_a_bound() {
        let message = message(&named("a.example.com"));
        let cut = records(&message, message.len().div_ceil(MAX_RECORDS));
        assert_eq!(asked(&cut, "a.example.com"), Ok(()));
        for missing in 1..cut.len() {
            assert_eq!(parse(&cut[..cut.len() - missing]), Ok(None), "{missing}");
        }
        assert_eq!(parse(&records(&message, 8)), Err(NotTls::TooLong));
        let long = extension(21, &[0; MAX_HELLO]);
        let long = self::message(&[named("a.example.com"), long].concat());
        assert_eq!(parse(&records(&long, 1 << 14)), Err(NotTls::TooLong));
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_more_is_not_waited_for_for_ever() {
        let bytes = hello_for("a.example.com");
        assert_eq!(receive(&bytes[..20]).await, Err(NotTls::Silent));
        let (read, hello) = receive(&bytes[..]).await.unwrap();
        assert_eq!((read, hello.asks_for("a.example.com")), (bytes, Ok(())));
    }

    #[tokio::test]
    async fn a_real_client_is_understood() {
        use tokio_rustls::rustls::pki_types::ServerName;
        let tls = crate::dial::tls(crate::dial::mozilla_roots()).unwrap();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from("api.example.com").unwrap();
        let connecting = tokio::spawn(async move { tls.connect(name, near).await.map(drop) });
        let (_, hello) = receive(far).await.unwrap();
        assert_eq!(hello.asks_for("api.example.com"), Ok(()));
        assert!(connecting.await.unwrap().is_err());
    }
}
