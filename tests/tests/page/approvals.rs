//! What waits for an answer and what is allowed for a while, in a real browser.

use serde_json::{Value, json};
use testkit::browser::Browser;
use testkit::model::{Rule, Script, ScriptedModel, Step};
use testkit::system::{System, wait_for};

use crate::{count, doing, enrol, open, send};

/// The key Enter, as WebDriver has it.
const ENTER: &str = "\u{e007}";

const OPEN: &str = "#questions .approval[data-state=open]";

fn exec(command: &str) -> Step {
    Step::call("exec", json!({ "command": command }))
}

/// A model that makes these steps when it is told "go", and then says that it is done.
fn going(steps: impl IntoIterator<Item = Step>) -> ScriptedModel {
    let steps = steps.into_iter().chain([Step::text("All is done.")]);
    let rules = vec![Rule {
        contains: "go".to_owned(),
        steps: steps.collect(),
    }];
    ScriptedModel::start(Script {
        rules,
        ..Script::echo()
    })
    .expect("a scripted model")
}

fn with_files(system: &System, names: &[&str]) {
    for name in names {
        std::fs::write(system.workspace().join(name), "x").expect("a file");
    }
}

/// The card that shows this, by a selector of its own.
fn card_with(browser: &Browser, text: &str) -> String {
    let id = wait_for(&format!("a card with {text:?}"), || {
        let id = browser.run(&format!(
            "return [...document.querySelectorAll({OPEN:?})]
               .find((node) => node.querySelector('.action').textContent.includes({text:?}))
               ?.getAttribute('aria-labelledby') ?? null"
        ));
        id.as_str().map(str::to_owned)
    });
    format!("#questions .approval[aria-labelledby={id}]")
}

/// Presses a button of a card, as a person who has read down to it.
fn press(browser: &Browser, card: &str, button: &str) {
    let button = format!("{card} {button}");
    browser.run(&format!(
        "document.querySelector({button:?}).scrollIntoView({{ block: 'center' }})"
    ));
    browser.click(&button);
}

fn wait_for_count(browser: &Browser, selector: &str, expected: u64) {
    wait_for(&format!("{expected} of {selector}"), || {
        (count(browser, selector) == expected).then_some(())
    });
}

/// The last that the model was told.
fn told(model: &ScriptedModel) -> String {
    let requests = model.requests();
    let messages = requests.last().expect("a request").messages();
    messages.last().expect("a message").clone()
}

