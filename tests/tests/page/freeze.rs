//! The button that freezes everything, clicked.

use testkit::model::{Script, ScriptedModel};
use testkit::system::{System, wait_for};

use crate::{count, open, send};

#[test]
fn everything_is_frozen_by_two_clicks_and_by_no_single_one() {
    let model = ScriptedModel::start(Script::echo()).expect("a scripted model");
    let system = System::start(model.port(), "");
    let browser = open(&system);
    let frozen = || !system.json(&["status"])["frozen"].is_null();
    browser.click("#panic");
    browser.find("#freeze:not([hidden])");
    browser.click("#freeze-no");
    wait_for("the question is gone", || {
        (count(&browser, "#freeze[hidden]") == 1).then_some(())
    });
    assert!(!frozen());

    browser.click("#panic");
    browser.click("#freeze-yes");
    browser.wait_for_text("Everything is frozen by owner on web (by the button)");
    assert!(frozen());
    wait_for("the question is gone", || {
        (count(&browser, "#freeze[hidden]") == 1).then_some(())
    });
    send(&browser, "hello");
    wait_for("the message is refused", || {
        (count(&browser, ".unsent.failed") == 1).then_some(())
    });

    assert!(system.bulkhead(&["resume"]).status.success());
    browser.wait_for_text("The owner ended the freeze.");
    browser.run("document.querySelector('#text').value = ''");
    send(&browser, "are you there?");
    browser.wait_for_text("You said: are you there?");
}
