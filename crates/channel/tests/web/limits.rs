//! What is too much, too long or too slow.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::page::Page;

fn connect(page: &Page) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", page.port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

/// Everything until the server closes.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_body_over_the_limit_is_refused_whether_or_not_it_says_so() {
    let page = Page::up();
    let session = page.log_in("anna");
    let long = json!({ "id": "m", "text": "x".repeat(70 * 1024) });
    assert_eq!(session.of(page.post("/message", &long)).send().status, 413);

    let mut stream = connect(&page);
    let port = page.port;
    let head = format!(
        "POST /login HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    for _ in 0..32 {
        // The server may have answered and closed already.
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"HTTP/1.1 413");
}

#[test]
fn what_is_not_the_json_of_its_address_is_refused() {
    let page = Page::up();
    let session = page.log_in("anna");
    let wrong = [
        &b""[..],
        b"{",
        b"[]",
        b"{\"id\":\"m\"}",
        b"{\"id\":\"m m\",\"text\":\"t\"}",
        b"{\"id\":\"m\",\"text\":\"t\",\"x\":1}",
    ];
    for body in wrong {
        let request = session
            .of(page.post("/message", &json!({})))
            .body(body.to_vec());
        assert_eq!(
            request.send().status,
            400,
            "{}",
            String::from_utf8_lossy(body)
        );
    }
    let form = session
        .of(page.post("/stop", &json!({})))
        .with("Content-Type", "text/plain");
    assert_eq!(form.send().status, 202, "stop has no body to read");
    let form = session
        .of(page.post("/message", &json!({ "id": "m", "text": "t" })))
        .with("Content-Type", "text/plain");
    assert_eq!(form.send().status, 400);
}

#[test]
fn a_head_or_body_that_trickles_in_is_cut_off() {
    let page = Page::up();
    let port = page.port;
    let begun = Instant::now();
    let mut head = connect(&page);
    head.write_all(format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX: ").as_bytes())
        .unwrap();
    let mut body = connect(&page);
    let request = format!(
        "POST /login HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    body.write_all(request.as_bytes()).unwrap();
    let idle = connect(&page);

    let reply = rest(body);
    assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
    for stream in [head, idle] {
        let text = rest(stream);
        assert!(!text.contains("200"), "{text}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(18),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn connections_over_the_limit_wait_until_others_end() {
    let page = Page::up();
    let mut held: Vec<_> = (0..64).map(|_| connect(&page)).collect();
    // Each held connection has been accepted once it is answered.
    for stream in &mut held {
        stream
            .write_all(
                format!(
                    "GET /mark.svg HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n",
                    page.port
                )
                .as_bytes(),
            )
            .unwrap();
        let mut reply = [0; 12];
        stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"HTTP/1.1 200");
    }
    let mut late = connect(&page);
    late.write_all(
        format!(
            "GET /mark.svg HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n",
            page.port
        )
        .as_bytes(),
    )
    .unwrap();
    late.set_read_timeout(Some(Duration::from_millis(400)))
        .unwrap();
    let mut reply = [0; 12];
    assert!(late.read_exact(&mut reply).is_err());
    held.pop();
    late.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    late.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"HTTP/1.1 200");
}

#[test]
fn heads_that_are_too_long_are_refused() {
    let page = Page::up();
    let reply = page
        .get("/")
        .header("X-Long", &"x".repeat(64 * 1024))
        .send();
    assert_eq!(reply.status, 431);
    let many = (0..100).fold(page.get("/"), |request, n| {
        request.header(&format!("X-{n}"), "x")
    });
    assert_eq!(many.send().status, 431);
}