#[test]
fn all_questions_wait_in_one_view_and_each_is_answered_by_itself() {
    let names = ["one.txt", "two.txt", "three.txt"];
    let model = doing(&[
        ("one", "rm one.txt"),
        ("two", "rm two.txt"),
        ("three", "rm three.txt"),
    ]);
    let system = System::start(model.port(), "");
    with_files(&system, &names);
    let browser = open(&system);
    enrol(&browser, &system);
    send(&browser, "do one");
    browser.find("#log .approval[data-state=open]");
    // Two more, asked for elsewhere; one of them while the view is open.
    let second = system.spawn(&["ask", "--json", "do two"]);
    wait_for_count(&browser, "#log .approval", 2);
    browser.click("#to-approvals");
    let third = system.spawn(&["ask", "--json", "do three"]);
    wait_for_count(&browser, OPEN, 3);
    assert_eq!(
        browser.run("return document.getElementById('waiting').textContent"),
        "3"
    );
    // Nothing of the conversation is in the way, and no button is for more than one card.
    assert_eq!(count(&browser, "#log .approval"), 0);
    let buttons = "return [...document.querySelectorAll('#questions button')].map((button) => button.textContent)";
    let each = ["Deny", "Approve with passkey"];
    assert_eq!(browser.run(buttons), json!([each, each, each].concat()));

    // It is the same after the page is loaded anew.
    browser.reload();
    wait_for_count(&browser, OPEN, 3);
    for name in names {
        card_with(&browser, &format!("rm {name}"));
    }

    // One yes is for one call.
    let two = card_with(&browser, "rm two.txt");
    press(&browser, &two, ".approve");
    browser.find(&format!("{two}[data-state=approve]"));
    wait_for("two.txt goes", || {
        (!system.workspace().join("two.txt").exists()).then_some(())
    });
    assert_eq!(count(&browser, OPEN), 2);
    assert!(system.workspace().join("one.txt").exists());
    assert!(system.workspace().join("three.txt").exists());

    // Somebody else is first: who it was is shown, and an answer that comes later does not count.
    let one = card_with(&browser, "rm one.txt");
    let asked = system.approvals();
    let shown = asked
        .iter()
        .find(|card| {
            card["action"]
                .as_str()
                .is_some_and(|action| action.contains("one.txt"))
        })
        .expect("the question");
    assert!(system.deny(shown).status.success());
    browser.find(&format!("{one}[data-state=deny]"));
    browser.wait_for_text("Denied in a terminal");
    assert_eq!(count(&browser, &format!("{one} button")), 0);
    browser.run(&format!(
        "const {{ approval, digest, nonce }} = {shown};
         const request = new XMLHttpRequest();
         request.open('POST', '/answer', false);
         request.setRequestHeader('Content-Type', 'application/json');
         request.setRequestHeader('X-Bulkhead-Page-Key', localStorage.getItem('bulkhead.page_key'));
         request.send(JSON.stringify({{ approval, digest, nonce, answer: 'deny' }}));"
    ));
    browser.wait_for_text("Your answer did not count: That question is closed already.");

    let three = card_with(&browser, "rm three.txt");
    press(&browser, &three, ".deny");
    browser.wait_for_text("Denied on the page");
    browser.wait_for_text("Nothing waits for your answer.");
    browser.click("#to-chat");
    browser.wait_for_text("one is over.");
    assert_eq!(count(&browser, "#log .approval"), 3);
    assert_eq!(second.json()["reply"], "two is over.");
    assert_eq!(third.json()["reply"], "three is over.");
    assert!(system.workspace().join("one.txt").exists());
    assert!(system.workspace().join("three.txt").exists());
    let answers: Vec<Value> = system
        .rows("approval_answered")
        .iter()
        .map(|row| json!([row["event"]["answer"], row["event"]["channel"]]))
        .collect();
    assert_eq!(
        answers,
        [
            json!(["approve", "web"]),
            json!(["deny", "operator"]),
            json!(["deny", "web"])
        ]
    );
    system.assert_record_is_sound();
}

#[test]
fn a_reason_typed_with_a_no_reaches_the_model_with_nothing_invisible_in_it() {
    let model = doing(&[("one", "rm one.txt"), ("two", "rm two.txt")]);
    let system = System::start(model.port(), "");
    with_files(&system, &["one.txt", "two.txt"]);
    let browser = open(&system);
    enrol(&browser, &system);
    send(&browser, "do one");
    let asked = ".approval[data-state=open]";
    browser.find(&format!("{asked} .approve:enabled"));
    browser.type_into(
        &format!("{asked} .reason"),
        "not this\u{202e}, take the copies",
    );
    // Whoever writes why not does not mean yes.
    assert_eq!(count(&browser, &format!("{asked} .approve:disabled")), 1);
    press(&browser, asked, ".deny");
    browser.wait_for_text("one is over.");
    assert!(
        told(&model).contains("a person said no: not this<U+202E>, take the copies"),
        "{}",
        told(&model)
    );

    // With the keyboard alone; Enter is a no, whatever stands in the field.
    send(&browser, "do two");
    browser.find(&format!("{asked} .deny:enabled"));
    browser.type_into(&format!("{asked} .reason"), &format!("yes{ENTER}"));
    browser.wait_for_text("two is over.");
    assert!(
        told(&model).contains("a person said no: yes"),
        "{}",
        told(&model)
    );
    assert!(system.workspace().join("one.txt").exists());
    assert!(system.workspace().join("two.txt").exists());
    assert!(system.rows("permit").is_empty());
    system.assert_record_is_sound();
}

