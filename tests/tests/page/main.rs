//! The page in a real browser: headless Chromium.

mod approvals;
mod freeze;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::browser::{Browser, Verifies};
use testkit::model::{Rule, Script, ScriptedCall, ScriptedModel, Step};
use testkit::system::{System, wait_for};

/// A browser that came in by a new link.
fn open(system: &System) -> Browser {
    let browser = Browser::start();
    browser.open(&system.login_link());
    browser.find("#status[data-state=ready]");
    browser
}

fn send(browser: &Browser, text: &str) {
    browser.type_into("#text", text);
    browser.click("#send");
}

/// Makes a passkey on the page with a new one-time code, as a person would.
fn enrol(browser: &Browser, system: &System) {
    browser.add_authenticator(Verifies::WhoTouchesIt);
    browser.open(&passkey_link(system));
    browser.click("#passkey-make");
    browser.wait_for_text("Your passkey is enrolled.");
    browser.click("#passkey-close");
    browser.find("#status[data-state=ready]");
}

fn passkey_link(system: &System) -> String {
    let output = system.bulkhead(&["passkey", "add"]);
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// How many elements match.
fn count(browser: &Browser, selector: &str) -> u64 {
    let found = browser.run(&format!(
        "return document.querySelectorAll({selector:?}).length"
    ));
    found.as_u64().expect("a number")
}

fn call_with(said: &str, command: &str) -> Step {
    let args = json!({ "command": command });
    Step::ToolCalls {
        said: said.to_owned(),
        calls: vec![ScriptedCall {
            name: "exec".to_owned(),
            args,
        }],
    }
}

/// A model that deletes a file for "do one" and another one for "do two".
fn deleting_two() -> ScriptedModel {
    doing(&[("one", "rm one.txt"), ("two", "rm two.txt")])
}

/// Running, with both files, and a page that has a passkey.
fn with_two_files(model: &ScriptedModel) -> (System, Browser) {
    let system = System::start(model.port(), "");
    for name in ["one.txt", "two.txt"] {
        std::fs::write(system.workspace().join(name), "x").expect("a file");
    }
    let browser = open(&system);
    enrol(&browser, &system);
    (system, browser)
}

/// A model that runs these commands when it is told "do NAME", and then says "NAME is over."
fn doing(commands: &[(&str, &str)]) -> ScriptedModel {
    let rule = |(name, command): &(&str, &str)| Rule {
        contains: format!("do {name}"),
        steps: vec![
            call_with("I will.", command),
            Step::text(&format!("{name} is over.")),
        ],
    };
    let rules = commands.iter().map(rule).collect();
    ScriptedModel::start(Script {
        rules,
        ..Script::echo()
    })
    .expect("a scripted model")
}

#[test]
fn a_person_logs_in_by_the_link_and_sees_the_answer_grow() {
    let words = format!(
        "This answer comes word by word, {}and **ends** with a list:\n\n- one\n- two",
        "one after the other, ".repeat(4)
    );
    let script = Script::steps([Step::slow_text(&words, 120)]);
    let model = ScriptedModel::start(script).expect("a scripted model");
    let system = System::start(model.port(), "");
    let link = system.login_link();
    let browser = Browser::start();
    browser.open(&link);
    browser.find("#status[data-state=ready]");
    // The link's token is not left where a glance or the history would show it.
    let address = format!("http://localhost:{}/", system.web_port());
    assert_eq!(browser.run("return location.href"), address);
    // Whoever types the number comes to the same page by its name.
    browser.open(&format!("http://127.0.0.1:{}/", system.web_port()));
    browser.find("#status[data-state=ready]");
    assert_eq!(browser.run("return location.href"), address);

    // The page notes by itself what it shows: asking it takes as long as some of the words.
    browser.run(
        "window.noted = {lengths: [], states: []};
         const note = () => {
             noted.lengths.push(document.querySelector('.answer')?.textContent.length ?? 0);
             noted.states.push(document.getElementById('status').dataset.state);
         };
         new MutationObserver(note).observe(document.body, {
             attributes: true, childList: true, subtree: true,
         });",
    );
    send(&browser, "Tell me something.");
    let noted = wait_for("the answer is whole", || {
        let noted = browser.run("return noted");
        let states: Vec<&str> = noted["states"]
            .as_array()?
            .iter()
            .filter_map(Value::as_str)
            .collect();
        (states.contains(&"working") && states.ends_with(&["ready"])).then_some(noted)
    });
    let lengths = noted["lengths"].as_array().expect("a list").iter();
    let mut lengths: Vec<u64> = lengths.filter_map(Value::as_u64).collect();
    lengths.dedup();
    assert!(lengths.len() > 4, "it did not grow but jumped: {lengths:?}");
    assert_eq!(count(&browser, ".answer"), 1);
    assert_eq!(count(&browser, ".answer li"), 2);
    assert_eq!(
        browser.run("return document.querySelector('.answer strong').innerText"),
        "ends"
    );
    assert_eq!(
        browser.run("return document.querySelector('.bubble').innerText"),
        "Tell me something."
    );

    // The link has been used: nobody else comes in by it.
    let other = Browser::start();
    other.open(&link);
    other.find("#login");
    other.wait_for_text("bulkhead login");
    assert!(!other.text().contains("Tell me something."));
}

#[test]
fn a_call_runs_when_approve_is_clicked_and_does_not_when_deny_is() {
    let model = deleting_two();
    let (system, browser) = with_two_files(&model);
    // When the button came, and when it could first be clicked.
    browser.run(
        "window.seen = {};
         new MutationObserver(() => {
           const button = document.querySelector('.approve');
           if (button) seen.came ??= performance.now();
           if (button && !button.disabled) seen.usable ??= performance.now();
         }).observe(document.getElementById('log'), {childList: true, subtree: true, attributes: true});",
    );
    send(&browser, "do one");
    browser.find(".approval[data-state=open]");
    browser.find(".call[data-state=waiting]");
    assert!(browser.text().contains("rm one.txt"));
    assert!(system.workspace().join("one.txt").exists());
    browser.click(".approve");
    browser.find(".approval[data-state=approve]");
    browser.wait_for_text("one is over.");
    browser.find(".call[data-state=done]");
    assert!(!system.workspace().join("one.txt").exists());
    let unusable = browser
        .run("return seen.usable - seen.came")
        .as_f64()
        .expect("milliseconds");
    assert!(
        unusable > 650.0,
        "a click meant for something else could have hit it: {unusable} ms"
    );

    send(&browser, "do two");
    browser.find(".approval[data-state=open]");
    // A question outlives the page that showed it.
    browser.reload();
    browser.click(".approval[data-state=open] .deny");
    browser.find(".approval[data-state=deny]");
    browser.wait_for_text("two is over.");
    browser.find(".call[data-state=refused]");
    assert!(system.workspace().join("two.txt").exists());
    system.assert_record_is_sound();
}

#[test]
fn a_passkey_made_on_the_page_signs_the_one_call_that_it_is_asked_for() {
    let model = deleting_two();
    let (system, browser) = with_two_files(&model);
    assert_eq!(browser.run("return location.hash"), "");
    assert_eq!(system.json_lines(&["passkey", "list"]).len(), 1);
    send(&browser, "do one");
    browser.find(".approval[data-state=open]");
    let card = system.wait_for_approval();
    assert_eq!(card["needs"], "signature");
    browser.click(".approve");
    browser.find(".approval[data-state=approve]");
    browser.wait_for_text("one is over.");
    assert!(!system.workspace().join("one.txt").exists());
    let answered = system.rows("approval_answered").remove(0);
    assert_eq!(answered["event"]["approval"], card["approval"]);
    assert_eq!(answered["event"]["channel"], "web");
    assert_eq!(answered["event"]["signed"]["by"], "passkey");

    // Each call takes a signature of its own, and a passkey that is removed makes none.
    assert!(
        system
            .bulkhead(&["passkey", "remove", "1"])
            .status
            .success()
    );
    send(&browser, "do two");
    browser.click(".approval[data-state=open] .approve");
    browser.wait_for_text("not enrolled");
    assert!(system.workspace().join("two.txt").exists());
    browser.click(".approval[data-state=open] .deny");
    browser.wait_for_text("two is over.");
    system.assert_record_is_sound();
}

#[test]
fn the_same_click_without_a_passkey_or_with_one_that_knows_nobody_runs_nothing() {
    let model = doing(&[("one", "rm one.txt")]);
    let system = System::start(model.port(), "");
    std::fs::write(system.workspace().join("one.txt"), "x").expect("a file");
    let browser = open(&system);
    // It notices a touch, but not whose; a code does not help it.
    browser.add_authenticator(Verifies::Nobody);
    browser.open(&passkey_link(&system));
    browser.click("#passkey-make");
    browser.wait_for_text("No passkey answered.");
    browser.click("#passkey-close");
    assert!(system.rows("passkey_enrolled").is_empty());

    send(&browser, "do one");
    let open = ".approval[data-state=open]";
    let approval = system.wait_for_approval()["approval"].clone();
    let way = format!(
        "bulkhead approvals approve {}",
        approval.as_str().expect("an id")
    );
    browser.find(open);
    browser.wait_for_text(&way);
    browser.click(&format!("{open} .approve"));
    browser.wait_for_text("No passkey answered.");
    // Were the page's own code turned round, its session would still not be enough.
    let card = system.wait_for_approval();
    let asked = browser.run(&format!(
        "const key = localStorage.getItem('bulkhead.page_key');
         const {{ approval, digest, nonce }} = {card};
         const request = new XMLHttpRequest();
         request.open('POST', '/answer', false);
         request.setRequestHeader('Content-Type', 'application/json');
         request.setRequestHeader('X-Bulkhead-Page-Key', key);
         request.send(JSON.stringify({{ approval, digest, nonce, answer: 'approve' }}));
         return request.status;"
    ));
    assert_eq!(asked, 202);
    browser.wait_for_text("this call needs a signature");
    assert!(system.rows("approval_answered").is_empty());
    assert!(system.workspace().join("one.txt").exists());

    // No can be said by whoever is logged in.
    browser.click(&format!("{open} .deny"));
    browser.wait_for_text("one is over.");
    assert!(system.workspace().join("one.txt").exists());
    system.assert_record_is_sound();
}

#[test]
fn a_question_answered_elsewhere_is_closed_on_the_page() {
    let model = doing(&[("one", "rm one.txt")]);
    let system = System::start(model.port(), "");
    let browser = open(&system);
    send(&browser, "do one");
    browser.find(".approval[data-state=open]");
    let card = system.wait_for_approval();
    assert!(system.deny(&card).status.success());
    browser.find(".approval[data-state=deny]");
    assert_eq!(count(&browser, ".approval button"), 0);
    browser.wait_for_text("one is over.");
}

#[test]
fn a_reload_shows_the_conversation_as_it_was() {
    let model = doing(&[("list", "ls")]);
    let system = System::start(model.port(), "");
    std::fs::write(system.workspace().join("a-file.txt"), "x").expect("a file");
    let browser = open(&system);
    send(&browser, "do list");
    browser.wait_for_text("list is over.");
    send(&browser, "hello <b>there</b>");
    browser.wait_for_text("You said: hello");
    let shown = "return [...document.querySelectorAll('#log > *')].map((node) => node.className + '|' + node.textContent)";
    let before = browser.run(shown);
    browser.reload();
    browser.wait_for_text("You said: hello");
    assert_eq!(browser.run(shown), before);
    assert!(before.to_string().contains("a-file.txt"), "{before}");
    browser.click(".call summary");
    browser.wait_for_text("a-file.txt");
}

/// A server on another port of loopback that notes what it is asked for.
struct Canary {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Canary {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let notes = Arc::clone(&seen);
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let notes = Arc::clone(&notes);
                thread::spawn(move || {
                    let mut line = String::new();
                    // Chromium connects ahead for a frame before it asks the page's policy, and
                    // sends nothing then. What counts is a request.
                    if BufReader::new(&stream)
                        .read_line(&mut line)
                        .is_ok_and(|length| length > 0)
                    {
                        notes.lock().expect("nobody panics").push(line);
                    }
                    // Whoever came may be gone.
                    let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                });
            }
        });
        Self { port, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("nobody panics").clone()
    }
}

