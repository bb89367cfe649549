//! What a secret is bound to beyond its subject: hosts, dates, being a decoy; and its marks.

use std::time::Duration;

use bulkhead_vault::VaultClient;
use protocol::control::Peer;
use protocol::event::Event;
use protocol::marks::MarkKind;
use protocol::time::Millis;
use protocol::vault::{NewDate, Purpose, SecretKind, Subject, Terms, VaultChange};

use crate::rig::{SAME, Vault, name, refused, secret, telegram, to};

const HUSH: &str = "ghx-invented-0123456789abcdef";

fn in_days(days: i64) -> Millis {
    let now = Millis::now().0 as i64;
    Millis((now + days * 86_400_000) as u64)
}

#[test]
fn egress_gets_a_secret_for_the_hosts_it_is_bound_to_only() {
    let vault = Vault::with_record();
    let mut operator = vault.operator();
    let terms = to(&["api.example.com", "*.files.example"]);
    operator
        .add(name("hub"), Subject::Tool, terms, secret(HUSH))
        .unwrap();
    let mut egress = vault.egress();
    for host in ["api.example.com", "a.files.example"] {
        let opened = egress.open_for(&name("hub"), Purpose::Tool, host);
        assert_eq!(opened.unwrap().expose(), HUSH, "{host}");
    }
    let before = vault.record.len();
    for host in [
        "example.com",
        "api.example.com.evil.example",
        "files.example",
        "API.example.com",
        "",
    ] {
        let reason = refused(egress.open_for(&name("hub"), Purpose::Tool, host));
        assert!(reason.contains("not bound to this host"), "{reason}");
    }
    assert_eq!(vault.record.len(), before, "a refusal is no use");

    let unbound = operator.add(name("any"), Subject::Tool, Terms::default(), secret(HUSH));
    assert!(refused(unbound).contains("--host"));
    let terms = to(&["api.example.com"]);
    let channel = Subject::Channel(telegram());
    refused(operator.add(name("bot"), channel, terms, secret(HUSH)));
    let many: Vec<String> = (0..17).map(|n| format!("h{n}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    refused(operator.add(name("many"), Subject::Tool, to(&many), secret(HUSH)));

    // A model's key that is bound to no host goes to the one model that egress knows; one that is bound does not.
    operator
        .add(
            name("model"),
            Subject::Model,
            to(&["api.model.example"]),
            secret(HUSH),
        )
        .unwrap();
    assert!(
        egress
            .open_for(&name("model"), Purpose::Model, "api.model.example")
            .is_ok()
    );
    refused(egress.open_for(&name("model"), Purpose::Model, "elsewhere.example"));
    vault.stop();
}

#[test]
fn what_has_expired_stays_closed_until_it_is_rotated() {
    let vault = Vault::with_record();
    let mut operator = vault.operator();
    let terms = Terms {
        expires: Some(in_days(-1)),
        rotate_by: Some(in_days(30)),
        ..Terms::default()
    };
    let channel = Subject::Channel(telegram());
    operator
        .add(name("bot"), channel, terms, secret(HUSH))
        .unwrap();
    let mut bot = vault.bot();
    let before = vault.record.len();
    let reason = refused(bot.open(&name("bot")));
    assert!(reason.contains("expired on"), "{reason}");
    assert_eq!(vault.record.len(), before);

    let next = NewDate::At(in_days(10));
    operator
        .rotate(name("bot"), secret("another-value-1"), next, SAME)
        .unwrap();
    assert_eq!(bot.open(&name("bot")).unwrap().expose(), "another-value-1");
    let entry = operator.list().unwrap().remove(0);
    let due = entry.terms.rotate_by.unwrap();
    let thirty = Duration::from_secs(30 * 86_400);
    let span = due.since(entry.created);
    assert!(
        span <= thirty && span > thirty - Duration::from_secs(60),
        "{span:?}"
    );
    operator
        .rotate(
            name("bot"),
            secret("another-value-2"),
            NewDate::Never,
            NewDate::Never,
        )
        .unwrap();
    let entry = operator.list().unwrap().remove(0);
    assert_eq!((entry.terms.expires, entry.terms.rotate_by), (None, None));
    vault.stop();
}

#[test]
fn a_decoy_is_given_to_nobody_and_whoever_asks_is_on_the_record() {
    let vault = Vault::with_record();
    let terms = Terms {
        kind: SecretKind::Honeytoken,
        ..Terms::default()
    };
    vault
        .operator()
        .add(name("aws-root"), Subject::Tool, terms, secret(HUSH))
        .unwrap();
    let before = vault.record.len();
    let decoy = refused(
        vault
            .egress()
            .open_for(&name("aws-root"), Purpose::Tool, "a.example"),
    );
    let missing = refused(
        vault
            .egress()
            .open_for(&name("aws-toor"), Purpose::Tool, "a.example"),
    );
    assert_eq!(
        decoy.replace("aws-root", "aws-toor"),
        missing,
        "that it is a decoy does not show"
    );
    refused(vault.bot().open(&name("aws-root")));
    let touched = |subject| Event::HoneytokenTouched {
        name: name("aws-root"),
        subject,
    };
    let rows = [
        touched(Subject::Tool),
        touched(Subject::Channel(telegram())),
    ];
    assert_eq!(vault.record.after(before), rows);
    // Also without a record it stays closed.
    vault.record.die();
    refused(vault.bot().open(&name("aws-root")));
    vault.stop();
}

#[test]
fn egress_and_the_gateway_get_marks_of_every_value_and_no_value() {
    let vault = Vault::filled();
    let mut operator = vault.operator();
    let decoy = Terms {
        kind: SecretKind::Honeytoken,
        ..Terms::default()
    };
    operator
        .add(name("decoy"), Subject::Tool, decoy, secret(HUSH))
        .unwrap();
    let mut gateway = VaultClient::new(vault.link(Peer::Gateway));
    let (generation, marks) = gateway.marks().unwrap();
    let names: Vec<_> = marks
        .iter()
        .map(|mark| (mark.name.as_str(), mark.kind))
        .collect();
    let kinds = [MarkKind::Secret, MarkKind::Honeytoken, MarkKind::Secret];
    assert_eq!(
        names,
        [
            ("bot", kinds[0]),
            ("decoy", kinds[1]),
            ("model-key", kinds[2])
        ]
    );
    let sent = serde_json::to_string(&marks).unwrap();
    for clear in ["token-1-token", "sk-2-secret", HUSH, "invented"] {
        assert!(!sent.contains(clear));
    }
    assert!(gateway.marks_after(generation).unwrap().is_none());
    operator
        .rotate(name("bot"), secret("token-9-token"), SAME, SAME)
        .unwrap();
    let (later, _) = gateway.marks_after(generation).unwrap().unwrap();
    assert!(later > generation);
    let (_, others) = vault.egress().marks().unwrap();
    assert_eq!(others.iter().count(), 3);
    refused(gateway.open(&name("bot")));
    refused(gateway.open_for(&name("model-key"), Purpose::Model, "a.example"));
    let changes: Vec<_> = vault
        .record
        .after(0)
        .into_iter()
        .filter_map(|event| match event {
            Event::VaultChanged {
                change, generation, ..
            } => Some((generation, change)),
            _ => None,
        })
        .collect();
    let (added, rotated) = (VaultChange::Added, VaultChange::Rotated);
    assert_eq!(changes, [(1, added), (2, added), (3, added), (4, rotated)]);
    vault.stop();
}
