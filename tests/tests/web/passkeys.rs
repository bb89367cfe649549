//! Tier 3 on the page: nothing but a passkey that was enrolled with a code from the terminal.

use protocol::ids::Digest;
use serde_json::{Value, json};
use testkit::http::{Events, Response};
use testkit::passkey::{Made, SoftKey};
use testkit::system::{System, wait_for};

use super::{Browser, deleting, next, page_origin, passkey_code, question, with_files};

/// Tries to enrol this key with this code.
fn enrol(browser: &Browser, key: &SoftKey, code: &str, made: &Made) -> Response {
    let body = json!({ "code": code, "enrolment": key.enrol(made) });
    browser.post("/passkey", &body).send()
}

fn refusal(events: &mut Events) -> String {
    let refused = next(events, "answer_refused");
    refused["text"].as_str().expect("a text").to_owned()
}

fn passkeys(system: &System) -> Vec<Value> {
    system.json_lines(&["passkey", "list"])
}

#[test]
fn a_click_without_a_passkey_runs_nothing_of_tier_3() {
    let model = deleting(&["one"]);
    let system = with_files(&model, &["one"]);
    let browser = Browser::log_in(&system);
    let mut events = browser.events();
    browser.says("m-1", "delete one");
    let card = question(&mut events);
    assert_eq!(card["needs"], "signature");
    browser.answers(&card, "approve");
    let told = refusal(&mut events);
    assert!(told.contains("bulkhead approvals approve"), "{told}");
    // One that nobody enrolled.
    let key = SoftKey::generate();
    let digest = card["digest"].as_str().expect("a digest");
    let made = Made::yes(
        Digest::parse(digest).expect("a digest"),
        &page_origin(system.web_port()),
    );
    browser.sends_signed(&card, &key.sign(&made));
    let told = refusal(&mut events);
    assert!(told.contains("not enrolled"), "{told}");
    assert!(system.rows("approval_answered").is_empty());
    assert!(system.workspace().join("one").exists());
    browser.answers(&card, "deny");
    assert_eq!(next(&mut events, "approval_closed")["answer"], "deny");
    system.assert_record_is_sound();
}