/// What a model that was turned against its owner might write.
fn hostile(port: u16) -> String {
    let to = format!("http://127.0.0.1:{port}");
    format!(
        "![pixel]({to}/a.png) [click]({to}/b) <img src=\"{to}/c.png\" onerror=\"pwned=1\"> \
         <script src=\"{to}/d.js\"></script><script>window.pwned=1</script> \
         <iframe src=\"{to}/e\"></iframe> <svg onload=\"pwned=1\"></svg> \
         [js](javascript:pwned=1) <{to}/f> <style>@import '{to}/g.css'</style>\n\n\
         | a | b |\n|---|---|\n| ![x]({to}/h.png) | <img src=x onerror=pwned=1> |\n\n\
         ```html\n<img src=\"{to}/i.png\">\n```\n\n\
         <link rel=stylesheet href={to}/j.css><meta http-equiv=refresh content=\"0;url={to}/k\">\n\n\
         THE END"
    )
}

#[test]
fn what_a_hostile_model_writes_loads_nothing_and_runs_nothing() {
    let canary = Canary::start();
    let text = hostile(canary.port);
    let script = Script::steps([
        call_with(
            &text,
            &format!("echo '{}'", text.replace('\'', "").replace('\n', " ")),
        ),
        Step::text(&text),
    ]);
    let model = ScriptedModel::start(script).expect("a scripted model");
    let system = System::start(model.port(), "");
    let browser = open(&system);
    enrol(&browser, &system);
    send(&browser, &format!("Show me: {}", text.replace('\n', " ")));
    // Whether the command is asked about is for the rules to say; the card is shown whole.
    wait_for("the answer, or a question before it", || {
        if count(&browser, ".approval[data-state=open]") > 0 {
            browser.click(".approval[data-state=open] .approve");
        }
        (count(&browser, ".call[data-state=done]") > 0).then_some(())
    });
    browser.find("#status[data-state=ready]");
    browser.wait_for_text("THE END");
    browser.reload();
    browser.wait_for_text("THE END");
    let loading = "#log :is(img, script, iframe, object, embed, video, audio, svg, style, link, meta, form, a, base), \
                   #log [src], #log [href], #log [style], #log [onerror], #log [onload]";
    assert_eq!(count(&browser, loading), 0);
    assert_eq!(browser.run("return window.pwned ?? null"), Value::Null);
    let foreign = browser.run(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)
           .filter((name) => !name.startsWith(location.origin + '/'))",
    );
    assert_eq!(foreign, json!([]));

    // Were there a hole in the page's own code, its policy would still hold.
    let written = browser.run(
        "try { document.body.innerHTML = '<b>x</b>'; return 'written'; } catch { return 'refused'; }",
    );
    assert_eq!(written, "refused");
    let foreign_loads = loads(canary.port);
    browser.run(&foreign_loads);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(canary.seen(), [""; 0]);

    // The same on a page without a policy does reach the canary.
    browser.open(&format!("http://127.0.0.1:{}/", canary.port));
    let before = canary.seen().len();
    browser.run(&foreign_loads);
    wait_for("loads arrive", || {
        (canary.seen().len() >= before + 5).then_some(())
    });
}