#[test]
fn what_is_allowed_for_a_while_is_taken_back_at_once_also_in_the_turn_that_runs() {
    let model = going([
        exec("touch made"),
        exec("touch made"),
        exec("rm other"),
        exec("touch made"),
    ]);
    let system = System::start(model.port(), "");
    let browser = open(&system);
    send(&browser, "go");
    browser.click("#to-approvals");
    browser.wait_for_text("Nothing is allowed for a while.");
    let first = card_with(&browser, "touch made");
    press(&browser, &first, ".approve");
    // The second time it ran by the grant; now it is another that is asked about.
    let other = card_with(&browser, "rm other");
    let grounds = || -> Vec<Value> {
        let rows = system.rows("permit");
        rows.iter()
            .map(|row| row["event"]["ground"]["ground"].clone())
            .collect()
    };
    assert_eq!(grounds(), ["approval", "grant"]);
    browser.find(".grant .revoke");
    let said = browser.run("return document.querySelector('.grant').textContent");
    let said = said.as_str().expect("a text");
    assert!(said.starts_with("touch made"), "{said}");
    assert!(
        said.contains("Covers exactly this command, when you ask for it on this page; until "),
        "{said}"
    );
    assert!(said.contains("(29 days)"), "{said}");

    browser.click(".grant .revoke");
    browser.wait_for_text("Revoked: from the next call on, you are asked again.");
    browser.wait_for_text("Nothing is allowed for a while.");
    assert!(system.json_lines(&["grants", "list"]).is_empty());
    assert_eq!(system.rows("grant_revoked").len(), 1);
    press(&browser, &other, ".deny");
    // The same call in the same turn.
    let again = card_with(&browser, "touch made");
    assert_eq!(grounds(), ["approval", "grant"]);
    press(&browser, &again, ".approve");

    // It is there again, and goes when it is revoked in a terminal, without a reload.
    browser.find(".grant .revoke");
    let number = system.json_lines(&["grants", "list"])[0]["grant"].to_string();
    assert!(
        system
            .bulkhead(&["grants", "revoke", &number])
            .status
            .success()
    );
    wait_for_count(&browser, ".grant", 0);
    browser.click("#to-chat");
    browser.wait_for_text("All is done.");
    assert_eq!(grounds(), ["approval", "grant", "approval"]);
    system.assert_record_is_sound();
}

#[test]
fn the_view_is_used_with_the_keyboard_and_leaves_nothing_behind_after_logging_out() {
    let model = going([exec("touch made"), exec("rm other")]);
    let system = System::start(model.port(), "");
    let browser = open(&system);
    send(&browser, "go");
    browser.type_into("#to-approvals", ENTER);
    let first = card_with(&browser, "touch made");
    assert_eq!(
        browser.run("return document.activeElement.id"),
        "approvals-title"
    );
    browser.find(&format!("{first} .approve:enabled"));
    browser.type_into(&format!("{first} .approve"), ENTER);
    // The focus stays where it was: at the card that was answered, ahead of the next.
    browser.find(&format!("{first}[data-state=approve]"));
    assert_eq!(
        browser.run("return document.activeElement.textContent"),
        "Approved on the page"
    );
    card_with(&browser, "rm other");
    browser.find(".grant");
    // Whatever can be used has a name.
    let nameless = browser.run(
        "return [...document.querySelectorAll('#approvals :is(button, input), #views a')]
           .filter((node) => !(node.labels?.[0] ?? node).textContent.trim()).length",
    );
    assert_eq!(nameless, 0);

    // Neither view is wider than a phone.
    browser.resize(380, 800);
    for view in ["#to-chat", "#to-approvals"] {
        browser.click(view);
        let over = "return document.documentElement.scrollWidth - innerWidth";
        assert!(
            browser.run(over).as_i64().is_some_and(|over| over <= 0),
            "{view}"
        );
    }

    browser.click("#logout");
    browser.find("#login");
    assert!(!browser.text().contains("touch made"));
    assert_eq!(count(&browser, ".approval, .grant"), 0);
}