#[test]
fn what_a_passkey_signed_falsely_runs_nothing_and_what_it_signed_rightly_runs_once() {
    let model = deleting(&["one", "two"]);
    let system = with_files(&model, &["one", "two"]);
    let browser = Browser::log_in(&system);
    let mut events = browser.events();
    let passkey = browser.enrols(&system);
    let port = system.web_port();
    browser.says("m-1", "delete one");
    let card = question(&mut events);
    passkey.uses.set(5);
    let right = passkey.yes(&card, port);
    type Change = fn(&mut Made);
    let changes: [(Change, &str); 6] = [
        (|m| m.challenge[0] ^= 1, "another call"),
        (
            |m| m.origin = "http://localhost:1".to_owned(),
            "another page",
        ),
        (|m| m.rp_id = "evil.example".to_owned(), "another site"),
        (|m| m.flags = 0b001, "did not verify"),
        (|m| m.flags = 0b100, "nobody touched"),
        (|m| m.kind = "webauthn.create".to_owned(), "another kind"),
    ];
    for (change, expected) in changes {
        let mut made = right.clone();
        change(&mut made);
        browser.sends_signed(&card, &passkey.key.sign(&made));
        let told = refusal(&mut events);
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let mut forged = SoftKey::generate().sign(&right);
    forged.credential = passkey.key.credential();
    browser.sends_signed(&card, &forged);
    let told = refusal(&mut events);
    assert!(told.contains("signature does not hold"), "{told}");
    assert!(system.rows("approval_answered").is_empty());

    let signed = passkey.key.sign(&right);
    browser.sends_signed(&card, &signed);
    assert_eq!(next(&mut events, "approval_closed")["answer"], "approve");
    next(&mut events, "reply");
    let answered = system.rows("approval_answered").remove(0);
    assert_eq!(answered["event"]["signed"]["by"], "passkey");
    assert_eq!(
        answered["event"]["signed"]["credential"],
        passkeys(&system)[0]["credential"]
    );

    // The same again, for the next call; and a copy of the key, whose counter stands still.
    browser.says("m-2", "delete two");
    let card = question(&mut events);
    browser.sends_signed(&card, &signed);
    assert!(refusal(&mut events).contains("another call"));
    let copy = passkey.key.sign(&passkey.yes(&card, port));
    browser.sends_signed(&card, &copy);
    let told = refusal(&mut events);
    assert!(told.contains("counter"), "{told}");
    assert!(system.workspace().join("two").exists());
    assert_eq!(system.rows("permit").len(), 1);
    system.assert_record_is_sound();
}

#[test]
fn a_code_from_the_terminal_enrols_one_passkey_and_nothing_else_does() {
    let model = deleting(&[]);
    let system = with_files(&model, &[]);
    let browser = Browser::log_in(&system);
    let origin = page_origin(system.web_port());
    let key = SoftKey::generate();
    for code in ["", "0000", &"0".repeat(48)] {
        let refused = enrol(&browser, &key, code, &Made::enrolment(code, &origin));
        assert!([400, 422].contains(&refused.status), "{refused:?}");
    }
    // A code is used up by a try that fails.
    let code = passkey_code(&system);
    let elsewhere = Made::enrolment(&code, "http://localhost:1");
    assert_eq!(enrol(&browser, &key, &code, &elsewhere).status, 422);
    let made = Made::enrolment(&code, &origin);
    assert_eq!(enrol(&browser, &key, &code, &made).status, 422);
    assert!(passkeys(&system).is_empty());

    let code = passkey_code(&system);
    let made = Made::enrolment(&code, &origin);
    assert_eq!(enrol(&browser, &key, &code, &made).status, 202);
    let second = SoftKey::generate();
    assert_eq!(enrol(&browser, &second, &code, &made).status, 422);
    let known = passkeys(&system);
    assert_eq!(known.len(), 1);
    assert_eq!(known[0]["name"], "a key");
    let enrolled = system.rows("passkey_enrolled");
    assert_eq!(enrolled.len(), 1);
    assert_eq!(enrolled[0]["event"]["credential"], known[0]["credential"]);
    // The same passkey again would be two with one id.
    let code = passkey_code(&system);
    let again = enrol(&browser, &key, &code, &Made::enrolment(&code, &origin));
    assert_eq!(again.status, 422);
    system.assert_record_is_sound();
}

#[test]
fn a_passkey_survives_a_restart_and_counts_for_nothing_once_it_is_removed() {
    let model = deleting(&["one", "two"]);
    let system = with_files(&model, &["one", "two"]);
    let browser = Browser::log_in(&system);
    let passkey = browser.enrols(&system);
    assert!(system.bulkhead(&["down"]).status.success());
    system.up();
    wait_for("the page is served again", || {
        (browser.get("/transcript").send().status == 200).then_some(())
    });
    let mut events = browser.events();
    browser.says("m-1", "delete one");
    browser.signs(&question(&mut events), &passkey);
    assert_eq!(next(&mut events, "approval_closed")["answer"], "approve");
    next(&mut events, "reply");

    let number = passkeys(&system)[0]["passkey"].to_string();
    let removed = system.bulkhead(&["passkey", "remove", &number]);
    assert!(removed.status.success());
    assert!(
        !system
            .bulkhead(&["passkey", "remove", &number])
            .status
            .success()
    );
    assert_eq!(system.rows("passkey_removed").len(), 1);
    browser.says("m-2", "delete two");
    browser.signs(&question(&mut events), &passkey);
    let told = refusal(&mut events);
    assert!(told.contains("not enrolled"), "{told}");
    assert!(system.workspace().join("two").exists());
    system.assert_record_is_sound();
}