/// A script that tries whatever makes a browser speak to a server.
fn loads(port: u16) -> String {
    let elements = [
        ("img", "src"),
        ("iframe", "src"),
        ("video", "src"),
        ("object", "data"),
        ("link", "href"),
        ("script", "src"),
    ];
    let make = |(name, attribute): &(&str, &str)| {
        format!(
            "try {{
               const node = document.createElement('{name}');
               node.rel = 'stylesheet';
               node.setAttribute('{attribute}', 'http://127.0.0.1:{port}/{name}');
               document.body.append(node);
             }} catch {{}}"
        )
    };
    let elements: String = elements.iter().map(make).collect();
    format!(
        "{elements}
         fetch('http://127.0.0.1:{port}/fetch', {{mode: 'no-cors'}}).catch(() => {{}});
         try {{ navigator.sendBeacon('http://127.0.0.1:{port}/beacon', 'secret'); }} catch {{}}
         try {{ new WebSocket('ws://127.0.0.1:{port}/socket'); }} catch {{}}
         try {{ new EventSource('http://127.0.0.1:{port}/events'); }} catch {{}}"
    )
}

#[test]
fn the_page_finds_its_way_back_when_its_server_is_killed() {
    let said = "still here after all of it, whatever became of the page while it was being said";
    let script = Script::steps([Step::slow_text(said, 150)]);
    let model = ScriptedModel::start(script).expect("a scripted model");
    let system = System::start(model.port(), "");
    let browser = open(&system);
    send(&browser, "Are you there?");
    browser.find(".answer");
    system.signal("bulkhead-channel-web", "KILL");
    browser.find("#status[data-state=lost]");
    browser.wait_for_text(said);
    browser.find("#status[data-state=ready]");
    assert_eq!(
        (count(&browser, ".bubble"), count(&browser, ".answer")),
        (1, 1)
    );
    assert_eq!(model.requests().len(), 1);
}

