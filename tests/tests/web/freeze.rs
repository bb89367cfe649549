//! The button that freezes everything.

use serde_json::{Value, json};
use testkit::model::{Script, ScriptedModel};
use testkit::system::{System, wait_for};

use crate::{Browser, next};

fn by(system: &System) -> Option<Value> {
    let status = system.json(&["status"]);
    let by = status["frozen"]["frozen"]["by"].clone();
    (!by.is_null()).then_some(by)
}

#[test]
fn the_owner_s_page_freezes_everything_and_cannot_end_it() {
    let model = ScriptedModel::start(Script::echo()).expect("a scripted model");
    let system = System::start(model.port(), "");
    let browser = Browser::log_in(&system);
    let mut events = browser.events();
    for body in [json!({ "reason": "x" }), json!(null), json!([1])] {
        let odd = browser.post("/panic", &body).send();
        assert_eq!(odd.status, 400, "{odd:?}");
    }
    assert_eq!(by(&system), None);

    let taken = browser.post("/panic", &json!({})).send();
    assert_eq!(taken.status, 202, "{taken:?}");
    let who = json!({ "by": "person", "principal": "owner", "channel": "web", "how": "button" });
    assert_eq!(by(&system), Some(who));
    let notice = next(&mut events, "notice");
    let line = "Everything is frozen by owner on web (by the button)";
    assert!(
        notice["text"].as_str().expect("a text").contains(line),
        "{notice}"
    );
    let message = json!({ "id": "m-1", "text": "hello" });
    let refused = browser.post("/message", &message).send();
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(
        refused.json()["error"]
            .as_str()
            .expect("a text")
            .contains(line)
    );
    // Whoever opens the page now sees it, too.
    let entries = browser.transcript();
    let last = entries.last().expect("an entry");
    assert!(
        last["text"].as_str().expect("a text").contains(line),
        "{last}"
    );
    // Again is harmless, and nothing here ends it.
    assert_eq!(browser.post("/panic", &json!({})).send().status, 202);
    for path in ["/resume", "/unfreeze", "/panic/resume"] {
        assert_eq!(browser.post(path, &json!({})).send().status, 404);
    }
    wait_for("the row is written", || {
        (system.rows("panicked").len() == 1).then_some(())
    });

    assert!(system.bulkhead(&["resume"]).status.success());
    browser.says("m-2", "hello");
    browser.wait_for_answer("You said: hello");
    system.assert_record_is_sound();
}
