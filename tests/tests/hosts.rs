//! Tools that ask hosts: what a rule lets out, what a person is asked about, what never leaves.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use testkit::model::{Script, ScriptedModel, Step};
use testkit::system::System;

/// One request as it reached the server: its head and its body.
#[derive(Clone, Debug)]
struct Seen {
    head: String,
    body: String,
}

/// A web server on a loopback address that answers each path with a fixed page.
struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn start(answer: impl Fn(&str) -> (u16, &'static str, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || serve(&stream, &log, answer.as_ref()));
            }
        });
        Self { port, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("a lock").clone()
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// A rule for this server.
    fn rule(&self, name: &str, tool: &str, more: &str) -> String {
        format!(
            "[[egress]]\nname = \"{name}\"\nsubject = \"tool:{tool}\"\nhost = \"127.0.0.1\"\nports = [{}]\n\
             private = true\ncleartext = true\nowner = \"me\"\nexpires = \"2099-01-01\"\n{more}\n",
            self.port
        )
    }
}

fn serve(
    stream: &TcpStream,
    log: &Mutex<Vec<Seen>>,
    answer: &dyn Fn(&str) -> (u16, &'static str, String),
) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let length = head
        .to_ascii_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
    let body = String::from_utf8_lossy(&body).into_owned();
    log.lock().expect("a lock").push(Seen { head, body });
    let (status, more, text) = answer(&path);
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{more}\r\n{text}",
        text.len()
    );
    // Whoever asked may be gone.
    let _ = (&*stream).write_all(answer.as_bytes());
}

/// A model that makes these calls one by one, then says that it is done.
fn calling<'a>(calls: impl IntoIterator<Item = (&'a str, Value)>) -> ScriptedModel {
    let calls = calls.into_iter().map(|(name, args)| Step::call(name, args));
    ScriptedModel::start(Script::steps(calls.chain([Step::text("done")]))).expect("a model")
}

/// The results that the model was given, in order.
fn results(model: &ScriptedModel) -> Vec<String> {
    let requests = model.requests();
    let last = requests.last().expect("a request").messages();
    let result = |message: String| message.strip_prefix("tool: ").map(str::to_owned);
    last.into_iter().filter_map(result).collect()
}

const HTML: &str = "content-type: text/html; charset=utf-8\r\n";

#[test]
fn a_page_that_a_rule_names_is_read_as_text_and_makes_the_session_untrusted() {
    let server = Server::start(|path| match path {
        "/docs/a" => (
            200,
            HTML,
            "<h1>Tides</h1><script>x()</script><p>High at <b>noon</b>".to_owned(),
        ),
        _ => (404, "", "no such page".to_owned()),
    });
    let model = calling([
        ("web_fetch", json!({ "url": server.url("/docs/a") })),
        ("web_fetch", json!({ "url": server.url("/docs/none") })),
    ]);
    let rule = server.rule("tides", "web_fetch", "paths = [\"/docs/*\"]");
    let system = System::start(model.port(), &rule);
    let answer = system.ask("when is high tide?");
    assert_eq!(answer["reply"], "done", "{answer}");
    let results = results(&model);
    assert!(
        results[0].contains("Tides") && results[0].contains("noon"),
        "{results:?}"
    );
    assert!(
        !results[0].contains("x()") && !results[0].contains("<h1>"),
        "{results:?}"
    );
    assert!(
        results[1].contains("404") && results[1].contains("no such page"),
        "{results:?}"
    );
    assert!(system.rows("approval_asked").is_empty());
    let labels = system.rows("labelled");
    assert_eq!(labels.len(), 1, "{labels:?}");
    assert_eq!(labels[0]["event"]["label"], "untrusted");
    assert_eq!(system.rows("egress_request").len(), 2);
    assert_eq!(system.rows("egress_response").len(), 2);
    system.assert_record_is_sound();
}