#[test]
fn stop_stops_and_logging_out_leaves_nothing_on_the_page() {
    let script = Script::steps([Step::slow_text(&"word ".repeat(300), 100)]);
    let model = ScriptedModel::start(script).expect("a scripted model");
    let system = System::start(model.port(), "");
    let browser = open(&system);
    send(&browser, "Go on for ever.");
    browser.find(".answer");
    browser.click("#stop");
    browser.find("#status[data-state=ready]");
    browser.wait_for_text("Stopped.");
    assert!(model.wait_for_disconnects(1, Duration::from_secs(10)));
    browser.click("#logout");
    browser.find("#login");
    assert!(!browser.text().contains("Go on for ever."));
    browser.reload();
    browser.find("#login");
    assert_eq!(browser.run("return localStorage.length"), 0);
}

/// With `BULKHEAD_SCREENSHOT=docs/images/page.png` the picture for the README is kept there.
#[test]
fn a_conversation_as_the_readme_shows_it() {
    let exports = [
        ("2023-q3.csv", 48_211),
        ("2023-q4.csv", 51_902),
        ("2025-q3.csv", 64_377),
    ];
    let answer = "Two of the three are from **2023**, `2023-q3.csv` and `2023-q4.csv`, about 100 KB \
                  together. Shall I delete those two?";
    let rules = vec![
        Rule {
            contains: "old exports".to_owned(),
            steps: vec![call_with("", "ls -l exports"), Step::text(answer)],
        },
        Rule {
            contains: "delete".to_owned(),
            steps: vec![
                call_with(
                    "This removes the two exports from 2023 and keeps the one from 2025.",
                    "rm exports/2023-q3.csv exports/2023-q4.csv",
                ),
                Step::text("Both are gone; `2025-q3.csv` is still there."),
            ],
        },
    ];
    let model = ScriptedModel::start(Script {
        rules,
        ..Script::default()
    })
    .expect("a scripted model");
    let system = System::start(model.port(), "");
    let folder = system.workspace().join("exports");
    std::fs::create_dir(&folder).expect("a folder");
    for (name, size) in exports {
        std::fs::write(folder.join(name), vec![b'x'; size]).expect("an export");
    }
    let browser = open(&system);
    enrol(&browser, &system);
    browser.resize(960, 900);
    send(&browser, "Which of my old exports could go?");
    browser.wait_for_text("Shall I delete those two?");
    browser.find(".call[data-state=done]");
    send(&browser, "Yes, delete them, please.");
    browser.find(".approval[data-state=open] .approve:enabled");
    browser.find("#status[data-state=asks]");
    assert_eq!(
        count(
            &browser,
            ".notice, .failed, [role=alert]:not(.visually-hidden)"
        ),
        0
    );
    // The buttons come in slowly.
    thread::sleep(Duration::from_millis(300));
    let picture = browser.screenshot();
    assert!(picture.starts_with(b"\x89PNG\r\n"));
    if let Some(path) = std::env::var_os("BULKHEAD_SCREENSHOT") {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        std::fs::write(&path, &picture).expect("the picture is kept");
    }
    browser.click(".approval[data-state=open] .approve");
    browser.wait_for_text("Both are gone");
    let left: Vec<_> = std::fs::read_dir(&folder).expect("the folder").collect();
    assert_eq!(left.len(), 1);
}
