//! A conversation: messages in, events out, answers to approvals.

use protocol::channel::{
    ApprovalAnswer, ApprovalCard, ChannelEvent, ChannelRequest, GrantCard, Needs, Retry,
};
use protocol::ids::{ApprovalId, CallId, Digest, MessageId, Nonce, SessionId, TurnId};
use protocol::passkey::Proof;
use protocol::time::Millis;
use serde_json::json;

use crate::http::Request;
use crate::page::{GatewayEnd, Page, Session, conversation, sender};

fn message(page: &Page, session: &Session, text: &str) -> Request {
    session.of(page.post("/message", &json!({ "id": "m-1", "text": text })))
}

fn inbound(gateway: &GatewayEnd) -> (MessageId, String) {
    let ChannelRequest::Inbound {
        message,
        sender: from,
        conversation: at,
        text,
        ..
    } = gateway.receive().unwrap()
    else {
        panic!("no message")
    };
    assert_eq!((from, at), (sender("anna"), conversation("anna")));
    (message, text)
}

fn accepted(message: &MessageId) -> ChannelEvent {
    ChannelEvent::Accepted {
        message: message.clone(),
        session: session_id(),
    }
}

fn session_id() -> SessionId {
    SessionId::parse("s1").unwrap()
}

#[test]
fn an_answer_streams_to_every_page_of_its_conversation_and_to_no_other() {
    let page = Page::up();
    let (anna, berta) = (page.log_in("anna"), page.log_in("berta"));
    let mut pages = [&anna, &anna, &berta].map(|session| session.of(page.get("/events")).open());
    for events in &mut pages {
        assert_eq!(events.event(), json!({ "type": "link", "state": "up" }));
    }
    let reply = page.ask(message(&page, &anna, "hello"), |gateway| {
        let (message, text) = inbound(gateway);
        assert_eq!(text, "hello");
        gateway.send(&accepted(&message)).unwrap();
        let (at, turn) = (conversation("anna"), TurnId(1));
        gateway
            .send(&ChannelEvent::TurnStarted {
                conversation: at.clone(),
                session: session_id(),
                turn,
            })
            .unwrap();
        for text in ["Ah", "oy"] {
            gateway
                .send(&ChannelEvent::Token {
                    conversation: at.clone(),
                    turn,
                    text: text.to_owned(),
                })
                .unwrap();
        }
        let text = "Ahoy".to_owned();
        gateway
            .send(&ChannelEvent::Reply {
                delivery: 7,
                conversation: at,
                session: session_id(),
                turn,
                text,
            })
            .unwrap();
        assert_eq!(
            gateway.receive().unwrap(),
            ChannelRequest::Delivered { delivery: 7 }
        );
        let text = "for berta".to_owned();
        let at = conversation("berta");
        gateway
            .send(&ChannelEvent::Notice {
                delivery: 8,
                conversation: at,
                ends_turn: None,
                text,
            })
            .unwrap();
        assert_eq!(
            gateway.receive().unwrap(),
            ChannelRequest::Delivered { delivery: 8 }
        );
    });
    assert_eq!(reply.status, 202);
    let [first, second, other] = &mut pages;
    for events in [first, second] {
        assert_eq!(
            events.event(),
            json!({ "type": "said", "message": "m-1", "text": "hello" })
        );
        let types = [(); 4].map(|()| events.event()["type"].as_str().unwrap().to_owned());
        assert_eq!(types, ["turn_started", "token", "token", "reply"]);
    }
    assert_eq!(other.event()["text"], "for berta");
}

#[test]
fn a_passkey_passes_with_its_code_and_the_gateway_s_word_comes_back() {
    let page = Page::up();
    let session = page.log_in("anna");
    let body = json!({ "code": "abc", "enrolment": {
        "credential": "01", "public_key": "02", "authenticator_data": "03", "client_data": "04",
    }});
    let enrols = |gateway: &crate::page::GatewayEnd| {
        let ChannelRequest::EnrolPasskey {
            id,
            sender: whose,
            code,
            enrolment,
        } = gateway.receive().unwrap()
        else {
            panic!()
        };
        assert_eq!((whose, code.as_str()), (sender("anna"), "abc"));
        assert_eq!(enrolment.public_key.as_slice(), [2]);
        id
    };
    let taken = page.ask(session.of(page.post("/passkey", &body)), |gateway| {
        let id = enrols(gateway);
        gateway.send(&ChannelEvent::PasskeyEnrolled { id }).unwrap();
    });
    assert_eq!(taken.status, 202);
    let refused = page.ask(session.of(page.post("/passkey", &body)), |gateway| {
        let id = enrols(gateway);
        let text = "That is no passkey.".to_owned();
        gateway
            .send(&ChannelEvent::PasskeyRefused { id, text })
            .unwrap();
    });
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (422, "That is no passkey.")
    );
    for wrong in [
        json!({ "code": "abc" }),
        json!({ "code": "", "enrolment": body["enrolment"] }),
        json!({ "code": "a".repeat(300), "enrolment": body["enrolment"] }),
        json!({ "code": "abc", "enrolment": { "credential": "0G" } }),
    ] {
        assert_eq!(session.of(page.post("/passkey", &wrong)).send().status, 400);
    }
}

