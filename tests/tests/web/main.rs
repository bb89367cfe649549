//! The page's server, spoken to as a browser would, and as other programs and pages might.

mod chat;
mod door;
mod freeze;
mod passkeys;

use std::cell::Cell;

use protocol::ids::Digest;
use protocol::passkey::Assertion;
use serde_json::{Value, json};
use testkit::http::{self, Events, Request, Response};
use testkit::model::{Rule, Script, ScriptedModel, Step};
use testkit::passkey::{Made, SoftKey};
use testkit::system::{System, wait_for};

/// A browser that is logged in.
struct Browser {
    port: u16,
    cookie: String,
    page_key: String,
}

impl Browser {
    /// Logs in with a new link.
    fn log_in(system: &System) -> Self {
        let answer = log_in_with(system, &token(&system.login_link()));
        assert_eq!(answer.status, 200, "{answer:?}");
        let cookie = answer.header("set-cookie").expect("a cookie");
        Self {
            port: system.web_port(),
            cookie: cookie.split(';').next().unwrap_or_default().to_owned(),
            page_key: answer.json()["page_key"]
                .as_str()
                .expect("a page key")
                .to_owned(),
        }
    }

    fn get(&self, path: &str) -> Request {
        self.of(http::get(self.port, path).header("Sec-Fetch-Site", "same-origin"))
    }

    fn post(&self, path: &str, body: &Value) -> Request {
        self.of(http::post(self.port, path, body).header("Origin", &origin(self.port)))
    }

    /// With both halves of the login.
    fn of(&self, request: Request) -> Request {
        request
            .header("Cookie", &self.cookie)
            .header("X-Bulkhead-Page-Key", &self.page_key)
    }

    /// The event stream, from its beginning.
    fn events(&self) -> Events {
        let (response, events) = self.get("/events").stream();
        assert_eq!(response.status, 200, "{response:?}");
        events
    }

    fn says(&self, id: &str, text: &str) {
        let answer = self
            .post("/message", &json!({ "id": id, "text": text }))
            .send();
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    fn answers(&self, card: &Value, answer: &str) {
        let taken = self.post("/answer", &answer_to(card, answer)).send();
        assert_eq!(taken.status, 202, "{taken:?}");
    }

    /// Enrols a passkey, as a browser with an authenticator would.
    fn enrols(&self, system: &System) -> Passkey {
        let (key, code) = (SoftKey::generate(), passkey_code(system));
        let enrolment = key.enrol(&Made::enrolment(&code, &page_origin(self.port)));
        let body = json!({ "code": code, "enrolment": enrolment });
        let taken = self.post("/passkey", &body).send();
        assert_eq!(taken.status, 202, "{taken:?}");
        let uses = Cell::new(0);
        Passkey { key, uses }
    }

    /// Says yes with a passkey.
    fn signs(&self, card: &Value, passkey: &Passkey) {
        passkey.uses.set(passkey.uses.get() + 1);
        self.sends_signed(card, &passkey.key.sign(&passkey.yes(card, self.port)));
    }

    fn sends_signed(&self, card: &Value, assertion: &Assertion) {
        let mut body = answer_to(card, "approve");
        body["passkey"] = json!(assertion);
        let taken = self.post("/answer", &body).send();
        assert_eq!(taken.status, 202, "{taken:?}");
    }

    fn transcript(&self) -> Vec<Value> {
        let answer = self.get("/transcript").send();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["entries"]
            .as_array()
            .expect("entries")
            .clone()
    }

    /// Waits until the agent has answered this, as the transcript has it.
    fn wait_for_answer(&self, text: &str) {
        wait_for(&format!("the answer {text:?}"), || {
            let answer = self.get("/transcript").send();
            let entries = (answer.status == 200).then(|| answer.json()["entries"].clone())?;
            let said = |entry: &Value| entry["entry"] == "assistant" && entry["text"] == text;
            entries.as_array()?.iter().any(said).then_some(())
        });
    }
}

/// A passkey in software, and how often it was used.
struct Passkey {
    key: SoftKey,
    uses: Cell<u32>,
}

impl Passkey {
    /// What a yes to this question is, right in every part.
    fn yes(&self, card: &Value, port: u16) -> Made {
        let digest = card["digest"].as_str().expect("a digest");
        let digest = Digest::parse(digest).expect("a digest");
        Made {
            counter: self.uses.get(),
            ..Made::yes(digest, &page_origin(port))
        }
    }
}

/// A one-time code from the terminal.
fn passkey_code(system: &System) -> String {
    let output = system.bulkhead(&["passkey", "add", "a key"]);
    let link = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let page = page_origin(system.web_port());
    let code = link.strip_prefix(&format!("{page}/passkey#"));
    code.unwrap_or_else(|| panic!("no link but {link}"))
        .to_owned()
}

/// Where a browser has the page.
fn page_origin(port: u16) -> String {
    format!("http://localhost:{port}")
}

fn origin(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// What stands behind the `#` of a one-time link.
fn token(link: &str) -> String {
    link.split_once("/login#")
        .expect("a login link")
        .1
        .to_owned()
}

fn log_in_with(system: &System, token: &str) -> Response {
    let port = system.web_port();
    http::post(port, "/login", &json!({ "token": token }))
        .header("Origin", &origin(port))
        .send()
}

fn answer_to(card: &Value, answer: &str) -> Value {
    json!({
        "approval": card["approval"], "digest": card["digest"], "nonce": card["nonce"],
        "answer": answer,
    })
}

/// The next event of this type.
fn next(events: &mut Events, kind: &str) -> Value {
    events
        .find(|event| event["type"] == kind)
        .unwrap_or_else(|| panic!("the stream ended before {kind}"))
}

/// The card of the next question.
fn question(events: &mut Events) -> Value {
    next(events, "approval")["card"].clone()
}

/// A model that runs `rm NAME` for "delete NAME", and otherwise repeats what it is told.
fn deleting(names: &[&str]) -> ScriptedModel {
    let rule = |name: &&str| Rule {
        contains: format!("delete {name}"),
        steps: vec![
            Step::call("exec", json!({ "command": format!("rm {name}") })),
            Step::text(&format!("That was {name}.")),
        ],
    };
    let rules = names.iter().map(rule).collect();
    ScriptedModel::start(Script {
        rules,
        ..Script::echo()
    })
    .expect("a scripted model")
}

fn with_files(model: &ScriptedModel, names: &[&str]) -> System {
    let system = System::start(model.port(), "");
    for name in names {
        std::fs::write(system.workspace().join(name), name).expect("a file in the workspace");
    }
    system
}