#[test]
fn what_no_rule_names_never_reaches_this_machine_and_is_not_asked_about() {
    let server = Server::start(|_| (200, "", "inside".to_owned()));
    let rule = server.rule("docs", "web_fetch", "paths = [\"/docs/*\"]");
    let port = server.port;
    let urls = [
        server.url("/admin"),
        server.url("/docs/../admin"),
        server.url("/docs/%2e%2e/admin"),
        format!("http://localhost:{port}/docs/a"),
        format!("http://2130706433:{port}/docs/a"),
        format!("http://0x7f.1:{port}/docs/a"),
        format!("http://[::ffff:127.0.0.1]:{port}/docs/a"),
        format!("http://[::1]:{port}/docs/a"),
        format!("http://a@127.0.0.1:{port}/docs/a"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://metadata.google.internal/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ];
    let count = urls.len();
    let calls = urls.map(|url| ("web_fetch", json!({ "url": url })));
    // The rule is for the other tool.
    let other = ("http_request", json!({ "url": server.url("/docs/a") }));
    let model = calling(calls.into_iter().chain([other]));
    let system = System::start(model.port(), &rule);
    assert_eq!(system.ask("look")["reply"], "done");
    let results = results(&model);
    assert_eq!(results.len(), count + 1);
    assert!(
        results.iter().all(|result| !result.contains("inside")),
        "{results:?}"
    );
    assert!(server.seen().is_empty(), "{:?}", server.seen());
    assert!(system.rows("approval_asked").is_empty());
    assert!(system.rows("egress_request").is_empty());
    system.assert_record_is_sound();
}

#[test]
fn what_a_rule_asks_about_is_shown_whole_and_sent_exactly_so_after_a_yes() {
    let server = Server::start(|_| {
        (
            201,
            "content-type: application/json\r\n",
            "{\"id\":7}".to_owned(),
        )
    });
    let model = calling([(
        "http_request",
        json!({
            "method": "POST",
            "url": server.url("/notes?list=1"),
            "headers": { "Content-Type": "application/json" },
            "body": "{\"text\":\"milk\"}",
        }),
    )]);
    let rule = server.rule(
        "notes",
        "http_request",
        "methods = [\"GET\", \"POST\"]\nask = \"always\"",
    );
    let system = System::start(model.port(), &rule);
    let ask = system.spawn(&["ask", "--json", "go"]);
    let card = system.wait_for_approval();
    let shown = card.to_string();
    for part in ["POST", "/notes?list=1", "application/json", "milk"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(server.seen().is_empty());
    assert!(system.approve(&card).status.success());
    assert_eq!(ask.json()["reply"], "done");
    let seen = server.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(
        seen[0].head.starts_with("POST /notes?list=1 HTTP/1.1\r\n"),
        "{seen:?}"
    );
    assert_eq!(seen[0].body, "{\"text\":\"milk\"}");
    assert!(results(&model)[0].contains("{\"id\":7}"));
    system.assert_record_is_sound();
}

#[test]
fn a_no_sends_nothing() {
    let server = Server::start(|_| (200, "", "sent".to_owned()));
    let model = calling([(
        "http_request",
        json!({ "method": "DELETE", "url": server.url("/notes/1") }),
    )]);
    let rule = server.rule("notes", "http_request", "methods = [\"DELETE\"]");
    let system = System::start(model.port(), &rule);
    let ask = system.spawn(&["ask", "--json", "go"]);
    let card = system.wait_for_approval();
    assert!(system.deny(&card).status.success());
    assert_eq!(ask.json()["reply"], "done");
    assert!(server.seen().is_empty());
    system.assert_record_is_sound();
}

#[test]
fn a_redirect_is_judged_like_the_request_and_never_leads_further_than_the_rules() {
    let server = Server::start(|path| match path {
        "/docs/moved" => (302, "location: /docs/new\r\n", String::new()),
        "/docs/new" => (200, "content-type: text/plain\r\n", "here now".to_owned()),
        "/docs/out" => (302, "location: /admin\r\n", String::new()),
        "/docs/metadata" => (
            302,
            "location: http://169.254.169.254/latest\r\n",
            String::new(),
        ),
        "/docs/loop" => (302, "location: /docs/loop\r\n", String::new()),
        _ => (200, "", "inside".to_owned()),
    });
    let pages = ["moved", "out", "metadata", "loop"];
    let calls = pages.map(|page| {
        (
            "web_fetch",
            json!({ "url": server.url(&format!("/docs/{page}")) }),
        )
    });
    let model = calling(calls);
    let rule = server.rule("docs", "web_fetch", "paths = [\"/docs/*\"]");
    let system = System::start(model.port(), &rule);
    assert_eq!(system.ask("look")["reply"], "done");
    let results = results(&model);
    assert!(results[0].contains("here now"), "{results:?}");
    assert!(
        results[1..].iter().all(|result| !result.contains("inside")),
        "{results:?}"
    );
    let seen = server.seen();
    assert!(
        !seen.iter().any(|seen| seen.head.starts_with("GET /admin")),
        "{seen:?}"
    );
    assert!(
        seen.iter()
            .filter(|seen| seen.head.contains("/docs/loop"))
            .count()
            <= 6,
        "{seen:?}"
    );
    system.assert_record_is_sound();
}