#[test]
fn an_answer_to_an_approval_passes_with_the_digest_and_nonce_that_were_shown() {
    let page = Page::up();
    let session = page.log_in("anna");
    let mut events = session.of(page.get("/events")).open();
    events.event();
    let card = ApprovalCard {
        approval: ApprovalId([1; 8]),
        nonce: Nonce([2; 16]),
        digest: Digest([3; 32]),
        session: session_id(),
        turn: TurnId(1),
        call: CallId(1),
        action: "rm -r -- old".to_owned(),
        reason: "rm is asked about every time".to_owned(),
        covers: "this call".to_owned(),
        said: "</pre><script>alert(1)</script>".to_owned(),
        expires: Millis(1),
        needs: Needs::Signature,
    };
    page.gateway
        .send(&ChannelEvent::Approval {
            conversation: conversation("anna"),
            card: card.clone(),
        })
        .unwrap();
    let shown = events.event();
    assert_eq!(shown["card"], serde_json::to_value(&card).unwrap());
    let body = json!({
        "approval": shown["card"]["approval"], "digest": shown["card"]["digest"],
        "nonce": shown["card"]["nonce"], "answer": "approve",
    });
    let reply = page.ask(session.of(page.post("/answer", &body)), |gateway| {
        let expected = ChannelRequest::Answer {
            approval: card.approval,
            digest: card.digest,
            nonce: card.nonce,
            sender: sender("anna"),
            answer: ApprovalAnswer::Approve,
            reason: String::new(),
            proof: Proof::Link,
        };
        assert_eq!(gateway.receive().unwrap(), expected);
    });
    assert_eq!(reply.status, 202);
    // What a passkey signed passes as it came, good or not.
    let assertion = json!({
        "credential": "01", "authenticator_data": "02", "client_data": "03", "signature": "",
    });
    let mut signed = body.clone();
    signed["passkey"] = assertion.clone();
    page.ask(session.of(page.post("/answer", &signed)), |gateway| {
        let ChannelRequest::Answer { proof, .. } = gateway.receive().unwrap() else {
            panic!()
        };
        let assertion = serde_json::from_value(assertion).unwrap();
        assert_eq!(proof, Proof::Passkey { assertion });
    });
    for wrong in [
        json!({ "answer": "approve" }),
        json!({ "approval": "01", "digest": "", "nonce": "", "answer": "approve" }),
        json!({ "approval": body["approval"], "digest": body["digest"], "nonce": body["nonce"],
                "answer": "approve", "passkey": { "credential": "01" } }),
        json!({ "approval": body["approval"], "digest": body["digest"], "nonce": body["nonce"],
                "answer": "approve", "reason": "no" }),
    ] {
        assert_eq!(session.of(page.post("/answer", &wrong)).send().status, 400);
    }
    // A reason goes with a no, as it was typed; what is in it the gateway makes visible.
    let mut no = body.clone();
    (no["answer"], no["reason"]) = (json!("deny"), json!("not \u{202e}this"));
    let taken = page.ask(session.of(page.post("/answer", &no)), |gateway| {
        let ChannelRequest::Answer { answer, reason, .. } = gateway.receive().unwrap() else {
            panic!()
        };
        assert_eq!(
            (answer, reason.as_str()),
            (ApprovalAnswer::Deny, "not \u{202e}this")
        );
    });
    assert_eq!(taken.status, 202);
    no["reason"] = json!("x".repeat(1001));
    let refused = session.of(page.post("/answer", &no)).send();
    assert_eq!(refused.status, 422);
    assert!(refused.error().contains("1000 bytes"), "{refused:?}");
    let mut more = body.clone();
    more["sender"] = json!("sender-berta");
    assert_eq!(session.of(page.post("/answer", &more)).send().status, 400);
}

#[test]
fn grants_are_asked_for_and_taken_back_in_the_name_of_who_is_at_the_browser() {
    let page = Page::up();
    let session = page.log_in("anna");
    let card = GrantCard {
        grant: 3,
        what: "touch made".to_owned(),
        covers: "exactly this command".to_owned(),
        expires: Millis(7),
    };
    let shown = page.ask(session.of(page.get("/grants")), |gateway| {
        let ChannelRequest::Grants { id, sender: whose } = gateway.receive().unwrap() else {
            panic!()
        };
        assert_eq!(whose, sender("anna"));
        let grants = vec![card.clone()];
        gateway
            .send(&ChannelEvent::Grants {
                id,
                grants,
                more: 2,
            })
            .unwrap();
    });
    assert_eq!(shown.status, 200);
    let grants = serde_json::to_value([&card]).unwrap();
    assert_eq!(shown.json(), json!({ "grants": grants, "more": 2 }));

    let revoke = || session.of(page.post("/revoke", &json!({ "grant": 3 })));
    let revokes = |gateway: &GatewayEnd| {
        let ChannelRequest::RevokeGrant {
            id,
            sender: whose,
            grant,
        } = gateway.receive().unwrap()
        else {
            panic!()
        };
        assert_eq!((whose, grant), (sender("anna"), 3));
        id
    };
    let taken = page.ask(revoke(), |gateway| {
        let id = revokes(gateway);
        gateway.send(&ChannelEvent::GrantRevoked { id }).unwrap();
    });
    assert_eq!(taken.status, 202);
    let refused = page.ask(revoke(), |gateway| {
        let (id, text) = (revokes(gateway), "There is none.".to_owned());
        gateway
            .send(&ChannelEvent::GrantNotRevoked { id, text })
            .unwrap();
    });
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (422, "There is none.")
    );
    for wrong in [
        json!({}),
        json!({ "grant": -1 }),
        json!({ "grant": "3" }),
        json!({ "grant": 3, "sender": "sender-berta" }),
    ] {
        assert_eq!(session.of(page.post("/revoke", &wrong)).send().status, 400);
    }
    // Whoever shows them hears that there are others.
    let mut events = session.of(page.get("/events")).open();
    events.event();
    page.gateway
        .send(&ChannelEvent::GrantsChanged {
            conversation: conversation("anna"),
        })
        .unwrap();
    assert_eq!(events.event()["type"], "grants_changed");
}

#[test]
fn a_message_survives_a_restart_of_the_gateway() {
    let mut page = Page::up();
    let session = page.log_in("anna");
    let request = message(&page, &session, "hello");
    let reply = std::thread::scope(|scope| {
        let reply = scope.spawn(move || request.send());
        let first = inbound(&page.gateway);
        page.restart_gateway();
        assert_eq!(inbound(&page.gateway), first);
        page.gateway.send(&accepted(&first.0)).unwrap();
        reply.join().unwrap()
    });
    assert_eq!(reply.status, 202);
}

#[test]
fn a_message_that_is_not_taken_is_said_so_and_tried_again_if_it_may_be() {
    let page = Page::up();
    let session = page.log_in("anna");
    let refused = |message: &MessageId, retry| ChannelEvent::NotAccepted {
        message: message.clone(),
        retry,
        text: "Too fast.".to_owned(),
    };
    let later = page.ask(message(&page, &session, "hello"), |gateway| {
        let (id, _) = inbound(gateway);
        gateway.send(&refused(&id, Retry::Later)).unwrap();
        assert_eq!(inbound(gateway).0, id);
        gateway.send(&accepted(&id)).unwrap();
    });
    assert_eq!(later.status, 202);
    let never = page.ask(message(&page, &session, "hello"), |gateway| {
        let (id, _) = inbound(gateway);
        gateway.send(&refused(&id, Retry::Never)).unwrap();
    });
    assert_eq!((never.status, never.error().as_str()), (422, "Too fast."));
    assert_eq!(message(&page, &session, "  ").send().status, 400);
}

#[test]
fn while_the_gateway_is_gone_it_is_said_and_the_message_waits() {
    let mut page = Page::up();
    let session = page.log_in("anna");
    let mut events = session.of(page.get("/events")).open();
    assert_eq!(events.event()["state"], "up");
    page.gateway.close();
    assert_eq!(events.event(), json!({ "type": "link", "state": "down" }));
    for request in [page.get("/transcript"), page.post("/stop", &json!({}))] {
        let reply = session.of(request).send();
        assert_eq!(reply.status, 503);
        assert!(reply.error().contains("gateway"), "{}", reply.error());
    }
    let kept = message(&page, &session, "hello").send();
    assert_eq!(kept.status, 503);
    page.restart_gateway();
    let (id, text) = inbound(&page.gateway);
    assert_eq!((id.as_str(), text.as_str()), ("m-1", "hello"));
    assert_eq!(events.event(), json!({ "type": "link", "state": "up" }));
}
